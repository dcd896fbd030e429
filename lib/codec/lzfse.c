/*
 * codec/lzfse.c - unpacks LZFSE and LZVN, Apple's compression of disk images (UDIF), as the format's reference
 * implementation describes it: blocks that begin with "bvx" and a letter; literals, and triples of literal count,
 * match length, distance, coded by finite state entropy (or, LZVN, by bytes). The bits of an entropy coded
 * part are one number, least significant byte first, that is read from its top. Any thread.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "codec/block.h"

#define BLOCK_END  0x24787662u /* "bvx$" */
#define BLOCK_RAW  0x2d787662u /* "bvx-" */
#define BLOCK_V1   0x31787662u /* "bvx1" */
#define BLOCK_V2   0x32787662u /* "bvx2" */
#define BLOCK_LZVN 0x6e787662u /* "bvxn" */

/* Symbols and states of each alphabet: literal counts, match lengths, distances, literals. */
#define L_SYMBOLS   20
#define M_SYMBOLS   20
#define D_SYMBOLS   64
#define LIT_SYMBOLS 256
#define ALL_SYMBOLS (L_SYMBOLS + M_SYMBOLS + D_SYMBOLS + LIT_SYMBOLS)
#define LM_STATES   64
#define D_STATES    256
#define LIT_STATES  1024

/* A block has at most 40,000 of them; literals come in fours. */
#define MAX_LITERALS 40000

/* What is read and written. */
struct lz {
	const uint8_t *in, *in_end;
	uint8_t *out, *at, *out_end;
};

static int lz_literals(struct lz *z, const uint8_t *from, uint32_t n)
{
	if (n > (size_t)(z->out_end - z->at))
		return -EINVAL;
	memcpy(z->at, from, n);
	z->at += n;
	return 0;
}

static int lz_match(struct lz *z, uint32_t n, uint32_t distance)
{
	if (!distance || distance > (size_t)(z->at - z->out) ||
	    n > (size_t)(z->out_end - z->at))
		return -EINVAL;
	if (distance >= n) {
		memcpy(z->at, z->at - distance, n);
		z->at += n;
	} else {
		for (; n; n--, z->at++)
			*z->at = z->at[-(ptrdiff_t)distance];
	}
	return 0;
}

/* ---- LZVN ---- */

/* One operation: what it copies, and how many bytes describe it (the literals follow). */
struct lzvn_op {
	uint32_t literals, match, distance, len;
	bool end;
};

/* `p` has at least 3 readable bytes, `prev` is the distance before. -EINVAL: no such operation. */
static int lzvn_op(const uint8_t *p, uint32_t prev, struct lzvn_op *o)
{
	uint8_t c = p[0];

	*o = (struct lzvn_op){.len = 1, .distance = prev};
	if (c >= 0xf0) {
		o->len = c == 0xf0 ? 2 : 1;
		o->match = c == 0xf0 ? p[1] + 16u : c & 15;
	} else if (c >= 0xe0) {
		o->len = c == 0xe0 ? 2 : 1;
		o->literals = c == 0xe0 ? p[1] + 16u : c & 15;
	} else if ((c & 0xf0) == 0xd0 || (c & 0xf0) == 0x70) {
		return -EINVAL;
	} else if ((c & 0xe0) == 0xa0) {
		o->len = 3;
		o->literals = c >> 3 & 3;
		o->match = ((c & 7u) << 2 | (p[1] & 3)) + 3;
		o->distance = p[1] >> 2 | (uint32_t)p[2] << 6;
	} else {
		o->literals = c >> 6;
		o->match = (c >> 3 & 7u) + 3;
		switch (c & 7) {
		case 6:
			if (c == 0x06)
				o->end = true;
			else if (c != 0x0e && c != 0x16 && c < 0x40)
				return -EINVAL;
			if (c < 0x40)
				o->match = 0;
			break;
		case 7:
			o->len = 3;
			o->distance = p[1] | (uint32_t)p[2] << 8;
			break;
		default: o->len = 2; o->distance = (c & 7u) << 8 | p[1];
		}
	}
	return 0;
}

/* z->in to `end`. */
static int lzvn_block(struct lz *z, const uint8_t *end)
{
	uint32_t distance = 0;

	for (;;) {
		uint8_t head[3] = {0};
		size_t left = (size_t)(end - z->in);
		struct lzvn_op o;
		int rc;

		memcpy(head, z->in, min_u64(left, sizeof(head)));
		rc = left ? lzvn_op(head, distance, &o) : -EINVAL;
		if (rc)
			return rc;
		if (o.end)
			return 0;
		if (o.len > left || o.literals > left - o.len)
			return -EINVAL;
		rc = lz_literals(z, z->in + o.len, o.literals);
		z->in += o.len + o.literals;
		distance = o.distance;
		if (!rc && o.match)
			rc = lz_match(z, o.match, distance);
		if (rc)
			return rc;
	}
}

/* ---- bits, from the end ---- */

struct bits {
	const uint8_t *p;
	size_t len;
	int64_t pos; /* bits that are left; below 0: more were read than there are */
};

/* `extra`: the last byte's unused bits, as 0 to -7. */
static void top_begin(struct bits *b, const uint8_t *p, size_t len, int extra)
{
	*b = (struct bits){p, len, (int64_t)len * 8 + extra};
}

/* n up to 32. */
static uint32_t top_bits(struct bits *b, unsigned n)
{
	uint64_t v = 0;
	size_t byte;

	b->pos -= n;
	if (b->pos < 0)
		return 0;
	byte = (size_t)b->pos / 8;
	memcpy(&v, b->p + byte, min_u64(sizeof(v), b->len - byte));
	return (uint32_t)(v >> b->pos % 8 & ((1ull << n) - 1));
}

/* ---- finite state entropy ---- */

struct fse_entry {
	int16_t delta;
	uint8_t k;
	uint8_t symbol;
};

struct fse_tables {
	struct fse_entry l[LM_STATES], m[LM_STATES], d[D_STATES], lit[LIT_STATES];
};

/* States whose frequencies sum to less are not reached by a sound stream; they read no bits. */
static int fse_table(struct fse_entry *t, unsigned states, const uint16_t *freq,
		     unsigned symbols)
{
	unsigned used = 0;

	memset(t, 0, states * sizeof(*t));
	for (unsigned s = 0; s < symbols; s++) {
		unsigned f = freq[s], k, j0;

		if (!f)
			continue;
		if (f > states - used)
			return -EINVAL;
		k = (unsigned)(__builtin_clz(f) - __builtin_clz(states));
		j0 = (2 * states >> k) - f;
		for (unsigned j = 0; j < f; j++, used++) {
			bool low = j < j0;

			t[used] = (struct fse_entry){
				.k = (uint8_t)(low ? k : k - 1),
				.symbol = (uint8_t)s,
				.delta = (int16_t)(low ? (int)((f + j) << k) -
								   (int)states
						       : (int)((j - j0) << (k - 1))),
			};
		}
	}
	return 0;
}

/* The symbol of *state, which moves on. */
static unsigned fse_get(const struct fse_entry *t, unsigned mask, uint16_t *state,
			struct bits *b)
{
	const struct fse_entry *e = &t[*state & mask];

	*state = (uint16_t)(e->delta + (int)top_bits(b, e->k));
	return e->symbol;
}

static const uint8_t lm_extra_l[L_SYMBOLS] = {[16] = 2, 3, 5, 8};
static const uint8_t lm_extra_m[M_SYMBOLS] = {[16] = 3, 5, 8, 11};

/* Symbols stand for ranges, one behind the other; extra bits say what in them is meant. */
static uint32_t value_get(unsigned symbol, const uint8_t *extra, struct bits *b)
{
	uint32_t base = min_u64(symbol, 16);

	for (unsigned s = 16; s < symbol; s++)
		base += 1u << extra[s];
	return base + top_bits(b, extra[symbol]);
}

static uint32_t distance_get(unsigned symbol, struct bits *b)
{
	unsigned extra = symbol / 4;

	return (4u << extra) - 4 + (symbol % 4 << extra) + top_bits(b, extra);
}

/* ---- block headers ---- */

struct lz_header {
	uint32_t n_literals, n_matches, literal_bytes, lmd_bytes;
	int literal_bits, lmd_bits; /* of the last byte: 0 to -7 */
	uint16_t literal_state[4], l_state, m_state, d_state;
	uint16_t freq[ALL_SYMBOLS];
	uint32_t raw_bytes, header_bytes;
};

struct v1_header {
	le32 magic, raw_bytes, payload_bytes, n_literals, n_matches, literal_bytes,
		lmd_bytes, literal_bits;
	le16 literal_state[4];
	le32 lmd_bits;
	le16 l_state, m_state, d_state;
	le16 freq[ALL_SYMBOLS];
};
static_assert(sizeof(struct v1_header) == 50 + 2 * ALL_SYMBOLS, "without gaps");

/* The structure in memory ends at a multiple of 4. */
#define V1_BYTES 772u

struct v2_header {
	le32 magic, raw_bytes;
	le64 fields[3];
};
static_assert(sizeof(struct v2_header) == 32, "without gaps");

static int header_v1(const uint8_t *p, size_t len, struct lz_header *h)
{
	struct v1_header v;

	if (len < V1_BYTES)
		return -EINVAL;
	memcpy(&v, p, sizeof(v));
	h->raw_bytes = le32_get(v.raw_bytes);
	h->n_literals = le32_get(v.n_literals);
	h->n_matches = le32_get(v.n_matches);
	h->literal_bytes = le32_get(v.literal_bytes);
	h->lmd_bytes = le32_get(v.lmd_bytes);
	h->literal_bits = (int)le32_get(v.literal_bits);
	h->lmd_bits = (int)le32_get(v.lmd_bits);
	for (unsigned i = 0; i < 4; i++)
		h->literal_state[i] = le16_get(v.literal_state[i]);
	h->l_state = le16_get(v.l_state);
	h->m_state = le16_get(v.m_state);
	h->d_state = le16_get(v.d_state);
	for (unsigned i = 0; i < ALL_SYMBOLS; i++)
		h->freq[i] = le16_get(v.freq[i]);
	h->header_bytes = V1_BYTES;
	return 0;
}

/* Frequencies of version 2 are prefix codes of 2 to 14 bits, from the lowest bit on. */
static int freq_get(uint64_t *bits, unsigned *have, uint16_t *freq)
{
	static const uint8_t len[32] = {2, 3, 2, 5, 2,  3, 2, 8, 2, 3, 2,
					5, 2, 3, 2, 14, 2, 3, 2, 5, 2, 3,
					2, 8, 2, 3, 2,  5, 2, 3, 2, 14};
	static const uint8_t value[32] = {0, 2, 1, 4, 0, 3, 1, 0, 0, 2, 1,
					  5, 0, 3, 1, 0, 0, 2, 1, 6, 0, 3,
					  1, 0, 0, 2, 1, 7, 0, 3, 1, 0};
	unsigned low = *bits & 31, n = len[low];

	if (n > *have)
		return -EINVAL;
	*freq = n == 8    ? 8 + (*bits >> 4 & 15)
		: n == 14 ? 24 + (*bits >> 4 & 0x3ff)
			  : value[low];
	*bits >>= n;
	*have -= n;
	return 0;
}

static int header_freqs(const uint8_t *p, const uint8_t *end, struct lz_header *h)
{
	uint64_t bits = 0;
	unsigned have = 0;

	for (unsigned i = 0; i < ALL_SYMBOLS; i++) {
		int rc;

		for (; have <= 48 && p < end; have += 8)
			bits |= (uint64_t)*p++ << have;
		rc = freq_get(&bits, &have, &h->freq[i]);
		if (rc)
			return rc;
	}
	return 0;
}

static uint32_t field(uint64_t v, unsigned at, unsigned n)
{
	return (uint32_t)(v >> at & ((1ull << n) - 1));
}

static int header_v2(const uint8_t *p, size_t len, struct lz_header *h)
{
	struct v2_header v;
	uint64_t f[3];

	if (len < sizeof(v))
		return -EINVAL;
	memcpy(&v, p, sizeof(v));
	for (unsigned i = 0; i < 3; i++)
		f[i] = le64_get(v.fields[i]);
	h->raw_bytes = le32_get(v.raw_bytes);
	h->n_literals = field(f[0], 0, 20);
	h->literal_bytes = field(f[0], 20, 20);
	h->n_matches = field(f[0], 40, 20);
	h->literal_bits = (int)field(f[0], 60, 3) - 7;
	for (unsigned i = 0; i < 4; i++)
		h->literal_state[i] = (uint16_t)field(f[1], i * 10, 10);
	h->lmd_bytes = field(f[1], 40, 20);
	h->lmd_bits = (int)field(f[1], 60, 3) - 7;
	h->header_bytes = field(f[2], 0, 32);
	h->l_state = (uint16_t)field(f[2], 32, 10);
	h->m_state = (uint16_t)field(f[2], 42, 10);
	h->d_state = (uint16_t)field(f[2], 52, 10);
	if (h->header_bytes < sizeof(v) || h->header_bytes > len)
		return -EINVAL;
	if (h->header_bytes == sizeof(v)) /* no frequencies: all are 0 */
		return 0;
	return header_freqs(p + sizeof(v), p + h->header_bytes, h);
}

/* ---- blocks ---- */

struct lzfse_work {
	struct lz_header h;
	struct fse_tables t;
	uint8_t literals[MAX_LITERALS + 4];
};

static int check_header(const struct lz_header *h, size_t len)
{
	bool ok = h->n_literals <= MAX_LITERALS && h->n_literals % 4 == 0 &&
		  h->literal_bits <= 0 && h->literal_bits >= -7 && h->lmd_bits <= 0 &&
		  h->lmd_bits >= -7 && h->l_state < LM_STATES &&
		  h->m_state < LM_STATES && h->d_state < D_STATES &&
		  h->header_bytes <= len && h->literal_bytes <= len - h->header_bytes &&
		  h->lmd_bytes <= len - h->header_bytes - h->literal_bytes;

	for (unsigned i = 0; i < 4; i++)
		ok = ok && h->literal_state[i] < LIT_STATES;
	return ok ? 0 : -EINVAL;
}

static int make_tables(struct lzfse_work *w)
{
	const uint16_t *f = w->h.freq;
	int rc = fse_table(w->t.l, LM_STATES, f, L_SYMBOLS);

	if (!rc)
		rc = fse_table(w->t.m, LM_STATES, f += L_SYMBOLS, M_SYMBOLS);
	if (!rc)
		rc = fse_table(w->t.d, D_STATES, f += M_SYMBOLS, D_SYMBOLS);
	if (!rc)
		rc = fse_table(w->t.lit, LIT_STATES, f + D_SYMBOLS, LIT_SYMBOLS);
	return rc;
}

static int get_literals(struct lzfse_work *w, const uint8_t *p)
{
	struct bits b;

	top_begin(&b, p, w->h.literal_bytes, w->h.literal_bits);
	for (uint32_t i = 0; i < w->h.n_literals && b.pos >= 0; i++)
		w->literals[i] = (uint8_t)fse_get(w->t.lit, LIT_STATES - 1,
						  &w->h.literal_state[i % 4], &b);
	return b.pos < 0 ? -EINVAL : 0;
}

static int copy_matches(struct lzfse_work *w, struct lz *z, const uint8_t *p)
{
	struct lz_header *h = &w->h;
	uint32_t used = 0, distance = 0;
	struct bits b;

	top_begin(&b, p, h->lmd_bytes, h->lmd_bits);
	for (uint32_t i = 0; i < h->n_matches; i++) {
		/* The state moves before the extra bits are read, which stand below it. */
		const struct fse_entry *e = &w->t.l[h->l_state & (LM_STATES - 1)];
		uint32_t n_lit, n_match, d;
		int rc;

		h->l_state = (uint16_t)(e->delta + (int)top_bits(&b, e->k));
		n_lit = value_get(e->symbol, lm_extra_l, &b);
		n_match = value_get(fse_get(w->t.m, LM_STATES - 1, &h->m_state, &b),
				    lm_extra_m, &b);
		d = distance_get(fse_get(w->t.d, D_STATES - 1, &h->d_state, &b), &b);
		distance = d ? d : distance;
		if (b.pos < 0 || n_lit > h->n_literals - used)
			return -EINVAL;
		rc = lz_literals(z, w->literals + used, n_lit);
		used += n_lit;
		if (!rc && n_match)
			rc = lz_match(z, n_match, distance);
		if (rc)
			return rc;
	}
	return 0;
}

static int fse_block(struct lzfse_work *w, struct lz *z, uint32_t magic)
{
	size_t len = (size_t)(z->in_end - z->in);
	const uint8_t *p = z->in, *start = z->at;
	int rc;

	memset(&w->h, 0, sizeof(w->h));
	rc = magic == BLOCK_V1 ? header_v1(p, len, &w->h) : header_v2(p, len, &w->h);
	if (!rc)
		rc = check_header(&w->h, len);
	if (!rc)
		rc = make_tables(w);
	if (!rc)
		rc = get_literals(w, p + w->h.header_bytes);
	if (!rc)
		rc = copy_matches(w, z, p + w->h.header_bytes + w->h.literal_bytes);
	if (rc)
		return rc;
	z->in += w->h.header_bytes + w->h.literal_bytes + w->h.lmd_bytes;
	return (size_t)(z->at - start) == w->h.raw_bytes ? 0 : -EINVAL;
}

/* Blocks of bytes and of LZVN have short headers: magic, length, (LZVN) packed length. */
static int short_block(struct lz *z, uint32_t magic)
{
	size_t left = (size_t)(z->in_end - z->in);
	const uint8_t *start = z->at;
	le32 h[3];
	uint32_t raw, packed;
	int rc;

	if (left < sizeof(h))
		return -EINVAL;
	memcpy(h, z->in, sizeof(h));
	raw = le32_get(h[1]);
	if (magic == BLOCK_RAW) {
		if (raw > left - 8)
			return -EINVAL;
		rc = lz_literals(z, z->in + 8, raw);
		z->in += 8 + (size_t)raw;
		return rc;
	}
	packed = le32_get(h[2]);
	if (packed > left - 12)
		return -EINVAL;
	z->in += 12;
	{
		const uint8_t *end = z->in + packed;

		rc = lzvn_block(z, end);
		z->in = end;
	}
	if (rc)
		return rc;
	return (size_t)(z->at - start) == raw ? 0 : -EINVAL;
}

static int unpack_blocks(struct lzfse_work *w, struct lz *z)
{
	int rc = 0;

	while (!rc) {
		le32 magic;

		if (z->in_end - z->in < (ptrdiff_t)sizeof(magic))
			return -EINVAL;
		memcpy(&magic, z->in, sizeof(magic));
		switch (le32_get(magic)) {
		case BLOCK_END: return z->at == z->out_end ? 0 : -EINVAL;
		case BLOCK_V1:
		case BLOCK_V2: rc = fse_block(w, z, le32_get(magic)); break;
		case BLOCK_RAW:
		case BLOCK_LZVN: rc = short_block(z, le32_get(magic)); break;
		default: rc = -EINVAL;
		}
	}
	return rc;
}

static int lzfse_unpack(struct codec_work *work, const void *in, size_t in_len,
			void *out, size_t out_len)
{
	struct lz z = {in, (const uint8_t *)in + in_len, out, out,
		       (uint8_t *)out + out_len};
	struct lzfse_work *w = malloc(sizeof(*w));
	int rc = w ? unpack_blocks(w, &z) : -ENOMEM;

	(void)work;
	free(w);
	return rc;
}

const struct codec_block codec_block_lzfse = {
	.name = "lzfse",
	.unpack = lzfse_unpack,
};
