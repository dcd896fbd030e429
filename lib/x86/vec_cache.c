/*
 * x86/vec_cache.c - the memory that holds the host code of vector instructions.
 *
 * One memfd, mapped twice: writable, and executable. It is made with the system, so that nothing
 * has to be mapped later, and is sparse: pages exist when code is in them. The number of
 * different pieces of code is finite (forms x immediates) and fits; code stays where it is.
 * Any thread; the lock is the innermost one.
 */
#include "x86/vec.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

/* All forms with all immediates are 70,000 pieces of at most 66 bytes: a test tries them all. */
#define CODE_BYTES  (5u << 20)
#define ENTRIES_MAX (72u << 10)
#define HASH_BITS   17
#define HASH_SIZE   (1u << HASH_BITS)

/* Layout of the memfd. */
#define ENTRIES_OFF CODE_BYTES
#define HASH_OFF    (ENTRIES_OFF + ENTRIES_MAX * sizeof(struct vec_code_entry))
#define TOTAL       (HASH_OFF + HASH_SIZE * sizeof(uint32_t))

struct vec_cache {
	struct vec_host host;
	pthread_mutex_t lock;
	uint8_t *rw, *rx; /* the memfd; rx: CODE_BYTES of it */
	size_t code_used;
	uint32_t n_entries;
	struct vec_code_entry *entries; /* in rw */
	uint32_t *hash;                 /* in rw: number of an entry + 1; 0 = free */
};

/* FXSAVE after FLD1 and after an FXRSTOR of an exception's pointers. */
static void host_learn(struct vec_host *h)
{
	static const uint64_t pattern = 0x5555555555555555;
	uint8_t img[512] __attribute__((aligned(16)));
	uint64_t fip;

	h->amd = vec_host_is_amd();
	__asm__ volatile("fninit\n\tfld1\n\tfxsave64 %0" : "=m"(img));
	memcpy(&fip, img + XS_FIP, 8);
	h->pointers = fip != 0;
	memcpy(&h->mxcsr_mask, img + 28, 4);
	if (!h->mxcsr_mask)
		h->mxcsr_mask = 0xffbf; /* SDM 1 11.6.6 */
	memcpy(img + XS_FIP, &pattern, 8);
	img[XS_FCW] = 0x7e; /* #I is unmasked and pending */
	img[XS_FSW] = 0x81;
	img[XS_FSW + 1] = 0x80;
	__asm__ volatile("fxrstor64 %0\n\tfxsave64 %0\n\tfninit"
			 : "+m"(img)
			 :
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
			   "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
			   "xmm14", "xmm15");
	memcpy(&fip, img + XS_FIP, 8);
	h->pointer_bits = fip == pattern ? 64 : fip >> 56 == 0 ? 48 : 57;
}

const struct vec_host *vec_host_of(const struct x86_cpu *c)
{
	return &c->sys->vec->host;
}

static int code_fd(void)
{
	int fd = memfd_create("x86-vector-code", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("x86-vector-code", MFD_CLOEXEC);
	return fd;
}

int x86_vec_init(struct x86_system *sys)
{
	struct vec_cache *vc = calloc(1, sizeof(*vc));
	int fd, r = -ENOMEM;

	if (!vc)
		return r;
	pthread_mutex_init(&vc->lock, NULL);
	vc->rw = vc->rx = MAP_FAILED;
	sys->vec = vc;
	fd = code_fd();
	if (fd < 0 || ftruncate(fd, (off_t)TOTAL) < 0)
		goto fail;
	vc->rw = mmap(NULL, TOTAL, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	vc->rx = mmap(NULL, CODE_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (vc->rw == MAP_FAILED || vc->rx == MAP_FAILED)
		goto fail;
	close(fd);
	vc->entries = (struct vec_code_entry *)(vc->rw + ENTRIES_OFF);
	vc->hash = (uint32_t *)(vc->rw + HASH_OFF);
	host_learn(&vc->host);
	return 0;
fail:
	r = -errno;
	if (fd >= 0)
		close(fd);
	x86_vec_fini(sys);
	return r;
}

void x86_vec_fini(struct x86_system *sys)
{
	struct vec_cache *vc = sys->vec;

	if (!vc)
		return;
	if (vc->rw != MAP_FAILED)
		munmap(vc->rw, TOTAL);
	if (vc->rx != MAP_FAILED)
		munmap(vc->rx, CODE_BYTES);
	pthread_mutex_destroy(&vc->lock);
	free(vc);
	sys->vec = NULL;
}

/* ---- entries ------------------------------------------------------------------------------ */

#define KEY_X87 (1u << 31)

/* A number for each piece of code. Row numbers are below 512. */
static uint32_t key_of(const struct vec_want *w)
{
	const struct vec_op *base = w->map == 1   ? vec_map1
				    : w->map == 2 ? vec_map2
						  : vec_map3;
	uint32_t row = (uint32_t)(w->op - base);

	return row | (uint32_t)w->map << 9 | (uint32_t)w->vex << 11 |
	       (uint32_t)w->l1 << 12 | (uint32_t)w->w << 13 | (uint32_t)w->mem << 14 |
	       (uint32_t)w->imm << 16;
}

static size_t reg_base(unsigned kind)
{
	switch (kind) {
	case K_P:
	case K_Q:
	case K_N: return offsetof(struct x86_cpu, xsave) + XS_ST;
	case K_G:
	case K_E: return offsetof(struct x86_cpu, gpr);
	default: return offsetof(struct x86_cpu, xsave) + XS_XMM;
	}
}

void vec_describe(const struct vec_want *w, struct vec_code_entry *e)
{
	const struct vec_op *o = w->op;

	e->flags = o->flags;
	e->v = (uint16_t)reg_base(K_H);
	for (unsigned n = 4; n-- > 0;) {
		unsigned k = VEC_KIND(o->opr[n]);

		switch (k) {
		case K_NONE:
		case K_I: continue;
		case K_V:
		case K_P:
		case K_G: e->r = (uint16_t)reg_base(k); break;
		case K_H:
			if (!w->vex)
				continue;
			break;
		case K_L:
		case K_X0: break;
		default:
			e->m = (uint16_t)reg_base(k);
			if (w->mem)
				e->size = (uint8_t)vec_mem_size(o->opr[n], w->l1, w->w);
		}
		e->dst = (uint8_t)k;
		e->xmm |= k != K_P && k != K_Q && k != K_N && k != K_G && k != K_E;
	}
	if (o->flags & V_ST)
		e->dst = K_NONE;
	if (w->vex ? o->flags & V_VA : e->size == 16 && !(o->flags & V_UA))
		e->align = o->quirk & Q_AMD_UA && vec_host_is_amd() ? 0 : e->size - 1;
	e->mm_size = o->quirk & Q_AMD_LOW && !w->vex ? e->size / 2 : e->size;
}

static uint32_t hash_of(uint32_t key)
{
	return key * 0x9e3779b1u >> (32 - HASH_BITS);
}

/* The entry for `key`, or a new one with *fresh set; NULL: full. The lock is held. */
static struct vec_code_entry *entry_locked(struct vec_cache *vc, uint32_t key,
					   bool *fresh)
{
	uint32_t h = hash_of(key);
	struct vec_code_entry *e;

	for (; vc->hash[h]; h = (h + 1) & (HASH_SIZE - 1)) {
		e = &vc->entries[vc->hash[h] - 1];
		if (e->key == key)
			return e;
	}
	if (vc->n_entries == ENTRIES_MAX || vc->code_used + VEC_CODE_MAX > CODE_BYTES)
		return NULL;
	e = &vc->entries[vc->n_entries++];
	e->key = key;
	vc->hash[h] = vc->n_entries;
	*fresh = true;
	return e;
}

static void code_place_locked(struct vec_cache *vc, struct vec_code_entry *e,
			      unsigned len)
{
	e->fn = (vec_code)(vc->rx + vc->code_used);
	vc->code_used += (len + 15u) & ~15u;
}

const struct vec_code_entry *vec_cache_get(struct vec_cache *vc,
					   const struct vec_want *w)
{
	struct vec_code_entry *e;
	bool fresh = false;

	pthread_mutex_lock(&vc->lock);
	e = entry_locked(vc, key_of(w), &fresh);
	if (e && fresh) {
		vec_describe(w, e);
		code_place_locked(vc, e, vec_emit(w, vc->rw + vc->code_used));
	}
	pthread_mutex_unlock(&vc->lock);
	return e;
}

const struct vec_code_entry *vec_cache_get_x87(struct vec_cache *vc, unsigned n,
					       uint8_t modrm, bool flags)
{
	uint32_t key = KEY_X87 | n << 8 | modrm;
	struct vec_code_entry *e;
	bool fresh = false;

	pthread_mutex_lock(&vc->lock);
	e = entry_locked(vc, key, &fresh);
	if (e && fresh)
		code_place_locked(
			vc, e, vec_emit_x87(n, modrm, flags, vc->rw + vc->code_used));
	pthread_mutex_unlock(&vc->lock);
	return e;
}
