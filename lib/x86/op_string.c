/*
 * x86/op_string.c - MOVS STOS LODS SCAS CMPS with REP, REPE, REPNE. SDM 2B; 1 section 7.3.9.
 *
 * A repeated instruction works in chunks: as many elements as lie in one page each of source and
 * destination are moved, filled or compared on host memory at once, else one element by the
 * ordinary loads and stores. After each chunk rCX, rSI and rDI are what the manual wants them to
 * be, so a fault or an interrupt can come between. vCPU thread.
 */
#include <string.h>

#include "x86/op_tmpl.h"

/* One running string instruction. */
struct string {
	struct x86_cpu *c;
	const struct insn *i;
	unsigned size;
	bool down; /* EFLAGS.DF */
};

/* A chunk works on host memory at these addresses; NULL: not at hand. */
struct chunk {
	uint8_t *src, *dst;
	uint64_t n; /* elements */
};

static uint64_t wrap(const struct insn *i, uint64_t off)
{
	return i->asize == 8 ? off : i->asize == 4 ? (uint32_t)off : (uint16_t)off;
}

/* The source is DS or the overriding segment, the destination always ES. */
static unsigned src_seg(const struct string *s)
{
	return s->i->seg;
}

static unsigned dst_seg(const struct string *s)
{
	return s->i->flags & I_SEGCHK ? X86_ES : SEG_FLAT;
}

static uint64_t linear(const struct string *s, unsigned reg, unsigned seg,
		       enum access acc)
{
	uint64_t off = wrap(s->i, get64(s->c, reg));

	if (s->i->flags & I_SEGCHK)
		return seg_linear_checked(s->c, seg, off, s->size, acc);
	return off + s->c->seg_base[seg];
}

static uint64_t src_linear(const struct string *s)
{
	return linear(s, RSI, src_seg(s), ACC_READ);
}

static uint64_t dst_linear(const struct string *s, enum access acc)
{
	return linear(s, RDI, dst_seg(s), acc);
}

/* Moves the pointer in `reg` over n elements. */
static void advance(const struct string *s, unsigned reg, uint64_t n)
{
	uint64_t v = get64(s->c, reg), by = n * s->size;

	reg_set(s->c, reg, s->i->asize, s->down ? v - by : v + by);
}

/* Elements from the pointer in `reg` up to where its page, segment or address size ends. */
static uint64_t room(const struct string *s, unsigned reg, unsigned seg)
{
	const struct insn *i = s->i;
	uint64_t off = wrap(i, get64(s->c, reg)), bytes = PAGE_SIZE;

	if (i->asize != 8)
		bytes = min_u64(bytes, (i->asize == 4 ? 1ull << 32 : 1ull << 16) - off);
	if (i->flags & I_SEGCHK) {
		const struct x86_seg *sr = &s->c->seg[seg];

		if ((sr->attr & 0xc) == 4 || off > sr->limit)
			return 0; /* expand-down: element by element */
		bytes = min_u64(bytes, sr->limit - off + 1);
	}
	return min_u64(bytes, PAGE_SIZE - ((off + s->c->seg_base[seg]) & ~PAGE_MASK)) /
	       s->size;
}

static bool in_chunks(const struct string *s, uint64_t max)
{
	return max > 1 && !s->down;
}

/*
 * Host memory of the next elements, at most k->n: false when the page is not at hand or less than an
 * element is. Raises what the first element's access raises by segment.
 */
static bool chunk_src(const struct string *s, struct chunk *k)
{
	uint64_t va = src_linear(s);
	const struct tlb_entry *t = tlb_of(s->c, va, false);

	if (t->tag_read != (va & PAGE_MASK))
		return false;
	k->src = (uint8_t *)(va + t->addend);
	k->n = min_u64(k->n, room(s, RSI, src_seg(s)));
	return k->n > 0;
}

static bool chunk_dst(const struct string *s, struct chunk *k, enum access acc)
{
	uint64_t va = dst_linear(s, acc);
	const struct tlb_entry *t = tlb_of(s->c, va, acc == ACC_WRITE);

	if ((acc == ACC_WRITE ? t->tag_write : t->tag_read) != (va & PAGE_MASK))
		return false;
	k->dst = (uint8_t *)(va + t->addend);
	k->n = min_u64(k->n, room(s, RDI, dst_seg(s)));
	return k->n > 0;
}

/* ---- MOVS, STOS, LODS ------------------------------------------------------------------------------- */

/* Each does up to `max` elements and returns how many it did; pointers are advanced. */

/* As if element by element upwards: a destination just above the source repeats a pattern. */
static void move_up(uint8_t *dst, const uint8_t *src, uint64_t len, unsigned size)
{
	if (dst <= src || dst >= src + len) {
		memmove(dst, src, len);
		return;
	}
	for (uint64_t k = 0; k < len; k += size)
		memmove(dst + k, src + k, size);
}

static uint64_t movs_some(struct string *s, uint64_t max)
{
	struct chunk k = {.n = max};

	if (in_chunks(s, max) && chunk_src(s, &k) && chunk_dst(s, &k, ACC_WRITE)) {
		move_up(k.dst, k.src, k.n * s->size, s->size);
	} else {
		uint64_t v = mem_load(s->c, src_linear(s), s->size);

		mem_store(s->c, dst_linear(s, ACC_WRITE), s->size, v);
		k.n = 1;
	}
	advance(s, RSI, k.n);
	advance(s, RDI, k.n);
	return k.n;
}

static void fill(uint8_t *dst, uint64_t v, uint64_t n, unsigned size)
{
	if (size == 1) {
		memset(dst, (int)v, n);
		return;
	}
	for (uint64_t k = 0; k < n; k++)
		memcpy(dst + k * size, &v, size);
}

static uint64_t stos_some(struct string *s, uint64_t max)
{
	uint64_t v = get64(s->c, RAX);
	struct chunk k = {.n = max};

	if (in_chunks(s, max) && chunk_dst(s, &k, ACC_WRITE)) {
		switch (s->size) { /* constant sizes make loops that the compiler unrolls */
		case 1: fill(k.dst, v, k.n, 1); break;
		case 2: fill(k.dst, v, k.n, 2); break;
		case 4: fill(k.dst, v, k.n, 4); break;
		default: fill(k.dst, v, k.n, 8); break;
		}
	} else {
		mem_store(s->c, dst_linear(s, ACC_WRITE), s->size, v);
		k.n = 1;
	}
	advance(s, RDI, k.n);
	return k.n;
}

static uint64_t lods_some(struct string *s, uint64_t max)
{
	uint64_t v = mem_load(s->c, src_linear(s), s->size);

	(void)max;
	reg_set(s->c, RAX, s->size, v);
	advance(s, RSI, 1);
	return 1;
}

/* ---- CMPS, SCAS --------------------------------------------------------------------------------------- */

#define COMPARE(bits, ...)                                              \
	INLINE void compare_##bits(struct x86_cpu *c, uint##bits##_t a, \
				   uint##bits##_t b)                    \
	{                                                               \
		uint32_t w;                                             \
                                                                        \
		__asm__("cmp %[b], %[a]" FLAGS_OUT                      \
			: "=&a"(w)                                      \
			: [a] "r"(a), [b] "r"(b)                        \
			: "cc");                                        \
		c->st.w = (uint16_t)w;                                  \
	}
EACH_BITS(COMPARE)

static void compare(struct x86_cpu *c, uint64_t a, uint64_t b, unsigned size)
{
	switch (size) {
	case 1: compare_8(c, (uint8_t)a, (uint8_t)b); break;
	case 2: compare_16(c, (uint16_t)a, (uint16_t)b); break;
	case 4: compare_32(c, (uint32_t)a, (uint32_t)b); break;
	default: compare_64(c, a, b); break;
	}
}

static uint64_t element(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

/*
 * How many of `n` elements are compared until the repetition ends: src NULL compares with `acc`.
 * `stop_equal`: REPNE. The last two compared come back in *a and *b.
 */
static uint64_t scan(const struct chunk *k, unsigned size, bool stop_equal, uint64_t *a,
		     uint64_t *b)
{
	uint64_t done = 0;

	do {
		if (k->src)
			*a = element(k->src + done * size, size);
		*b = element(k->dst + done * size, size);
		done++;
	} while (done < k->n && (*a == *b) != stop_equal);
	return done;
}

static uint64_t scan_chunk(struct string *s, struct chunk *k, uint64_t a)
{
	bool stop_equal = s->i->flags & I_REPNE;
	uint64_t b = 0, done;

	switch (s->size) { /* constant sizes, as above */
	case 1: done = scan(k, 1, stop_equal, &a, &b); break;
	case 2: done = scan(k, 2, stop_equal, &a, &b); break;
	case 4: done = scan(k, 4, stop_equal, &a, &b); break;
	default: done = scan(k, 8, stop_equal, &a, &b); break;
	}
	compare(s->c, a, b, s->size);
	return done;
}

static uint64_t cmps_some(struct string *s, uint64_t max)
{
	/* which of two faults comes first is left open; this is AMD's order */
	bool src_first = s->i->flags & I_REP && s->size == 1, chunk = false;
	struct chunk k = {.n = max};
	uint64_t done = 1;

	if (in_chunks(s, max))
		chunk = src_first ? chunk_src(s, &k) && chunk_dst(s, &k, ACC_READ)
				  : chunk_dst(s, &k, ACC_READ) && chunk_src(s, &k);
	if (chunk) {
		done = scan_chunk(s, &k, 0);
	} else {
		uint64_t a, b;

		if (src_first) {
			a = mem_load(s->c, src_linear(s), s->size);
			b = mem_load(s->c, dst_linear(s, ACC_READ), s->size);
		} else {
			b = mem_load(s->c, dst_linear(s, ACC_READ), s->size);
			a = mem_load(s->c, src_linear(s), s->size);
		}
		compare(s->c, a, b, s->size);
	}
	advance(s, RSI, done);
	advance(s, RDI, done);
	return done;
}

static uint64_t scas_some(struct string *s, uint64_t max)
{
	uint64_t acc = reg_get(s->c, RAX, s->size), done = 1;
	struct chunk k = {.n = max};

	if (in_chunks(s, max) && chunk_dst(s, &k, ACC_READ))
		done = scan_chunk(s, &k, acc);
	else
		compare(s->c, acc, mem_load(s->c, dst_linear(s, ACC_READ), s->size),
			s->size);
	advance(s, RDI, done);
	return done;
}

/* ---- repetition ------------------------------------------------------------------------------------------ */

/*
 * `some` until rCX is 0, or until the comparison says so when `compares`. Between chunks requests
 * are seen, single steps after each element: then rip stays at the instruction.
 */
INLINE void repeat(struct x86_cpu *c, const struct insn *i,
		   uint64_t (*some)(struct string *, uint64_t), bool compares)
{
	struct string s = {c, i, i->osize, c->rflags & FL_DF};
	uint64_t n;

	if (!(i->flags & (I_REP | I_REPNE))) {
		some(&s, 1);
		return;
	}
	while ((n = reg_get(c, RCX, i->asize)) != 0) {
		uint64_t done = some(&s, c->rflags & FL_TF ? 1 : n);

		reg_set(c, RCX, i->asize, n - done);
		if (n == done || (compares && !COND_z(c) == !(i->flags & I_REPNE)))
			break;
		if (unlikely(atomic_load_explicit(&c->request, memory_order_relaxed) &
			     ~(uint32_t)(REQ_JIT | REQ_CODE)) ||
		    c->rflags & FL_TF) {
			c->rip = insn_rip(c, i);
			c->end = i + 1;
			return;
		}
	}
	c->rip = next_rip(c, i);
}

void op_movs(struct x86_cpu *c, const struct insn *i)
{
	repeat(c, i, movs_some, false);
}

void op_stos(struct x86_cpu *c, const struct insn *i)
{
	repeat(c, i, stos_some, false);
}

void op_lods(struct x86_cpu *c, const struct insn *i)
{
	repeat(c, i, lods_some, false);
}

void op_cmps(struct x86_cpu *c, const struct insn *i)
{
	repeat(c, i, cmps_some, true);
}

void op_scas(struct x86_cpu *c, const struct insn *i)
{
	repeat(c, i, scas_some, true);
}
