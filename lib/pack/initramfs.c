/* pack/initramfs.c - writes a Linux initramfs by libarchive. */
#include "pack/initramfs.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#define MAX_FILE (1ull << 30)

struct initramfs {
	struct archive *ar;
	char *path, *tmp; /* owned */
};

static int ar_err(const struct initramfs *a, const char *name, struct err *err)
{
	int code = archive_errno(a->ar);

	return err_set(err, code > 0 ? code : EIO, "cannot add '%s' to '%s': %s", name,
		       a->path, archive_error_string(a->ar));
}

struct initramfs *initramfs_new(const char *path, struct err *err)
{
	struct initramfs *a = NEW(struct initramfs);

	if (!a || !(a->path = strdup(path)) || asprintf(&a->tmp, "%s.part", path) < 0) {
		err_set(err, ENOMEM, "no memory for an archive");
		goto fail;
	}
	a->ar = archive_write_new();
	if (!a->ar || archive_write_set_format_cpio_newc(a->ar) != ARCHIVE_OK ||
	    archive_write_open_filename(a->ar, a->tmp) != ARCHIVE_OK) {
		err_set(err, EIO, "cannot write '%s': %s", path,
			a->ar ? archive_error_string(a->ar) : "no memory");
		goto fail;
	}
	return a;
fail:
	initramfs_abort(a);
	return NULL;
}

/* One entry with `len` bytes of content. */
static int add(struct initramfs *a, struct archive_entry *e, const void *p, size_t len,
	       struct err *err)
{
	int rc = 0;

	archive_entry_set_size(e, (la_int64_t)len);
	archive_entry_set_uid(e, 0);
	archive_entry_set_gid(e, 0);
	archive_entry_set_mtime(e, 0, 0);
	if (archive_write_header(a->ar, e) != ARCHIVE_OK ||
	    (len && archive_write_data(a->ar, p, len) != (la_ssize_t)len))
		rc = ar_err(a, archive_entry_pathname(e), err);
	archive_entry_free(e);
	return rc;
}

static struct archive_entry *entry(const char *name, mode_t mode, unsigned nlink)
{
	struct archive_entry *e = archive_entry_new();

	if (e) {
		archive_entry_set_pathname(e, name);
		archive_entry_set_mode(e, mode);
		archive_entry_set_nlink(e, nlink);
	}
	return e;
}

int initramfs_dir(struct initramfs *a, const char *name, struct err *err)
{
	struct archive_entry *e = entry(name, S_IFDIR | 0755, 2);

	return e ? add(a, e, NULL, 0, err) : err_set(err, ENOMEM, "no memory");
}

int initramfs_file(struct initramfs *a, const char *name, const char *host_path,
		   unsigned mode, struct err *err)
{
	struct archive_entry *e;
	void *p;
	size_t len;
	int rc = fd_load_file(host_path, MAX_FILE, &p, &len, err);

	if (rc)
		return rc;
	e = entry(name, S_IFREG | (mode & 07777), 1);
	rc = e ? add(a, e, p, len, err) : err_set(err, ENOMEM, "no memory");
	free(p);
	return rc;
}

int initramfs_link(struct initramfs *a, const char *name, const char *target,
		   struct err *err)
{
	struct archive_entry *e = entry(name, S_IFLNK | 0777, 1);

	if (!e)
		return err_set(err, ENOMEM, "no memory");
	archive_entry_set_symlink(e, target);
	return add(a, e, NULL, 0, err);
}

int initramfs_chardev(struct initramfs *a, const char *name, unsigned major,
		      unsigned minor, struct err *err)
{
	struct archive_entry *e = entry(name, S_IFCHR | 0600, 1);

	if (!e)
		return err_set(err, ENOMEM, "no memory");
	archive_entry_set_rdevmajor(e, major);
	archive_entry_set_rdevminor(e, minor);
	return add(a, e, NULL, 0, err);
}

int initramfs_close(struct initramfs *a, struct err *err)
{
	int rc = 0;

	if (archive_write_close(a->ar) != ARCHIVE_OK)
		rc = ar_err(a, "the end", err);
	else if (rename(a->tmp, a->path) < 0)
		rc = err_sys(err, errno, "cannot name '%s'", a->path);
	initramfs_abort(a); /* the part file is gone when all went well */
	return rc;
}

void initramfs_abort(struct initramfs *a)
{
	if (!a)
		return;
	if (a->ar)
		archive_write_free(a->ar);
	if (a->tmp)
		unlink(a->tmp);
	free(a->tmp);
	free(a->path);
	free(a);
}
