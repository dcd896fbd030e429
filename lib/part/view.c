/* part/view.c - a range of an image as a sparse file in memory. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "part/view.h"

#include "base/bits.h"
#include "base/fdio.h"
#include "img/img.h"

#define PIECE     65536u
#define MAX_BYTES (16u << 20)

int view_open(struct view *v, struct img *img, uint64_t off, uint64_t len,
	      struct err *err)
{
	*v = (struct view){.img = img, .fd = -1, .off = off, .len = len};
	if (!range_ok(off, len, img_size(img)) || len > INT64_MAX)
		return err_set(err, EINVAL, "a range outside '%s'", img_path(img));
	v->fd = memfd_create("view", MFD_CLOEXEC);
	if (v->fd < 0)
		return err_sys(err, errno, "cannot make a file in memory");
	if (ftruncate(v->fd, (off_t)len)) {
		int code = errno;

		view_close(v);
		return err_sys(err, code, "cannot make a file of %llu bytes in memory",
			       (unsigned long long)len);
	}
	return 0;
}

void view_close(struct view *v)
{
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
}

int view_read(struct view *v, void *buf, uint64_t off, uint64_t len)
{
	if (!range_ok(off, len, v->len))
		return -ENXIO;
	return img_read(v->img, buf, v->off + off, len);
}

static int fill_piece(struct view *v, uint64_t off, uint64_t len)
{
	uint8_t buf[4096];
	uint64_t n;
	int rc = 0;

	for (uint64_t at = off; at < off + len && !rc; at += n) {
		n = min_u64(sizeof(buf), off + len - at);
		rc = img_read(v->img, buf, v->off + at, n);
		if (!rc)
			rc = fd_pwrite_full(v->fd, buf, n, at);
	}
	return rc;
}

int view_fill(struct view *v, uint64_t off, uint64_t len, struct err *err)
{
	struct img_extent e;
	uint64_t end;
	int rc = 0;

	if (off >= v->len)
		return 0;
	end = off + min_u64(len, v->len - off);
	for (uint64_t at = off; at < end && !rc; at += e.len) {
		rc = img_map(v->img, v->off + at, min_u64(end - at, PIECE), &e);
		if (rc || e.kind == IMG_ZERO)
			continue;
		if (v->filled + e.len > MAX_BYTES)
			return err_set(err, EFBIG, "'%s': too many tables",
				       img_path(v->img));
		v->filled += e.len;
		rc = fill_piece(v, at, e.len);
	}
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img_path(v->img));
	return 0;
}
