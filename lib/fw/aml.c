/*
 * fw/aml.c - writes ACPI machine language.
 *
 * ACPI 6.3: 20.2 (grammar), 6.4 (resource descriptors), 19.3.4 (EISA ids). Any thread.
 */
#include "fw/aml.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

enum {
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_DUAL = 0x2e,
	OP_MULTI = 0x2f,
	OP_EXT = 0x5b,
	OP_LOCAL0 = 0x60,
	OP_ARG0 = 0x68,
	OP_IF = 0xa0,
	OP_ELSE = 0xa1,
	EXT_REGION = 0x80,
	EXT_FIELD = 0x81,
	EXT_DEVICE = 0x82,
	EXT_PROCESSOR = 0x83,
};

static void put_bytes(struct aml *a, const void *p, size_t len)
{
	str_add(&a->out, p, len);
}

static void put_byte(struct aml *a, unsigned v)
{
	uint8_t b = (uint8_t)v;

	put_bytes(a, &b, 1);
}

/* ---- names (20.2.2) ---- */

static size_t seg_len(const char *path)
{
	return strcspn(path, ".");
}

/* One segment, filled up to four characters. */
static void put_seg(struct aml *a, const char *seg, size_t len)
{
	char s[4] = {'_', '_', '_', '_'};

	assert(len >= 1 && len <= 4);
	memcpy(s, seg, len);
	put_bytes(a, s, sizeof(s));
}

void aml_ref(struct aml *a, const char *path)
{
	unsigned n = 0;

	while (*path == '\\' || *path == '^')
		put_byte(a, (uint8_t)*path++);
	for (const char *p = path; *p; p += seg_len(p) + (p[seg_len(p)] == '.'))
		n++;
	if (n == 0) {
		put_byte(a, 0);
	} else if (n == 2) {
		put_byte(a, OP_DUAL);
	} else if (n > 2) {
		put_byte(a, OP_MULTI);
		put_byte(a, n);
	}
	while (*path) {
		put_seg(a, path, seg_len(path));
		path += seg_len(path);
		path += *path == '.';
	}
}

/* ---- packages (20.2.4) ---- */

static void begin(struct aml *a)
{
	assert(a->depth < AML_MAX_DEPTH);
	a->open[a->depth++] = a->out.len;
}

/* A package length in `bytes` bytes. */
static void encode_length(uint8_t *to, unsigned bytes, size_t v)
{
	if (bytes == 1) {
		to[0] = (uint8_t)v;
		return;
	}
	to[0] = (uint8_t)((bytes - 1) << 6 | (v & 0xf));
	for (unsigned i = 1; i < bytes; i++)
		to[i] = (uint8_t)(v >> (8 * i - 4));
}

/* How many bytes the length of a package with `body` bytes takes, itself counted. */
static unsigned length_bytes(size_t body)
{
	unsigned n = 1;

	if (body + 1 <= 0x3f)
		return 1;
	do
		n++;
	while (body + n >= 1ull << (4 + 8 * (n - 1)));
	assert(n <= 4);
	return n;
}

void aml_end(struct aml *a)
{
	size_t at, body;
	unsigned n;

	assert(a->depth);
	at = a->open[--a->depth];
	body = a->out.len - at;
	n = length_bytes(body);
	str_add(&a->out, NULL, n);
	if (a->out.failed)
		return;
	memmove(a->out.p + at + n, a->out.p + at, body);
	encode_length((uint8_t *)a->out.p + at, n, body + n);
}

void aml_scope(struct aml *a, const char *path)
{
	put_byte(a, OP_SCOPE);
	begin(a);
	aml_ref(a, path);
}

void aml_device(struct aml *a, const char *name)
{
	put_byte(a, OP_EXT);
	put_byte(a, EXT_DEVICE);
	begin(a);
	aml_ref(a, name);
}

void aml_processor(struct aml *a, const char *name, uint8_t id)
{
	static const uint8_t no_block[5];

	put_byte(a, OP_EXT);
	put_byte(a, EXT_PROCESSOR);
	begin(a);
	aml_ref(a, name);
	put_byte(a, id);
	put_bytes(a, no_block, sizeof(no_block)); /* address and length of P_BLK */
}

void aml_method(struct aml *a, const char *name, unsigned n_args, bool serialized)
{
	assert(n_args <= 7);
	put_byte(a, OP_METHOD);
	begin(a);
	aml_ref(a, name);
	put_byte(a, n_args | (serialized ? 8u : 0u));
}

void aml_package(struct aml *a, uint8_t n)
{
	put_byte(a, OP_PACKAGE);
	begin(a);
	put_byte(a, n);
}

void aml_if(struct aml *a)
{
	put_byte(a, OP_IF);
	begin(a);
}

void aml_else(struct aml *a)
{
	put_byte(a, OP_ELSE);
	begin(a);
}

/* ---- fields (20.2.5.2) ---- */

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t off,
		uint64_t len)
{
	put_byte(a, OP_EXT);
	put_byte(a, EXT_REGION);
	aml_ref(a, name);
	put_byte(a, space);
	aml_int(a, off);
	aml_int(a, len);
}

void aml_field(struct aml *a, const char *region)
{
	put_byte(a, OP_EXT);
	put_byte(a, EXT_FIELD);
	begin(a);
	aml_ref(a, region);
	put_byte(a, 0x01); /* byte access, no lock, preserve */
}

static void put_bits(struct aml *a, unsigned bits)
{
	uint8_t b[4];
	unsigned n = bits <= 0x3f ? 1 : bits <= 0xfff ? 2 : 3;

	encode_length(b, n, bits);
	put_bytes(a, b, n);
}

void aml_unit(struct aml *a, const char *name, unsigned bits)
{
	put_seg(a, name, strlen(name));
	put_bits(a, bits);
}

void aml_unit_skip(struct aml *a, unsigned bits)
{
	put_byte(a, 0);
	put_bits(a, bits);
}

/* ---- data ---- */

void aml_name(struct aml *a, const char *name)
{
	put_byte(a, OP_NAME);
	aml_ref(a, name);
}

void aml_op(struct aml *a, enum aml_op op)
{
	put_byte(a, op);
}

void aml_arg(struct aml *a, unsigned n)
{
	put_byte(a, OP_ARG0 + n);
}

void aml_local(struct aml *a, unsigned n)
{
	put_byte(a, OP_LOCAL0 + n);
}

void aml_int(struct aml *a, uint64_t v)
{
	static const struct {
		uint8_t op, bytes;
	} form[] = {{OP_BYTE, 1}, {OP_WORD, 2}, {OP_DWORD, 4}, {OP_QWORD, 8}};
	unsigned i = 0;

	if (v <= 1) {
		put_byte(a, v ? AML_ONE : AML_ZERO);
		return;
	}
	while (form[i].bytes < 8 && v >> (8 * form[i].bytes))
		i++;
	put_byte(a, form[i].op);
	put_bytes(a, &v, form[i].bytes);
}

void aml_text(struct aml *a, const char *s)
{
	put_byte(a, OP_STRING);
	put_bytes(a, s, strlen(s) + 1);
}

static unsigned hex(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

void aml_eisa(struct aml *a, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (int i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)(id[i] - '@') & 0x1f);
	for (int i = 3; i < 7; i++)
		v = v << 4 | hex(id[i]);
	aml_int(a, __builtin_bswap32(v));
}

void aml_buffer(struct aml *a, const void *p, size_t len)
{
	put_byte(a, OP_BUFFER);
	begin(a);
	aml_int(a, len);
	put_bytes(a, p, len);
	aml_end(a);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_int(a, v);
}

void aml_name_eisa(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisa(a, id);
}

void aml_name_text(struct aml *a, const char *name, const char *s)
{
	aml_name(a, name);
	aml_text(a, s);
}

/* ---- resource templates ---- */

static void res_put(struct aml_res *r, const void *p, size_t len)
{
	assert(len <= sizeof(r->b) - r->len);
	memcpy(r->b + r->len, p, len);
	r->len += len;
}

static void res_int(struct aml_res *r, uint64_t v, unsigned bytes)
{
	res_put(r, &v, bytes);
}

void aml_res_io(struct aml_res *r, uint16_t port, uint8_t len)
{
	res_int(r, 0x0147, 2); /* decodes 16 bits */
	res_int(r, port, 2);
	res_int(r, port, 2);
	res_int(r, 1, 1); /* alignment */
	res_int(r, len, 1);
}

void aml_res_irq(struct aml_res *r, unsigned irq)
{
	res_int(r, 0x22, 1);
	res_int(r, 1u << irq, 2);
}

void aml_res_dma(struct aml_res *r, unsigned channel)
{
	res_int(r, 0x2a, 1);
	res_int(r, 1u << channel, 1);
	res_int(r, 0x02, 1); /* 16-bit transfers, compatible timing, no bus master */
}

void aml_res_mem32(struct aml_res *r, uint32_t base, uint32_t len)
{
	res_int(r, 0x86, 1);
	res_int(r, 9, 2);
	res_int(r, 1, 1); /* writable */
	res_int(r, base, 4);
	res_int(r, len, 4);
}

void aml_res_window(struct aml_res *r, enum aml_res_kind kind, unsigned min_bytes,
		    uint64_t base, uint64_t len)
{
	static const uint8_t tag[] = {[2] = 0x88, [4] = 0x87, [8] = 0x8a};
	/* Memory: writable, not cached; I/O: the whole range. */
	static const uint8_t flags[] = {[AML_RES_MEMORY] = 1, [AML_RES_IO] = 3};
	unsigned bytes = min_bytes;

	if (!len)
		return;
	while (bytes < 8 && (base + len - 1) >> (8 * bytes))
		bytes *= 2;
	if (bytes < 8 && len >> (8 * bytes))
		bytes *= 2;
	res_int(r, tag[bytes], 1);
	res_int(r, 3 + 5 * bytes, 2);
	res_int(r, kind, 1);
	res_int(r, 0x0c, 1); /* both ends are fixed */
	res_int(r, kind < ARRAY_LEN(flags) ? flags[kind] : 0, 1);
	res_int(r, 0, bytes); /* granularity */
	res_int(r, base, bytes);
	res_int(r, base + len - 1, bytes);
	res_int(r, 0, bytes); /* translation */
	res_int(r, len, bytes);
}

void aml_res_pci_irq(struct aml_res *r, uint32_t mask)
{
	unsigned n = (unsigned)__builtin_popcount(mask);

	res_int(r, 0x89, 1);
	res_int(r, 2 + 4 * n, 2);
	res_int(r, 0x0d, 1); /* consumer, level, active low, shared */
	res_int(r, n, 1);
	for (unsigned i = 0; i < 32; i++)
		if (mask >> i & 1)
			res_int(r, i, 4);
}

void aml_name_res(struct aml *a, const char *name, struct aml_res *r)
{
	res_int(r, 0x0079, 2); /* end, no checksum */
	aml_name(a, name);
	aml_buffer(a, r->b, r->len);
	r->len = 0;
}
