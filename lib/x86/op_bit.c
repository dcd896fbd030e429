/*
 * x86/op_bit.c - BT BTS BTR BTC BSF BSR TZCNT LZCNT POPCNT, BMI1, BMI2, ADCX ADOX, CRC32.
 * SDM 2A/2B. By the host's own instruction. vCPU thread.
 */
#include "x86/op_tmpl.h"

/* ---- BT and friends ------------------------------------------------------------------------------- */

#define BIT_COMPUTE(bits, name)                                                       \
	INLINE uint##bits##_t do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a, \
						 uint##bits##_t n)                    \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		__asm__(FLAGS_IN #name " %[n], %[a]" FLAGS_OUT                        \
			: [a] "+&r"(a), "+&a"(w)                                      \
			: [n] "r"(n)                                                  \
			: "cc");                                                      \
		c->st.w = (uint16_t)w;                                                \
		return a;                                                             \
	}                                                                             \
	INLINE void lock_##name##_##bits(struct x86_cpu *c, uint##bits##_t *p,        \
					 uint##bits##_t n)                            \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		n &= bits - 1;                                                        \
		__asm__ volatile(FLAGS_IN LOCK_##name #name SUFFIX_##bits             \
				 " %[n], %[m]" FLAGS_OUT                              \
				 : [m] "+m"(*p), "+&a"(w)                             \
				 : [n] "r"(n)                                         \
				 : "cc", "memory");                                   \
		c->st.w = (uint16_t)w;                                                \
	}
#define LOCK_bt  ""
#define LOCK_bts "lock "
#define LOCK_btr "lock "
#define LOCK_btc "lock "

/* Bytes from the operand's address to the word that holds bit `n`, which is signed. */
#define BIT_DELTA(bits, n) \
	((uint64_t)((int64_t)(int##bits##_t)(n) >> LOG_##bits) * (bits / 8))
#define LOG_16 4
#define LOG_32 5
#define LOG_64 6

#define BIT_RR(bits, name, set, form, N)                                          \
	HANDLER(set, form, bits)                                                  \
	{                                                                         \
		uint##bits##_t a = do_##name##_##bits(c, get##bits(c, i->rm), N); \
                                                                                  \
		if (WRITES_##name)                                                \
			put##bits(c, i->rm, a);                                   \
		op_next(c, i);                                                    \
	}
#define WRITES_bt  0
#define WRITES_bts 1
#define WRITES_btr 1
#define WRITES_btc 1

#define BT_MEM(bits, set, form, N, DELTA)                                    \
	HANDLER(set, form, bits)                                             \
	{                                                                    \
		uint##bits##_t n = (uint##bits##_t)(N);                      \
		uint64_t va = ea_linear_at(c, i, DELTA, bits / 8, ACC_READ); \
                                                                             \
		do_bt_##bits(c, load##bits(c, va), n);                       \
		op_next(c, i);                                               \
	}

#define BIT_MEM(bits, name, set, form, N, DELTA)                                      \
	HANDLER(set, form, bits)                                                      \
	{                                                                             \
		uint##bits##_t n = (uint##bits##_t)(N);                               \
		uint64_t va = ea_linear_at(c, i, DELTA, bits / 8, ACC_WRITE);         \
		uint##bits##_t *p = write_ptr(c, va, bits / 8);                       \
		struct rmw r;                                                         \
                                                                                      \
		if (likely(p)) {                                                      \
			if (i->flags & I_LOCK)                                        \
				lock_##name##_##bits(c, p, n);                        \
			else                                                          \
				*p = do_##name##_##bits(c, *p, n);                    \
			op_next(c, i);                                                \
			return;                                                       \
		}                                                                     \
		rmw_begin(c, &r, va, bits / 8, i->flags & I_LOCK);                    \
		if (r.p && i->flags & I_LOCK) {                                       \
			lock_##name##_##bits(c, r.p, n);                              \
		} else {                                                              \
			uint##bits##_t a = (uint##bits##_t)rmw_load(c, &r, bits / 8); \
                                                                                      \
			rmw_end(c, &r, bits / 8, do_##name##_##bits(c, a, n));        \
		}                                                                     \
	}

#define BT_FORMS(bits, ...)                                            \
	BIT_COMPUTE(bits, bt)                                          \
	BIT_RR(bits, bt, bt, rr, get##bits(c, i->reg))                 \
	BIT_RR(bits, bt, bt_imm, ri, (uint##bits##_t)i->imm)           \
	BT_MEM(bits, bt, mr, get##bits(c, i->reg), BIT_DELTA(bits, n)) \
	BT_MEM(bits, bt_imm, mi, i->imm, 0)
#define BTX_FORMS(bits, name)                                                   \
	BIT_COMPUTE(bits, name)                                                 \
	BIT_RR(bits, name, name, rr, get##bits(c, i->reg))                      \
	BIT_RR(bits, name, name##_imm, ri, (uint##bits##_t)i->imm)              \
	BIT_MEM(bits, name, name, mr, get##bits(c, i->reg), BIT_DELTA(bits, n)) \
	BIT_MEM(bits, name, name##_imm, mi, i->imm, 0)
#define BIT_SET(name, ...)                                                           \
	const struct opset set_##name = {{[F_RR] = SIZES_WDQ(h_##name, rr),          \
					  [F_MR + EA_ANY] = SIZES_WDQ(h_##name, mr), \
					  __VA_ARGS__}};
#define BIT_SET_IMM(name, ...)                                    \
	const struct opset set_##name##_imm = {                   \
		{[F_RI] = SIZES_WDQ(h_##name##_imm, ri),          \
		 [F_MI + EA_ANY] = SIZES_WDQ(h_##name##_imm, mi), \
		 __VA_ARGS__}};
#define LOCKED_BITS(name)                                \
	EACH_WDQ(BTX_FORMS, name)                        \
	BIT_SET(name, [F_LMR] = SIZES_WDQ(h_##name, mr)) \
	BIT_SET_IMM(name, [F_LMI] = SIZES_WDQ(h_##name##_imm, mi))

EACH_WDQ(BT_FORMS)
BIT_SET(bt, )
BIT_SET_IMM(bt, )
LOCKED_BITS(bts)
LOCKED_BITS(btr)
LOCKED_BITS(btc)

/* ---- counting bits ----------------------------------------------------------------------------------- */

/*
 * dst = f(src); BSF and BSR of 0 leave dst. So all of it goes in and out, and what a 32-bit one does to
 * its upper half is what the host does.
 */
#define COUNT(bits, name)                                                    \
	INLINE void do_##name##_##bits(struct x86_cpu *c, unsigned dst,      \
				       uint##bits##_t b)                     \
	{                                                                    \
		uint64_t a = get64(c, dst);                                  \
		uint32_t w = c->st.w;                                        \
                                                                             \
		__asm__(FLAGS_IN #name " %[b], %" REG_##bits "[a]" FLAGS_OUT \
			: [a] "+&r"(a), "+&a"(w)                             \
			: [b] "r"(b)                                         \
			: "cc");                                             \
		c->st.w = (uint16_t)w;                                       \
		put64(c, dst, a);                                            \
	}                                                                    \
	HANDLER(name, rr, bits)                                              \
	{                                                                    \
		do_##name##_##bits(c, i->rm, get##bits(c, i->reg));          \
		op_next(c, i);                                               \
	}                                                                    \
	HANDLER(name, rm, bits)                                              \
	{                                                                    \
		do_##name##_##bits(                                          \
			c, i->reg,                                           \
			load##bits(c, ea_linear(c, i, bits / 8, ACC_READ))); \
		op_next(c, i);                                               \
	}
#define REG_16 "w"
#define REG_32 "k"
#define REG_64 "q"
#define COUNT_SET(name)                                    \
	EACH_WDQ(COUNT, name)                              \
	const struct opset set_##name = {{                 \
		[F_RR] = SIZES_WDQ(h_##name, rr),          \
		[F_RM + EA_ANY] = SIZES_WDQ(h_##name, rm), \
	}};
COUNT_SET(bsf)
COUNT_SET(bsr)
COUNT_SET(tzcnt)
COUNT_SET(lzcnt)
COUNT_SET(popcnt)

/*
 * ADCX adds with CF, ADOX with OF; both keep all other flags. Not by the host's own instruction,
 * which is younger than the rest.
 */
static uint64_t add_carry(uint64_t a, uint64_t b, bool *carry, bool wide)
{
	uint64_t sum = a + b + *carry;

	*carry = wide ? (sum < a || (*carry && sum == a)) : sum >> 32 & 1;
	return sum;
}

#define ADX(bits, name)                                                                \
	INLINE uint##bits##_t do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a,  \
						 uint##bits##_t b)                     \
	{                                                                              \
		bool carry = CARRY_##name(c);                                          \
                                                                                       \
		a = (uint##bits##_t)add_carry(a, b, &carry, bits == 64);               \
		SET_CARRY_##name(c, carry);                                            \
		return a;                                                              \
	}                                                                              \
	HANDLER(name, rr, bits)                                                        \
	{                                                                              \
		put##bits(c, i->rm,                                                    \
			  do_##name##_##bits(c, get##bits(c, i->rm),                   \
					     get##bits(c, i->reg)));                   \
		op_next(c, i);                                                         \
	}                                                                              \
	HANDLER(name, rm, bits)                                                        \
	{                                                                              \
		uint##bits##_t b = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, do_##name##_##bits(c, get##bits(c, i->reg), b));  \
		op_next(c, i);                                                         \
	}
#define CARRY_adcx(c)        ((c)->st.lo & FL_CF)
#define CARRY_adox(c)        ((c)->st.of)
#define SET_CARRY_adcx(c, v) ((c)->st.lo = (uint8_t)(((c)->st.lo & ~FL_CF) | (v)))
#define SET_CARRY_adox(c, v) ((c)->st.of = (v))
#define ADX_SET(name)                                                               \
	ADX(32, name)                                                               \
	ADX(64, name)                                                               \
	const struct opset set_##name = {{                                          \
		[F_RR] = {NULL, NULL, h_##name##_rr_32, h_##name##_rr_64},          \
		[F_RM + EA_ANY] = {NULL, NULL, h_##name##_rm_32, h_##name##_rm_64}, \
	}};
ADX_SET(adcx)
ADX_SET(adox)

/* ---- BMI ------------------------------------------------------------------------------------------------ */

static uint64_t vex_rm(struct x86_cpu *c, const struct insn *i)
{
	vex_gpr_check(c);
	return i->flags & I_MEM
		       ? mem_load(c, ea_linear(c, i, i->osize, ACC_READ), i->osize)
		       : reg_get(c, i->rm, i->osize);
}

/* dst = insn(x, y), in the manual's (Intel) order of operands; flags in and out. */
#define VEX3(name, INSN, DST, X, Y)                                              \
	void op_##name(struct x86_cpu *c, const struct insn *i)                  \
	{                                                                        \
		uint64_t rm = vex_rm(c, i), v = get64(c, R_OFF(i->vvvv)), x = X, \
			 y = Y;                                                  \
		uint32_t w = c->st.w;                                            \
                                                                                 \
		if (i->osize == 8)                                               \
			__asm__(FLAGS_IN INSN(q, "[x]", "[y]") FLAGS_OUT         \
				: [x] "+&r"(x), "+&a"(w)                         \
				: [y] "r"(y)                                     \
				: "cc");                                         \
		else                                                             \
			__asm__(FLAGS_IN INSN(k, "[x]", "[y]") FLAGS_OUT         \
				: [x] "+&r"(x), "+&a"(w)                         \
				: [y] "r"(y)                                     \
				: "cc");                                         \
		(void)rm;                                                        \
		(void)v;                                                         \
		c->st.w = (uint16_t)w;                                           \
		reg_set(c, DST, i->osize, x);                                    \
		op_next(c, i);                                                   \
	}
#define I3(n, s, x, y)  n " %" #s y ", %" #s x ", %" #s x
#define I2(n, s, x)     n " %" #s x ", %" #s x
#define ANDN(s, x, y)   I3("andn", s, x, y)
#define BEXTR(s, x, y)  I3("bextr", s, x, y)
#define BZHI(s, x, y)   I3("bzhi", s, x, y)
#define PDEP(s, x, y)   I3("pdep", s, x, y)
#define PEXT(s, x, y)   I3("pext", s, x, y)
#define SARX(s, x, y)   I3("sarx", s, x, y)
#define SHLX(s, x, y)   I3("shlx", s, x, y)
#define SHRX(s, x, y)   I3("shrx", s, x, y)
#define BLSR(s, x, y)   I2("blsr", s, x)
#define BLSMSK(s, x, y) I2("blsmsk", s, x)
#define BLSI(s, x, y)   I2("blsi", s, x)

VEX3(andn, ANDN, i->reg, v, rm)
VEX3(bextr, BEXTR, i->reg, rm, v)
VEX3(bzhi, BZHI, i->reg, rm, v)
VEX3(pdep, PDEP, i->reg, v, rm)
VEX3(pext, PEXT, i->reg, v, rm)
VEX3(sarx, SARX, i->reg, rm, v)
VEX3(shlx, SHLX, i->reg, rm, v)
VEX3(shrx, SHRX, i->reg, rm, v)
VEX3(blsr, BLSR, R_OFF(i->vvvv), rm, 0)
VEX3(blsmsk, BLSMSK, R_OFF(i->vvvv), rm, 0)
VEX3(blsi, BLSI, R_OFF(i->vvvv), rm, 0)

void op_rorx(struct x86_cpu *c, const struct insn *i)
{
	uint64_t v = vex_rm(c, i);
	unsigned n = i->imm & (i->osize == 8 ? 63 : 31);

	if (i->osize == 8)
		v = v >> n | v << (-n & 63);
	else
		v = (uint32_t)v >> n | (uint32_t)v << (-n & 31);
	reg_set(c, i->reg, i->osize, v);
	op_next(c, i);
}

/* ---- CRC32 ------------------------------------------------------------------------------------------------ */

static uint32_t crc32c_step(uint32_t crc, uint64_t v, unsigned size)
{
	switch (size) {
	case 1: __asm__("crc32b %1, %0" : "+r"(crc) : "r"((uint8_t)v)); break;
	case 2: __asm__("crc32w %1, %0" : "+r"(crc) : "r"((uint16_t)v)); break;
	case 4: __asm__("crc32l %1, %0" : "+r"(crc) : "r"((uint32_t)v)); break;
	default: {
		uint64_t wide = crc;

		__asm__("crc32q %1, %0" : "+r"(wide) : "r"(v));
		crc = (uint32_t)wide;
	}
	}
	return crc;
}

static void crc32_any(struct x86_cpu *c, const struct insn *i, unsigned size)
{
	uint64_t v = i->flags & I_MEM
			     ? mem_load(c, ea_linear(c, i, size, ACC_READ), size)
			     : reg_get(c, i->rm, size);

	put32(c, i->reg, crc32c_step(get32(c, i->reg), v, size));
	op_next(c, i);
}

void op_crc32_b(struct x86_cpu *c, const struct insn *i)
{
	crc32_any(c, i, 1);
}

void op_crc32(struct x86_cpu *c, const struct insn *i)
{
	crc32_any(c, i, i->osize);
}
