/* codec/lzop.c - lzop files: a header, then blocks with their lengths and checksums (lzop 1.04, conf.h and its manual). Any thread. */
#include "codec/lzop.h"

#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fdio.h"

static const uint8_t magic[9] = {0x89, 'L', 'Z', 'O', 0, 0x0d, 0x0a, 0x1a, 0x0a};

enum {
	ADLER_D = 0x01, /* checksums of the data, of the packed data */
	ADLER_C = 0x02,
	EXTRA = 0x40,
	CRC_D = 0x100,
	CRC_C = 0x200,
	MULTIPART = 0x400,
	FILTER = 0x800,
};

/* Versions from which on a field is there. */
#define V_LEVEL 0x0940

struct lzop {
	int fd;
	const char *name;
	uint32_t flags;
	uint8_t *packed, *raw;
	uint32_t packed_size, raw_size;
	struct err *err;
};

bool lzop_looks_like(const void *p, size_t len)
{
	return len >= sizeof(magic) && !memcmp(p, magic, sizeof(magic));
}

static int damaged(const struct lzop *z)
{
	return err_set(z->err, EINVAL, "cannot unpack '%s': it is damaged", z->name);
}

static int get(const struct lzop *z, void *buf, size_t len)
{
	int64_t n = fd_read_full(z->fd, buf, len);

	if (n < 0)
		return err_sys(z->err, (int)-n, "cannot read '%s'", z->name);
	return (size_t)n == len ? 0 : damaged(z);
}

static int get_u32(const struct lzop *z, uint32_t *v)
{
	be32 x;
	int rc = get(z, &x, sizeof(x));

	*v = rc ? 0 : be32_get(x);
	return rc;
}

static int header(struct lzop *z)
{
	uint8_t h[64], name[256];
	uint32_t more;
	unsigned version;
	int rc = get(z, h, 2);

	if (rc)
		return rc;
	version = (unsigned)h[0] << 8 | h[1];
	/* library's version, needed version, method, level */
	rc = get(z, h, version >= V_LEVEL ? 6 : 3);
	if (!rc)
		rc = get_u32(z, &z->flags);
	if (!rc && z->flags & (FILTER | EXTRA | MULTIPART))
		return err_set(z->err, ENOTSUP,
			       "cannot unpack '%s': its flags are 0x%x, with a filter, "
			       "extra fields or parts",
			       z->name, z->flags);
	/* mode, times, length of the name */
	if (!rc)
		rc = get(z, h, version >= V_LEVEL ? 13 : 9);
	if (!rc)
		rc = get(z, name, h[version >= V_LEVEL ? 12 : 8]);
	return rc ? rc : get_u32(z, &more); /* checksum of the header */
}

static int want(uint8_t **buf, uint32_t *size, uint32_t len)
{
	uint8_t *p = len > *size ? realloc(*buf, len) : *buf;

	if (!p)
		return -ENOMEM;
	*buf = p;
	*size = len > *size ? len : *size;
	return 0;
}

struct sums {
	uint32_t adler, crc;
};

static int get_sums(const struct lzop *z, uint32_t adler, uint32_t crc, struct sums *s)
{
	int rc = z->flags & adler ? get_u32(z, &s->adler) : 0;

	return !rc && z->flags & crc ? get_u32(z, &s->crc) : rc;
}

static bool sums_ok(const struct lzop *z, uint32_t adler, uint32_t crc,
		    const struct sums *s, const uint8_t *p, uint32_t len)
{
	return (!(z->flags & adler) || s->adler == lzo_adler32(1, p, len)) &&
	       (!(z->flags & crc) || s->crc == lzo_crc32(0, p, len));
}

/* One block of `raw_len` bytes; *out is where they are. */
static int block(struct lzop *z, uint32_t raw_len, const uint8_t **out)
{
	struct sums data = {0}, packed = {0};
	uint32_t len = 0;
	lzo_uint got = raw_len;
	int rc = get_u32(z, &len);

	if (rc)
		return rc;
	if (raw_len > LZOP_MAX_BLOCK || len > raw_len)
		return damaged(z);
	rc = get_sums(z, ADLER_D, CRC_D, &data);
	if (!rc && len < raw_len)
		rc = get_sums(z, ADLER_C, CRC_C, &packed);
	if (rc)
		return rc;
	if (want(&z->packed, &z->packed_size, len) ||
	    want(&z->raw, &z->raw_size, raw_len))
		return err_set(z->err, ENOMEM, "no memory to unpack '%s'", z->name);
	rc = get(z, z->packed, len);
	if (rc)
		return rc;
	*out = z->packed;
	if (len < raw_len) {
		if (!sums_ok(z, ADLER_C, CRC_C, &packed, z->packed, len) ||
		    lzo1x_decompress_safe(z->packed, len, z->raw, &got, NULL) !=
			    LZO_E_OK ||
		    got != raw_len)
			return damaged(z);
		*out = z->raw;
	}
	return sums_ok(z, ADLER_D, CRC_D, &data, *out, raw_len) ? 0 : damaged(z);
}

int lzop_unpack_fd(int fd, const char *name,
		   int (*put)(void *ctx, const void *p, size_t len, struct err *err),
		   void *ctx, struct err *err)
{
	struct lzop z = {.fd = fd, .name = name, .err = err};
	int rc = header(&z);

	while (!rc) {
		const uint8_t *out = NULL;
		uint32_t len;

		rc = get_u32(&z, &len);
		if (rc || !len)
			break;
		rc = block(&z, len, &out);
		if (!rc)
			rc = put(ctx, out, len, err);
	}
	free(z.packed);
	free(z.raw);
	return rc;
}
