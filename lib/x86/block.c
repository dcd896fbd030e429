/*
 * x86/block.c - the cache of decoded blocks: found by physical address and mode, checked against
 * the generation of their page, made anew when code was written. vCPU thread.
 *
 * A page's generation is read first, then it is marked (codepage_mark), then its bytes are read: a
 * write drops the marks and then changes the generation, so one that comes between is noticed. A
 * block goes on behind conditional branches: the usual way through code then needs no look-up.
 */
#include "x86/block.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "x86/decode.h"
#include "x86/jit/jit.h"
#include "x86/ops.h"

#define INSN_MAX    15
#define CHUNK_SIZE  (256u << 10)
#define CACHE_LIMIT (12u << 20) /* bytes of blocks: then all are forgotten */
#define JIT_LIMIT   (48u << 20) /* with a translator, whose work goes with them */
#define BRANCH_MAX  4           /* conditional branches that a block goes on behind */

/* What decoding depends on. */
#define DECODE_MODE (BLOCK_MODE | DECODE_FLAT_DATA)

/* The largest block, with its code's bytes. */
#define BLOCK_SPACE                                                     \
	(sizeof(struct block) + (BLOCK_MAX + 1) * sizeof(struct insn) + \
	 BLOCK_MAX * INSN_MAX)

/* Memory for blocks, never moved. */
struct chunk {
	struct chunk *next;
	size_t used;
	uint64_t mem[CHUNK_SIZE / 8];
};

/* Where code is fetched from. */
struct code {
	uint64_t va;         /* linear address */
	uint64_t gpa;        /* of its page */
	const uint8_t *host; /* of its page; NULL: device memory */
};

/* ---- memory --------------------------------------------------------------------------------------- */

struct block_cache *block_cache_new(void)
{
	return NEW(struct block_cache);
}

void block_cache_flush(struct block_cache *bc)
{
	uint64_t start = __builtin_ia32_rdtsc();

	if (bc->jit)
		jit_flush(bc->jit);
	while (bc->chunks) { /* are used again: giving them back takes long */
		struct chunk *k = bc->chunks;

		bc->chunks = k->next;
		k->next = bc->spare;
		bc->spare = k;
	}
	memset(bc->slot, 0, sizeof(bc->slot));
	bc->total = 0;
	bc->link = NULL;
	bc->flush_ticks = max_u64(bc->flush_ticks, __builtin_ia32_rdtsc() - start);
}

void block_cache_free(struct block_cache *bc)
{
	if (!bc)
		return;
	block_cache_flush(bc);
	while (bc->spare) {
		struct chunk *k = bc->spare;

		bc->spare = k->next;
		free(k);
	}
	free(bc);
}

/* Room for the largest block; NULL: no memory. May forget all blocks. */
static struct block *block_room(struct block_cache *bc)
{
	struct chunk *k = bc->chunks;

	if (!k || sizeof(k->mem) - k->used < BLOCK_SPACE) {
		if (bc->total >= (bc->jit ? JIT_LIMIT : CACHE_LIMIT))
			block_cache_flush(bc);
		k = bc->spare;
		if (k)
			bc->spare = k->next;
		else
			k = malloc(sizeof(*k));
		if (!k)
			return NULL;
		k->next = bc->chunks;
		k->used = 0;
		bc->chunks = k;
		bc->total += sizeof(*k);
	}
	return (struct block *)((char *)k->mem + k->used);
}

/* Keeps the block that was made there. */
static void block_keep(struct block_cache *bc, const struct block *b)
{
	size_t size =
		(size_t)((const char *)&b->insn[b->n + 1] - (const char *)b) + b->len;

	bc->chunks->used += align_up(size, 16);
}

static uint8_t *block_bytes(struct block *b)
{
	return (uint8_t *)&b->insn[b->n + 1];
}

/* ---- fetching ----------------------------------------------------------------------------------------- */

static void code_at(struct x86_cpu *c, uint64_t va, struct code *code)
{
	const struct tlb_entry *t = mem_fetch_page(c, va);

	code->va = va;
	code->gpa = t->gpa;
	code->host = t->host;
}

/* Up to `max` bytes from there to the end of the page; returns how many. */
static unsigned code_bytes(struct x86_cpu *c, const struct code *code, uint8_t *buf,
			   unsigned max)
{
	unsigned off = code->va & ~PAGE_MASK;
	unsigned n = (unsigned)min_u64(max, PAGE_SIZE - off);

	if (code->host) {
		memcpy(buf, code->host + off, n);
		return n;
	}
	for (unsigned k = 0; k < n; k++) {
		x86_leave_guest(c);
		buf[k] = (uint8_t)c->ops->mmio_read(c->ctx, code->gpa + off + k, 1);
		x86_enter_guest(c);
	}
	return n;
}

static uint64_t next_page(uint64_t va, unsigned mode)
{
	va = (va & PAGE_MASK) + PAGE_SIZE;
	return (mode & BLOCK_MODE) == MODE_64 ? va : (uint32_t)va;
}

/* Marks bytes [off, off + len) of the page as code; *done: up to where that has happened. */
static void mark(struct x86_cpu *c, struct codepage *cp, uint64_t gpa, unsigned off,
		 unsigned len, unsigned *done)
{
	unsigned end = (unsigned)align_up(off + len, 64);

	if (end <= *done)
		return;
	off = *done > off ? *done : off;
	codepage_mark(c, cp, gpa + off, end - off);
	*done = end;
}

/*
 * Makes the page of `code` one that holds code. That may wait for other processors, and the memory
 * map may change meanwhile: false, then `code` is no longer true.
 */
static bool mark_page(struct x86_cpu *c, struct codepage *cp, const struct code *code)
{
	struct code again;

	codepage_mark(c, cp, code->gpa | (code->va & ~PAGE_MASK), 1);
	code_at(c, code->va, &again);
	return again.gpa == code->gpa && again.host == code->host;
}

static uint32_t generation(const struct codepage *cp)
{
	return atomic_load_explicit(&cp->gen, memory_order_acquire);
}

/* ---- making blocks ---------------------------------------------------------------------------------------- */

/* What follows the last instruction; also of bc->one. */
static void put_end(struct insn *i, unsigned n, unsigned len, unsigned mode)
{
	*i = (struct insn){.fn = op_block_end,
			   .imm = len,
			   .flags = I_END,
			   .off = (uint16_t)len,
			   .osize = mode & BLOCK_FLAT ? 8 : 0,
			   .idx = (uint8_t)(n - 1),
			   .base = R_ZERO,
			   .index = R_ZERO,
			   .seg = SEG_FLAT};
}

/* Branches within the page need no translation. */
static void note_near(struct block *b, unsigned page_off)
{
	for (unsigned k = 0; k <= b->n; k++) {
		struct insn *i = &b->insn[k];

		if ((i->flags & I_REL || k == b->n) && page_off + i->imm < PAGE_SIZE)
			i->flags |= I_NEAR;
	}
}

/* The instruction that lies across the end of code's page. May raise #PF for the second page. */
static bool decode_crossing(struct x86_cpu *c, struct block *b, const struct code *code,
			    unsigned mode)
{
	unsigned done = 0, n;
	uint8_t buf[INSN_MAX];
	struct code second;

	code_at(c, next_page(code->va, mode), &second);
	b->cp2 = second.host ? codepage_get(c->sys, second.gpa) : NULL;
	if (!b->cp2 || !mark_page(c, b->cp2, &second) || !mark_page(c, b->cp, code))
		return false;
	b->crosses = true;
	b->gpa2 = second.gpa;
	b->gen = generation(b->cp);
	b->gen2 = generation(b->cp2);
	mark(c, b->cp2, second.gpa, 0, INSN_MAX, &done);
	codepage_mark(c, b->cp, code->gpa | (code->va & ~PAGE_MASK), 1);
	n = code_bytes(c, code, buf, INSN_MAX);
	n += code_bytes(c, &second, buf + n, INSN_MAX - n);
	b->len = (uint16_t)decode_at(buf, n, mode & DECODE_MODE, 0, &b->insn[0]);
	b->n = 1;
	memcpy(block_bytes(b), buf, b->len);
	return true;
}

/* The run of instructions in code's page; b->n = 0 when the first crosses the page's end. */
static void decode_run(struct x86_cpu *c, struct block *b, const struct code *code,
		       unsigned mode)
{
	unsigned start = code->va & ~PAGE_MASK, done = 0, branches = 0;

	b->gen = generation(b->cp);
	while (b->n < BLOCK_MAX && branches < BRANCH_MAX) {
		struct insn *i = &b->insn[b->n];
		unsigned off = start + b->len, avail, len;

		avail = (unsigned)min_u64(INSN_MAX, PAGE_SIZE - off);
		if (!avail)
			break;
		mark(c, b->cp, code->gpa, off, avail, &done);
		len = decode_at(code->host + off, avail, mode & DECODE_MODE, b->len, i);
		if (!len)
			break;
		i->off = b->len;
		i->idx = b->n++;
		b->len = (uint16_t)(b->len + len);
		if (i->flags & I_STOP)
			break;
		branches += !!(i->flags & I_REL);
	}
	memcpy(block_bytes(b), code->host + start, b->len);
}

/* NULL: it cannot be kept (no memory, device memory, the map is changing). */
static struct block *block_make(struct x86_cpu *c, const struct code *code,
				unsigned mode, uint64_t key)
{
	struct codepage *cp = code->host ? codepage_get(c->sys, code->gpa) : NULL;
	struct block *b = cp ? block_room(c->blocks) : NULL;
	struct insn *last;

	if (!b)
		return NULL;
	if (!mark_page(c, cp, code))
		return NULL;
	*b = (struct block){.key = key, .cp = cp};
	decode_run(c, b, code, mode);
	if (!b->n && !decode_crossing(c, b, code, mode))
		return NULL;
	last = &b->insn[b->n - 1];
	put_end(last + 1, b->n, b->len, mode);
	b->end = last->flags & I_STOP ? last + 1 : last + 2;
	if (mode & BLOCK_FLAT)
		note_near(b, code->va & ~PAGE_MASK);
	block_keep(c->blocks, b);
	c->stats.blocks++;
	return b;
}

/* ---- finding blocks ------------------------------------------------------------------------------------------ */

/* Its page was written, but not these bytes: valid again. */
static bool block_revive(struct x86_cpu *c, struct block *b, const struct code *code)
{
	unsigned off = code->va & ~PAGE_MASK, done = 0;

	if (b->crosses || !mark_page(c, b->cp, code))
		return false;
	b->gen = generation(b->cp);
	mark(c, b->cp, code->gpa, off, b->len, &done);
	if (!memcmp(block_bytes(b), code->host + off, b->len))
		return true;
	b->gen--;
	return false;
}

static bool second_page_ok(struct x86_cpu *c, const struct block *b, uint64_t va,
			   unsigned mode)
{
	struct code second;

	code_at(c, next_page(va, mode), &second);
	return second.gpa == b->gpa2 && generation(b->cp2) == b->gen2;
}

static bool block_usable(struct x86_cpu *c, struct block *b, const struct code *code,
			 unsigned mode)
{
	if (!code->host || (!block_valid(b) && !block_revive(c, b, code)))
		return false;
	return !b->crosses || second_page_ok(c, b, code->va, mode);
}

/* The block of this key goes to the front of its chain; one that is not usable is made anew. */
static struct block *block_find(struct x86_cpu *c, uint64_t va, unsigned mode)
{
	struct block **at, *b;
	struct block_slot *s;
	struct code code;
	uint64_t key;

	code_at(c, va, &code);
	key = (code.gpa | (va & ~PAGE_MASK)) << BLOCK_KEY_BITS | mode;
	s = block_slot(c->blocks, key);
	for (at = &s->b; (b = *at) != NULL; at = &b->next) {
		if (b->key == key)
			break;
	}
	if (b) {
		*at = b->next;
		s->key = s->b ? s->b->key : 0;
		if (!block_usable(c, b, &code, mode))
			b = NULL;
	}
	if (!b)
		b = block_make(c, &code, mode, key);
	if (!b)
		return NULL;
	b->next = s->b;
	s->b = b;
	s->key = key;
	return b;
}

static bool is_flat(const struct x86_seg *s)
{
	return s->base == 0 && s->limit == 0xffffffff;
}

/* Expand-up, writable data without a limit. */
static bool is_flat_data(const struct x86_seg *s)
{
	return is_flat(s) && (s->attr & (X86_ATTR_P | X86_ATTR_S | 0xe)) ==
				     (X86_ATTR_P | X86_ATTR_S | 2);
}

static unsigned block_mode(const struct x86_cpu *c)
{
	const struct x86_seg *seg = c->seg;
	unsigned mode;

	if (c->code_size == 8)
		return BLOCK_64;
	mode = (c->code_size == 4 ? MODE_32 : MODE_16) |
	       (is_flat(&seg[X86_CS]) ? BLOCK_FLAT : 0) | BLOCK_USED;
	if (mode == BLOCK_32 && c->stack_size == 4 && is_flat_data(&seg[X86_DS]) &&
	    is_flat_data(&seg[X86_SS]) && is_flat_data(&seg[X86_ES]))
		mode |= BLOCK_FLAT_DATA;
	return mode;
}

/* Linear address of c->rip, which must be inside the code segment. */
static uint64_t code_linear(struct x86_cpu *c, unsigned mode)
{
	const struct x86_seg *cs = &c->seg[X86_CS];

	if ((mode & BLOCK_MODE) == MODE_64) {
		if ((uint64_t)((int64_t)(c->rip << 16) >> 16) != c->rip)
			x86_raise_code(c, EX_GP, 0);
		return c->rip;
	}
	if (c->rip > cs->limit)
		x86_raise_code(c, EX_GP, 0);
	return (uint32_t)(cs->base + c->rip);
}

struct block *block_get(struct x86_cpu *c)
{
	unsigned mode = block_mode(c);
	uint64_t va = code_linear(c, mode);
	struct block *b = block_lookup(c, va, mode);

	if (!b)
		b = block_find(c, va, mode);
	if (b && !(mode & BLOCK_FLAT) && b->len - 1u > c->seg[X86_CS].limit - c->rip)
		return NULL;
	return b;
}

const struct insn *block_one(struct x86_cpu *c)
{
	struct insn *one = c->blocks->one;
	unsigned mode = block_mode(c), n, len, room = INSN_MAX;
	uint8_t buf[INSN_MAX];
	struct code code;

	code_at(c, code_linear(c, mode), &code);
	if ((mode & BLOCK_MODE) != MODE_64)
		room = (unsigned)min_u64(room, c->seg[X86_CS].limit - c->rip + 1);
	n = code_bytes(c, &code, buf, room);
	len = decode_at(buf, n, mode & DECODE_MODE, 0, &one[0]);
	if (!len && n < room) {
		code_at(c, next_page(code.va, mode), &code);
		n += code_bytes(c, &code, buf + n, room - n);
		len = decode_at(buf, n, mode & DECODE_MODE, 0, &one[0]);
	}
	if (!len)
		x86_raise_code(c, EX_GP,
			       0); /* it would lie across the segment's limit */
	put_end(&one[1], 1, len, mode);
	return one;
}

void block_link(struct x86_cpu *c, struct insn *from, struct block *b)
{
	uint64_t diff;

	if (from == &c->blocks->one[0] || from == &c->blocks->one[1] || b->crosses)
		return;
	diff = block_of(from)->key ^ b->key;
	if (diff & ((1u << BLOCK_KEY_BITS) - 1) || !(b->key & BLOCK_FLAT))
		return;
	if (from->flags & I_NEAR && diff >> BLOCK_KEY_BITS & PAGE_MASK)
		return;
	from->data = b;
}
