/*
 * x86/op_atomic.c - XADD CMPXCHG CMPXCHG8B/16B, and read-modify-write off the fast path. SDM 2A/2B,
 * 3A 9.1 (locked operations). vCPU thread.
 */
#include <string.h>

#include "x86/op_tmpl.h"

/* ---- off the fast path -------------------------------------------------------------------------- */

void rmw_begin(struct x86_cpu *c, struct rmw *r, uint64_t va, unsigned size, bool lock)
{
	r->va = va;
	r->p = mem_rmw_ptr(c, va, size);
	if (r->p)
		return;
	mem_probe_write(c, va, size);
	if (lock) {
		x86_exclusive_begin(c);
		c->rmw_exclusive = true;
	}
}

void rmw_leave(struct x86_cpu *c)
{
	if (c->rmw_exclusive) {
		c->rmw_exclusive = false;
		x86_exclusive_end(c);
	}
}

uint64_t rmw_load(struct x86_cpu *c, const struct rmw *r, unsigned size)
{
	uint64_t v = 0;

	if (!r->p)
		return mem_load_slow(c, r->va, size);
	memcpy(&v, r->p, size);
	return v;
}

void rmw_end(struct x86_cpu *c, struct rmw *r, unsigned size, uint64_t v)
{
	if (r->p)
		memcpy(r->p, &v, size);
	else
		mem_store_slow(c, r->va, size, v);
	rmw_leave(c);
}

/* ---- XADD ------------------------------------------------------------------------------------------ */

/* The sum goes to the destination (rm), the destination's old value to the source (reg). */
#define XADD(bits, ...)                                                           \
	INLINE uint##bits##_t do_xadd_##bits(struct x86_cpu *c, uint##bits##_t a, \
					     uint##bits##_t b)                    \
	{                                                                         \
		uint32_t w;                                                       \
                                                                                  \
		__asm__("add %[b], %[a]" FLAGS_OUT                                \
			: [a] "+&r"(a), "=&a"(w)                                  \
			: [b] "r"(b)                                              \
			: "cc");                                                  \
		c->st.w = (uint16_t)w;                                            \
		return a;                                                         \
	}                                                                         \
	HANDLER(xadd, rr, bits)                                                   \
	{                                                                         \
		uint##bits##_t a = get##bits(c, i->rm), b = get##bits(c, i->reg); \
                                                                                  \
		put##bits(c, i->reg, a);                                          \
		put##bits(c, i->rm, do_xadd_##bits(c, a, b));                     \
		op_next(c, i);                                                    \
	}                                                                         \
	HANDLER(xadd, mr, bits)                                                   \
	{                                                                         \
		uint64_t va = ea_linear(c, i, bits / 8, ACC_WRITE);               \
		uint##bits##_t a, b = get##bits(c, i->reg),                       \
				  *p = write_ptr(c, va, bits / 8);                \
		struct rmw r;                                                     \
                                                                                  \
		if (likely(p)) {                                                  \
			a = __atomic_fetch_add(p, b, __ATOMIC_SEQ_CST);           \
			do_xadd_##bits(c, a, b);                                  \
			put##bits(c, i->reg, a);                                  \
			op_next(c, i);                                            \
			return;                                                   \
		}                                                                 \
		rmw_begin(c, &r, va, bits / 8, i->flags & I_LOCK);                \
		if (r.p) {                                                        \
			a = __atomic_fetch_add((uint##bits##_t *)r.p, b,          \
					       __ATOMIC_SEQ_CST);                 \
			do_xadd_##bits(c, a, b);                                  \
		} else {                                                          \
			a = (uint##bits##_t)rmw_load(c, &r, bits / 8);            \
			rmw_end(c, &r, bits / 8, do_xadd_##bits(c, a, b));        \
		}                                                                 \
		put##bits(c, i->reg, a);                                          \
	}
EACH_BITS(XADD)

const struct opset set_xadd = {{
	[F_RR] = SIZES(h_xadd, rr),
	[F_MR + EA_ANY] = SIZES(h_xadd, mr),
	[F_LMR] = SIZES(h_xadd, mr),
}};

/* ---- CMPXCHG ----------------------------------------------------------------------------------------- */

/* Flags are those of CMP rAX, destination. */
#define CMPXCHG(bits, ...)                                                          \
	INLINE void compare_##bits(struct x86_cpu *c, uint##bits##_t a,             \
				   uint##bits##_t b)                                \
	{                                                                           \
		uint32_t w;                                                         \
                                                                                    \
		__asm__("cmp %[b], %[a]" FLAGS_OUT                                  \
			: "=&a"(w)                                                  \
			: [a] "r"(a), [b] "r"(b)                                    \
			: "cc");                                                    \
		c->st.w = (uint16_t)w;                                              \
	}                                                                           \
	HANDLER(cmpxchg, rr, bits)                                                  \
	{                                                                           \
		uint##bits##_t acc = get##bits(c, RAX), a = get##bits(c, i->rm);    \
		uint##bits##_t b = get##bits(c, i->reg);                            \
                                                                                    \
		compare_##bits(c, acc, a);                                          \
		if (acc == a)                                                       \
			put##bits(c, i->rm, b);                                     \
		else                                                                \
			put##bits(c, RAX, a);                                       \
		op_next(c, i);                                                      \
	}                                                                           \
	INLINE void cmpxchg_done_##bits(struct x86_cpu *c, uint##bits##_t acc,      \
					uint##bits##_t old)                         \
	{                                                                           \
		compare_##bits(c, acc, old);                                        \
		if (acc != old)                                                     \
			put##bits(c, RAX, old);                                     \
	}                                                                           \
	HANDLER(cmpxchg, mr, bits)                                                  \
	{                                                                           \
		uint64_t va = ea_linear(c, i, bits / 8, ACC_WRITE);                 \
		uint##bits##_t b = get##bits(c, i->reg), acc = get##bits(c, RAX),   \
			       old = acc;                                           \
		uint##bits##_t *p = write_ptr(c, va, bits / 8);                     \
		struct rmw r;                                                       \
                                                                                    \
		if (likely(p)) {                                                    \
			__atomic_compare_exchange_n(p, &old, b, false,              \
						    __ATOMIC_SEQ_CST,               \
						    __ATOMIC_SEQ_CST);              \
			cmpxchg_done_##bits(c, acc, old);                           \
			op_next(c, i);                                              \
			return;                                                     \
		}                                                                   \
		rmw_begin(c, &r, va, bits / 8, i->flags & I_LOCK);                  \
		if (r.p) {                                                          \
			__atomic_compare_exchange_n((uint##bits##_t *)r.p, &old, b, \
						    false, __ATOMIC_SEQ_CST,        \
						    __ATOMIC_SEQ_CST);              \
		} else {                                                            \
			old = (uint##bits##_t)rmw_load(c, &r, bits / 8);            \
			rmw_end(c, &r, bits / 8,                                    \
				old == acc ? b : old); /* writes always */          \
		}                                                                   \
		cmpxchg_done_##bits(c, acc, old);                                   \
	}
EACH_BITS(CMPXCHG)

const struct opset set_cmpxchg = {{
	[F_RR] = SIZES(h_cmpxchg, rr),
	[F_MR + EA_ANY] = SIZES(h_cmpxchg, mr),
	[F_LMR] = SIZES(h_cmpxchg, mr),
}};

/* ---- CMPXCHG8B, CMPXCHG16B ------------------------------------------------------------------------------ */

static void set_zf(struct x86_cpu *c, bool on)
{
	c->st.lo = (uint8_t)((c->st.lo & ~FL_ZF) | (on ? FL_ZF : 0));
}

static void cmpxchg8(struct x86_cpu *c, const struct insn *i)
{
	uint64_t va = ea_linear(c, i, 8, ACC_WRITE), old;
	uint64_t want = (uint64_t)get32(c, RDX) << 32 | get32(c, RAX);
	uint64_t val = (uint64_t)get32(c, RCX) << 32 | get32(c, RBX);
	struct rmw r;

	rmw_begin(c, &r, va, 8, i->flags & I_LOCK);
	old = want;
	if (r.p) {
		__atomic_compare_exchange_n((uint64_t *)r.p, &old, val, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		old = rmw_load(c, &r, 8);
		rmw_end(c, &r, 8, old == want ? val : old);
	}
	set_zf(c, old == want);
	if (old != want) {
		put32(c, RAX, (uint32_t)old);
		put32(c, RDX, (uint32_t)(old >> 32));
	}
}

/* The host's CMPXCHG16B on aligned memory; *lo and *hi: expected, then what was there. */
static bool host_cmpxchg16(void *p, uint64_t *lo, uint64_t *hi, uint64_t new_lo,
			   uint64_t new_hi)
{
	bool same;

	__asm__ volatile("lock cmpxchg16b %[m]"
			 : "=@ccz"(same), [m] "+m"(*(unsigned __int128 *)p), "+a"(*lo),
			   "+d"(*hi)
			 : "b"(new_lo), "c"(new_hi)
			 : "memory");
	return same;
}

/* #GP(0) unless aligned, so it never crosses a page. */
static void cmpxchg16(struct x86_cpu *c, const struct insn *i)
{
	uint64_t va = ea_linear(c, i, 16, ACC_WRITE);
	uint64_t lo = get64(c, RAX), hi = get64(c, RDX), old_lo = lo, old_hi = hi;
	uint64_t new_lo = get64(c, RBX), new_hi = get64(c, RCX);
	struct rmw r;
	bool same;

	if (va & 15)
		x86_raise_code(c, EX_GP, 0);
	rmw_begin(c, &r, va, 16, i->flags & I_LOCK);
	if (r.p) {
		same = host_cmpxchg16(r.p, &old_lo, &old_hi, new_lo, new_hi);
	} else {
		old_lo = mem_load_slow(c, va, 8);
		old_hi = mem_load_slow(c, va + 8, 8);
		same = old_lo == lo && old_hi == hi;
		mem_store_slow(c, va + 8, 8, same ? new_hi : old_hi);
		rmw_end(c, &r, 8, same ? new_lo : old_lo);
	}
	set_zf(c, same);
	if (!same) {
		put64(c, RAX, old_lo);
		put64(c, RDX, old_hi);
	}
}

void op_cmpxchg8b(struct x86_cpu *c, const struct insn *i)
{
	if (i->flags & I_W)
		cmpxchg16(c, i);
	else
		cmpxchg8(c, i);
}
