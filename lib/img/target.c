/*
 * img/target.c - images that are being made. What is written has no name until it is whole and on the disk: a
 * nameless file (or, where the file system has none, one with a name of its own) gets the image's
 * name at the end. One thread.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"
#include "img/lock.h"
#include "img/nbd/remote.h"

struct target_file {
	char *name;  /* in the image's folder; NULL: the image itself */
	char *final; /* its path when it is done */
	char *tmp;   /* its path now; NULL: has none */
	int fd;      /* of `file` */
	int old;     /* descriptor of what will be replaced, locked; -1: nothing */
	struct img_file *file;
	bool in_place; /* a device, a remote disk: nothing to rename */
	bool replace;
	struct target_file *next;
};

static char *dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static void file_drop(struct target_file *tf)
{
	if (tf->old >= 0)
		close(tf->old);
	file_close(tf->file);
	free(tf->name);
	free(tf->final);
	free(tf->tmp);
	free(tf);
}

/* What stands at the path now must be ours to replace: nobody uses it. */
static int examine_old(struct target_file *tf, bool replace, struct stat *st,
		       struct err *err)
{
	if (stat(tf->final, st) < 0)
		return errno == ENOENT
			       ? 0
			       : err_sys(err, errno, "cannot create '%s'", tf->final);
	if (!replace)
		return err_sys(err, EEXIST, "cannot create '%s'", tf->final);
	tf->old = open(tf->final, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (tf->old < 0)
		return err_sys(err, errno, "cannot create '%s'", tf->final);
	if (fstat(tf->old, st) < 0)
		return err_sys(err, errno, "cannot examine '%s'", tf->final);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return err_set(err, EINVAL,
			       "'%s' is neither a regular file nor a block device",
			       tf->final);
	tf->replace = true;
	return lock_image(tf->old, true, tf->final, err);
}

/* What is written in place is marked as unfinished until target_commit(). */
static int hold_head(struct target_file *tf, struct err *err)
{
	int rc = file_hold(tf->file, true);

	if (!rc)
		rc = file_mark(tf->file);
	return rc ? err_sys(err, -rc, "cannot write '%s'", tf->final) : 0;
}

static int begin_remote(struct target_file *tf, const struct img_target *t,
			struct err *err)
{
	struct img_file_opts fo = {.no_sync = true};
	int rc;

	if (!t->replace)
		return err_sys(err, EEXIST, "cannot create '%s'", tf->final);
	tf->in_place = true;
	rc = file_open(tf->final, &fo, &tf->file, err);
	return rc ? rc : hold_head(tf, err);
}

/* A file in the folder of tf->final. */
static int open_new(struct target_file *tf, struct err *err)
{
	char *dir = dir_of(tf->final);
	const char *slash = strrchr(tf->final, '/');

	if (!dir)
		return err_set(err, ENOMEM, "no memory to create '%s'", tf->final);
	tf->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	if (tf->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOSYS ||
			   errno == EINVAL)) {
		if (asprintf(&tf->tmp, "%s/.%.200s.part-%d", dir,
			     slash ? slash + 1 : tf->final, (int)getpid()) < 0)
			tf->tmp = NULL;
		tf->fd = tf->tmp ? open(tf->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
					0666)
				 : -1;
		if (tf->fd < 0 && tf->tmp) {
			free(tf->tmp); /* not ours */
			tf->tmp = NULL;
		}
	}
	free(dir);
	if (tf->fd < 0)
		return err_sys(err, errno, "cannot create '%s'", tf->final);
	return 0;
}

static int file_begin(struct target_file *tf, const struct img_target *t,
		      struct err *err)
{
	/* The order of writes does not matter before it has its name. */
	struct img_file_opts fo = {.no_sync = true, .eager = !t->no_sync};
	struct stat st = {0};
	char *real;
	int rc;

	if (remote_is_url(tf->final))
		return begin_remote(tf, t, err);
	rc = examine_old(tf, t->replace, &st, err);
	if (rc)
		return rc;
	if (tf->old >= 0 && S_ISBLK(st.st_mode)) {
		tf->in_place = true;
		fo.no_lock = true; /* it is locked already */
		tf->fd = tf->old;
		tf->old = -1;
	} else {
		if (tf->old >= 0 && (real = realpath(tf->final, NULL))) {
			free(tf->final); /* a link's target is replaced, not the link */
			tf->final = real;
		}
		rc = open_new(tf, err);
		if (rc)
			return rc;
		if (tf->old >= 0 &&
		    (fchmod(tf->fd, st.st_mode & 07777) < 0 ||
		     (fchown(tf->fd, st.st_uid, st.st_gid) < 0 && errno != EPERM)))
			rc = err_sys(err, errno, "cannot create '%s'", tf->final);
	}
	if (rc) {
		close(tf->fd);
		return rc;
	}
	rc = file_open_fd(tf->fd, tf->final, &fo, &tf->file, err);
	return rc || !tf->in_place ? rc : hold_head(tf, err);
}

static struct target_file *file_new(const char *final, const char *name)
{
	struct target_file *tf = NEW(struct target_file);

	if (!tf)
		return NULL;
	tf->fd = tf->old = -1;
	tf->final = strdup(final);
	tf->name = name ? strdup(name) : NULL;
	if (!tf->final || (name && !tf->name)) {
		file_drop(tf);
		return NULL;
	}
	return tf;
}

static int target_add(struct img_target *t, const char *final, const char *name,
		      struct err *err)
{
	struct target_file *tf = file_new(final, name);
	int rc = tf ? file_begin(tf, t, err)
		    : err_set(err, ENOMEM, "no memory to create '%s'", final);

	if (rc) {
		if (tf && tf->tmp)
			unlink(tf->tmp);
		if (tf)
			file_drop(tf);
		return rc;
	}
	tf->next = t->files;
	t->files = tf;
	return 0;
}

int target_begin(struct img_target *t, const char *path,
		 const struct img_create_opts *opts, struct err *err)
{
	int rc;

	*t = (struct img_target){
		.path = path, .replace = opts->replace, .no_sync = opts->no_sync};
	rc = target_add(t, path, NULL, err);
	if (!rc)
		t->file = t->files->file;
	return rc;
}

int target_begin_fd(struct img_target *t, int fd, const char *name, struct err *err)
{
	struct img_file_opts fo = {.no_lock = true, .stream = true};
	struct target_file *tf = file_new(name, NULL);
	int rc = 0;

	*t = (struct img_target){.path = name, .stream = true};
	if (!tf)
		return err_set(err, ENOMEM, "no memory");
	tf->in_place = true;
	tf->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (tf->fd < 0)
		rc = err_sys(err, errno, "cannot write to '%s'", name);
	else
		rc = file_open_fd(tf->fd, tf->final, &fo, &tf->file, err);
	if (rc) {
		file_drop(tf);
		return rc;
	}
	t->files = tf;
	t->file = tf->file;
	return 0;
}

int target_begin_stdout(struct img_target *t, struct err *err)
{
	return target_begin_fd(t, STDOUT_FILENO, "standard output", err);
}

int target_add_file(struct img_target *t, const char *name, struct img_file **out,
		    struct err *err)
{
	char *dir, *path;
	int rc;

	if (!*name || strchr(name, '/') || t->stream)
		return err_set(err, EINVAL, "cannot make a file '%s' of the image",
			       name);
	dir = dir_of(t->path);
	if (!dir || asprintf(&path, "%s/%s", dir, name) < 0) {
		free(dir);
		return err_set(err, ENOMEM, "no memory to create '%s'", name);
	}
	rc = target_add(t, path, name, err);
	free(dir);
	free(path);
	if (!rc)
		*out = t->files->file;
	return rc;
}

struct img_file *target_find(const struct img_target *t, const char *name)
{
	for (const struct target_file *tf = t->files; tf; tf = tf->next)
		if (tf->name && !strcmp(tf->name, name))
			return tf->file;
	return NULL;
}

void target_abort(struct img_target *t)
{
	while (t->files) {
		struct target_file *tf = t->files;

		t->files = tf->next;
		if (tf->tmp)
			unlink(tf->tmp);
		file_drop(tf);
	}
	t->file = NULL;
}

/* Gives a nameless file a name: the final one if that is free, else a temporary one. */
static int give_name(struct target_file *tf, struct err *err)
{
	char fd_path[64];

	snprintf(fd_path, sizeof(fd_path), "/proc/self/fd/%d", tf->fd);
	if (!linkat(AT_FDCWD, fd_path, AT_FDCWD, tf->final, AT_SYMLINK_FOLLOW)) {
		tf->in_place = true;
		return 0;
	}
	if (errno != EEXIST || !tf->replace)
		return err_sys(err, errno, "cannot create '%s'", tf->final);
	if (asprintf(&tf->tmp, "%s.part-%d", tf->final, (int)getpid()) < 0) {
		tf->tmp = NULL;
		return err_set(err, ENOMEM, "no memory to create '%s'", tf->final);
	}
	if (linkat(AT_FDCWD, fd_path, AT_FDCWD, tf->tmp, AT_SYMLINK_FOLLOW) < 0) {
		err_sys(err, errno, "cannot create '%s'", tf->tmp);
		free(tf->tmp);
		tf->tmp = NULL;
		return -err->code;
	}
	return 0;
}

static int file_done(struct target_file *tf, struct err *err)
{
	int rc = 0;

	if (!tf->tmp && !tf->in_place)
		rc = give_name(tf, err);
	if (rc || tf->in_place)
		return rc;
	if (!tf->replace ? renameat2(AT_FDCWD, tf->tmp, AT_FDCWD, tf->final,
				     RENAME_NOREPLACE)
			 : rename(tf->tmp, tf->final))
		return err_sys(err, errno, "cannot rename '%s' to '%s'", tf->tmp,
			       tf->final);
	free(tf->tmp);
	tf->tmp = NULL;
	return 0;
}

static int sync_folder(const char *path, struct err *err)
{
	char *dir = dir_of(path);
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, rc = 0;

	/* Some file systems cannot; that is no failure. */
	if (fd >= 0 && fsync(fd) < 0 && errno == EIO)
		rc = err_sys(err, errno, "cannot write folder '%s'", dir);
	if (fd >= 0)
		close(fd);
	free(dir);
	return rc;
}

int target_commit(struct img_target *t, struct err *err)
{
	int rc = 0;

	for (struct target_file *tf = t->files; tf && !rc && !t->no_sync;
	     tf = tf->next) {
		rc = file_commit(tf->file);
		if (rc)
			err_sys(err, -rc, "cannot write '%s'", tf->final);
	}
	for (struct target_file *tf = t->files; tf && !rc; tf = tf->next) {
		rc = file_release(tf->file, !t->no_sync);
		if (rc)
			err_sys(err, -rc, "cannot write '%s'", tf->final);
	}
	/* The main file, which refers to the others, stands last in the list. */
	for (struct target_file *tf = t->files; tf && !rc; tf = tf->next)
		rc = file_done(tf, err);
	if (!rc && !t->stream && !t->no_sync)
		rc = sync_folder(t->path, err);
	target_abort(t);
	return rc;
}
