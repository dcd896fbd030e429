/* pack/tar.c - walks tar files by libarchive. Any thread. */
#include "pack/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"

#define BLOCK       65536
/* A disk of 4 TiB cut into MiB, with checksums. */
#define MAX_ENTRIES (8u << 20)

/* The header's checksum: octal, the sum of its bytes with the field itself as blanks. */
bool tar_looks_like(const void *head, size_t len)
{
	const uint8_t *p = head;
	uint32_t sum = 0, want = 0;
	size_t i = 148;

	if (len < 512 || !p[0])
		return false;
	while (i < 156 && p[i] == ' ')
		i++;
	if (i == 156 || p[i] < '0' || p[i] > '7')
		return false;
	for (; i < 156 && p[i] >= '0' && p[i] <= '7'; i++)
		want = want * 8 + (p[i] - '0');
	for (i = 0; i < 512; i++)
		sum += i >= 148 && i < 156 ? ' ' : p[i];
	return sum == want;
}

static int entry(struct archive *a, struct archive_entry *e, const char *name,
		 int (*each)(void *ctx, const struct tar_entry *e, struct err *err),
		 void *ctx, uint64_t file_size, struct err *err)
{
	const char *path = archive_entry_pathname(e);
	la_int64_t at = archive_filter_bytes(a, 0), size = archive_entry_size(e);
	struct tar_entry t = {.name = path};

	if (!path || archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e))
		return 0;
	while (!strncmp(t.name, "./", 2))
		t.name += 2;
	if (at < 0 || size < 0 || !range_ok((uint64_t)at, (uint64_t)size, file_size))
		return err_set(err, EINVAL, "'%s' is damaged: it ends within '%.80s'",
			       name, t.name);
	if (archive_entry_sparse_count(e))
		return err_set(err, ENOTSUP,
			       "'%.80s' in '%s' is a sparse entry: unpack the archive, "
			       "and pack it again without --sparse",
			       t.name, name);
	t.size = (uint64_t)size;
	t.off = (uint64_t)at;
	return each(ctx, &t, err);
}

int tar_walk(int fd, const char *name,
	     int (*each)(void *ctx, const struct tar_entry *e, struct err *err),
	     void *ctx, const atomic_bool *stop, struct err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	struct stat st;
	unsigned n = 0;
	int rc = a ? 0 : -ENOMEM, got = ARCHIVE_OK;

	if (rc)
		return err_set(err, ENOMEM, "no memory to read '%s'", name);
	archive_read_support_format_tar(a);
	if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		rc = err_sys(err, errno, "cannot read '%s'", name);
	else
		got = archive_read_open_fd(a, fd, BLOCK);
	while (!rc && got >= ARCHIVE_WARN) {
		got = archive_read_next_header(a, &e);
		if (got == ARCHIVE_EOF)
			break;
		if (got >= ARCHIVE_WARN)
			rc = entry(a, e, name, each, ctx, (uint64_t)st.st_size, err);
		if (!rc && ++n > MAX_ENTRIES)
			rc = err_set(err, EFBIG, "'%s' holds more than %u files", name,
				     MAX_ENTRIES);
		if (!rc && stop && atomic_load(stop))
			rc = err_set(err, EINTR, "interrupted");
	}
	if (!rc && got < ARCHIVE_WARN)
		rc = err_set(err, EINVAL, "cannot read '%s': %.120s", name,
			     archive_error_string(a));
	archive_read_free(a);
	return rc;
}
