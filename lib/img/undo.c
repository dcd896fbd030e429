/* img/undo.c - see img/undo.h. A file of it: the magic text, the length of the image's file, records, each with an
 * offset, a length and bytes. One thread. */
#include "img/undo.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"

static const char undo_magic[16] = "vm-img undo 1\n";

#define MAX_UNDO (64u << 20)

struct undo_head {
	char magic[16];
	le64 file_len;
};

struct undo_record {
	le64 off, len;
};

int undo_write(const char *path, struct img_file *f, uint64_t len, struct err *err)
{
	struct undo_head head = {.file_len = le64_make(file_size(f))};
	struct undo_record rec = {le64_make(0), le64_make(len)};
	uint8_t *buf = malloc(len);
	int fd, rc = buf ? file_read(f, buf, 0, len) : -ENOMEM;

	memcpy(head.magic, undo_magic, sizeof(head.magic));
	if (rc) {
		free(buf);
		return err_sys(err, -rc, "cannot read '%s'", file_path(f));
	}
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	rc = fd < 0 ? -errno : fd_write_full(fd, &head, sizeof(head));
	rc = rc ? rc : fd_write_full(fd, &rec, sizeof(rec));
	rc = rc ? rc : fd_write_full(fd, buf, len);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	free(buf);
	return rc ? err_sys(err, -rc, "cannot write undo file '%s'", path) : 0;
}

static int apply_records(const uint8_t *p, uint64_t len, struct img_file *f)
{
	uint64_t at = 0;
	int rc = 0;

	while (at < len && !rc) {
		struct undo_record rec;
		uint64_t n;

		if (!range_ok(at, sizeof(rec), len))
			return -EINVAL;
		memcpy(&rec, p + at, sizeof(rec));
		at += sizeof(rec);
		n = le64_get(rec.len);
		if (!range_ok(at, n, len))
			return -EINVAL;
		rc = file_write(f, p + at, le64_get(rec.off), n);
		at += n;
	}
	return rc;
}

int undo_apply(const char *path, struct img_file *f, struct err *err)
{
	struct undo_head head;
	size_t len;
	void *p;
	int rc = fd_load_file(path, MAX_UNDO, &p, &len, err);

	if (rc)
		return rc;
	if (len < sizeof(head) || memcmp(p, undo_magic, sizeof(undo_magic))) {
		free(p);
		return err_set(err, EINVAL, "'%s' is not an undo file", path);
	}
	memcpy(&head, p, sizeof(head));
	rc = apply_records((uint8_t *)p + sizeof(head), len - sizeof(head), f);
	if (!rc)
		rc = file_sync(f);
	if (!rc && !file_is_device(f) && le64_get(head.file_len) < file_size(f))
		rc = file_truncate(f, le64_get(head.file_len));
	free(p);
	return rc ? err_sys(err, -rc, "cannot put back '%s'", file_path(f)) : 0;
}
