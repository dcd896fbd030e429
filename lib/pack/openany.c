/*
 * pack/openany.c - a disk by a name: an image, a package of one disk, something packed, standard input. Any thread.
 */
#include "pack/openany.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "pack/spool.h"

/* Is the file packed as a whole? A disk image of Apple may begin with a packed run, its mark is at the end. */
static bool is_packed(const char *path, int *fd)
{
	char head[8];
	ssize_t n;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	n = *fd < 0 ? -1 : pread(*fd, head, sizeof(head), 0);
	if (n > 0 && spool_is_packed(head, (size_t)n) && !img_fd_recognized(*fd))
		return true;
	if (*fd >= 0)
		close(*fd);
	return false;
}

/* What is in a pipe or a packed file, in a temporary file: its descriptor. Takes `fd` over. */
static int spool(int fd, const char *name, const atomic_bool *stop, struct err *err)
{
	int tmp = img_temp_fd(err), rc = tmp < 0 ? tmp : 0;

	if (!rc)
		rc = spool_unpack(fd, name, tmp, stop, err);
	close(fd);
	if (rc && tmp >= 0)
		close(tmp);
	return rc ? rc : tmp;
}

/* The disk of a package that has exactly one, or the package itself if the caller takes that. */
static int take_package(struct package *p, struct package **want, const char *name,
			const struct img_opts *o, struct img **out, struct err *err)
{
	struct package_info i;
	int rc;

	if (want) {
		*want = p;
		return 0;
	}
	package_info(p, &i);
	if (i.n_disks == 1)
		rc = package_open_disk(p, 0, o, out, err);
	else
		rc = err_set(err, EINVAL,
			     "'%s' is a package with %u disks: 'vm-img import' takes "
			     "them out",
			     name, i.n_disks);
	package_close(p);
	if (!rc && o->snapshot)
		rc = img_overlay(out, err);
	return rc;
}

static int open_spooled(int fd, const char *name, const struct img_opts *o,
			const atomic_bool *stop, struct package **want,
			struct img **out, struct err *err)
{
	struct package *p = NULL;
	int tmp = spool(fd, name, stop, err), again, rc = 0;

	if (tmp < 0)
		return tmp;
	if (!o->format && (again = fcntl(tmp, F_DUPFD_CLOEXEC, 3)) >= 0)
		rc = package_open_fd(again, name, stop, &p, err);
	if (rc || p)
		close(tmp);
	if (p)
		rc = take_package(p, want, name, o, out, err);
	else if (!rc)
		rc = img_open_fd(tmp, name, o, out, err);
	return rc;
}

bool pack_is_sealed(const char *path)
{
	struct package *p = NULL;
	int fd;

	if (is_packed(path, &fd)) {
		close(fd);
		return true;
	}
	if (access(path, R_OK) || package_open(path, NULL, &p, NULL))
		return false;
	package_close(p);
	return p != NULL;
}

int pack_open_package(const char *name, const atomic_bool *stop, struct package **p,
		      struct rootfs **tree, struct err *err)
{
	bool in = !strcmp(name, "-");
	int fd, again, rc;

	*p = NULL;
	*tree = NULL;
	if (in || is_packed(name, &fd)) {
		name = in ? "standard input" : name;
		fd = spool(in ? dup(STDIN_FILENO) : fd, name, stop, err);
		if (fd < 0)
			return fd;
		again = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		rc = package_open_fd(fd, name, stop, p, err);
		if (rc || *p) {
			close(again);
			return rc;
		}
		return rootfs_open_fd(again, name, stop, tree, err);
	}
	rc = package_open(name, stop, p, err);
	return rc || *p ? rc : rootfs_open(name, stop, tree, err);
}

int pack_open_image(const char *path, const struct img_opts *o, const atomic_bool *stop,
		    struct package **want, struct img **out, struct err *err)
{
	struct package *p = NULL;
	int rc, fd;

	*out = NULL;
	if (!strcmp(path, "-"))
		return open_spooled(dup(STDIN_FILENO), "standard input", o, stop, want,
				    out, err);
	if (!o->format && is_packed(path, &fd))
		return open_spooled(fd, path, o, stop, want, out, err);
	if (!o->format && !access(path, R_OK)) {
		rc = package_open(path, stop, &p, err);
		if (rc || p)
			return rc ? rc : take_package(p, want, path, o, out, err);
	}
	return img_open(path, o, out, err);
}
