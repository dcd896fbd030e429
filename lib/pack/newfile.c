/* pack/newfile.c - files that are whole, or not there. One thread. */
#include "pack/newfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "img/img.h"

int newfile_begin(struct newfile *f, const char *path, bool replace, struct err *err)
{
	*f = (struct newfile){.fd = -1, .replace = replace};
	if (!strcmp(path, "-")) {
		f->fd = img_temp_fd(err);
		return f->fd < 0 ? f->fd : 0;
	}
	if (!replace && !access(path, F_OK))
		return err_sys(err, EEXIST, "cannot create '%s'", path);
	f->path = strdup(path);
	if (!f->path || asprintf(&f->tmp, "%s.part-%d", path, (int)getpid()) < 0) {
		free(f->path);
		f->path = f->tmp = NULL;
		return err_set(err, ENOMEM, "no memory to create '%s'", path);
	}
	f->fd = open(f->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (f->fd < 0) {
		err_sys(err, errno, "cannot create '%s'", path);
		free(f->tmp); /* not ours */
		f->tmp = NULL;
		newfile_drop(f);
		return -err->code;
	}
	return 0;
}

void newfile_drop(struct newfile *f)
{
	if (f->fd >= 0)
		close(f->fd);
	if (f->tmp)
		unlink(f->tmp);
	free(f->tmp);
	free(f->path);
	*f = (struct newfile){.fd = -1};
}

static int send_out(int fd, struct err *err)
{
	char buf[65536];
	int64_t n;
	int rc = 0;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, errno, "cannot read a temporary file");
	while (!rc && (n = fd_read_full(fd, buf, sizeof(buf))) > 0) {
		rc = fd_write_full(STDOUT_FILENO, buf, (size_t)n);
		if (rc)
			return err_sys(err, -rc, "cannot write to standard output");
	}
	return n < 0 ? err_sys(err, (int)-n, "cannot read a temporary file") : 0;
}

/* The folder's entry must be on the disk, too. */
static void sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(dir);
}

int newfile_commit(struct newfile *f, struct err *err)
{
	int rc = 0;

	if (!f->path) {
		rc = send_out(f->fd, err);
	} else if (fdatasync(f->fd) < 0) {
		rc = err_sys(err, errno, "cannot write '%s'", f->path);
	} else if (f->replace ? rename(f->tmp, f->path)
			      : renameat2(AT_FDCWD, f->tmp, AT_FDCWD, f->path,
					  RENAME_NOREPLACE)) {
		rc = err_sys(err, errno, "cannot create '%s'", f->path);
	} else {
		free(f->tmp);
		f->tmp = NULL;
		sync_folder(f->path);
	}
	newfile_drop(f);
	return rc;
}
