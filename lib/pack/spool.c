/* pack/spool.c - unpacks a stream to a file. Any thread. */
#include "pack/spool.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "codec/lzop.h"

#define BLOCK 65536
#define GRAIN 4096

bool spool_is_packed(const void *head, size_t len)
{
	/* clang-format off */
	static const struct {
		uint8_t magic[6];
		uint8_t len;
	} kinds[] = {
		{{0x1f, 0x8b, 8}, 3},                   /* gzip */
		{{0xfd, '7', 'z', 'X', 'Z', 0}, 6},     /* xz */
		{{0x28, 0xb5, 0x2f, 0xfd}, 4},          /* zstd */
		{{'B', 'Z', 'h'}, 3},                   /* bzip2 */
		{{0x04, 0x22, 0x4d, 0x18}, 4},          /* lz4 */
		{{'L', 'Z', 'I', 'P'}, 4},              /* lzip */
		{{0x89, 'L', 'Z', 'O', 0, 0x0d}, 6},    /* lzop */
	};
	/* clang-format on */
	bool is = false;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		is |= len >= kinds[i].len &&
		      !memcmp(head, kinds[i].magic, kinds[i].len);
	return is;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* Writes what is not zeros. */
static int put_sparse(int out, const uint8_t *p, size_t len, uint64_t off)
{
	size_t from = 0;
	int rc = 0;

	for (size_t at = 0; at < len && !rc;) {
		size_t n = min_u64(GRAIN, len - at);

		if (is_zero(p + at, n)) {
			rc = fd_pwrite_full(out, p + from, at - from, off + from);
			from = at + n;
		}
		at += n;
	}
	return rc ? rc : fd_pwrite_full(out, p + from, len - from, off + from);
}

static int copy(struct archive *a, const char *name, int out, const atomic_bool *stop,
		struct err *err)
{
	static const char what[] = "cannot write a temporary file for";
	uint8_t buf[BLOCK];
	uint64_t off = 0;
	la_ssize_t n;

	while ((n = archive_read_data(a, buf, sizeof(buf))) > 0) {
		int rc = put_sparse(out, buf, (size_t)n, off);

		if (rc)
			return err_sys(err, -rc, "%s '%s'", what, name);
		off += (uint64_t)n;
		if (stop && atomic_load(stop))
			return err_set(err, EINTR, "interrupted");
	}
	if (n < 0)
		return err_set(err, EINVAL, "cannot unpack '%s': %.120s", name,
			       archive_error_string(a));
	if (ftruncate(out, (off_t)off) < 0)
		return err_sys(err, errno, "%s '%s'", what, name);
	return 0;
}

/* ---- lzop: libarchive would run a program for it ---- */

struct unpacked {
	const char *name;
	int out;
	uint64_t off;
	const atomic_bool *stop;
};

static int put_block(void *ctx, const void *p, size_t len, struct err *err)
{
	struct unpacked *u = ctx;
	int rc = put_sparse(u->out, p, len, u->off);

	u->off += len;
	if (rc)
		return err_sys(err, -rc, "cannot write a temporary file for '%s'",
			       u->name);
	return u->stop && atomic_load(u->stop) ? err_set(err, EINTR, "interrupted") : 0;
}

static int unpack_lzop(int in, const char *name, int out, const atomic_bool *stop,
		       struct err *err)
{
	struct unpacked u = {name, out, 0, stop};
	int rc = lzop_unpack_fd(in, name, put_block, &u, err);

	if (!rc && ftruncate(out, (off_t)u.off) < 0)
		rc = err_sys(err, errno, "cannot write a temporary file for '%s'",
			     name);
	return rc;
}

/* ---- anything else ---- */

/* What is read, and its first bytes, which were looked at. */
struct input {
	int fd;
	uint8_t head[LZOP_MAGIC_LEN];
	size_t head_len;
	uint8_t buf[BLOCK];
};

static la_ssize_t input_read(struct archive *a, void *ctx, const void **buf)
{
	struct input *in = ctx;
	size_t n = in->head_len;
	ssize_t got;

	if (n) {
		*buf = in->head;
		in->head_len = 0;
		return (la_ssize_t)n;
	}
	do
		got = read(in->fd, in->buf, sizeof(in->buf));
	while (got < 0 && errno == EINTR);
	if (got < 0)
		archive_set_error(a, errno, "%s", strerror(errno));
	*buf = in->buf;
	return got;
}

int spool_unpack(int in, const char *name, int out, const atomic_bool *stop,
		 struct err *err)
{
	struct archive *a = archive_read_new();
	struct input *src = NEW(struct input);
	struct archive_entry *e;
	int64_t n;
	int rc;

	if (!a || !src) {
		rc = err_set(err, ENOMEM, "no memory to unpack '%s'", name);
		goto out;
	}
	src->fd = in;
	n = fd_read_full(in, src->head, sizeof(src->head));
	if (n < 0) {
		rc = err_sys(err, (int)-n, "cannot read '%s'", name);
		goto out;
	}
	src->head_len = (size_t)n;
	if (lzop_looks_like(src->head, src->head_len)) {
		rc = unpack_lzop(in, name, out, stop, err);
		goto out;
	}
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_lz4(a);
	archive_read_support_filter_lzip(a);
	archive_read_support_format_raw(a);
	archive_read_support_format_empty(a);
	rc = archive_read_open2(a, src, NULL, input_read, NULL, NULL);
	if (rc == ARCHIVE_OK)
		rc = archive_read_next_header(a, &e);
	if (rc == ARCHIVE_EOF)
		rc = err_set(err, EINVAL, "'%s' is empty", name);
	else if (rc != ARCHIVE_OK)
		rc = err_set(err, EINVAL, "cannot read '%s': %.120s", name,
			     archive_error_string(a));
	else
		rc = copy(a, name, out, stop, err);
out:
	archive_read_free(a);
	free(src);
	return rc;
}
