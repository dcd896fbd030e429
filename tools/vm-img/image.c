/* vm-img/image.c - opening images for the sub-commands, printing, long jobs. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/secret.h"
#include "pack/spool.h"
#include "vm-img.h"

atomic_bool stop;
static volatile sig_atomic_t requests;

/* ---- images ---- */

/* "driver=FMT,file.filename=PATH" of --image-opts. */
static int parse_image_opts(const char *text, struct common *o, const char **format,
			    const char **path)
{
	int rc = options_add(o, text);

	*path = NULL;
	for (unsigned i = 0; !rc && i < o->n_options; i++) {
		const char *name = o->options[i].name, *value = o->options[i].value;
		size_t n = strlen(name);

		if (!strcmp(name, "driver") && !strcmp(value, "file"))
			*format = "raw";
		else if (!strcmp(name, "driver"))
			*format = value;
		else if (!strcmp(name, "filename") || !strcmp(name, "file.filename"))
			*path = value;
		else if (n > 10 && !strcmp(name + n - 10, "key-secret"))
			continue;
		else if (strcmp(name, "file.driver") || strcmp(value, "file"))
			return usage("--image-opts: '%s=%s' is not known", name, value);
	}
	if (!rc && !*path)
		return usage("--image-opts: 'file.filename=' is wanted");
	return rc;
}

/* ---- standard input, packed files ---- */

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
static int spool(int fd, const char *name, struct err *err)
{
	int tmp = img_temp_fd(err), rc = tmp < 0 ? tmp : 0;

	if (!rc)
		rc = spool_unpack(fd, name, tmp, &stop, err);
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
	return rc;
}

static int open_spooled(int fd, const char *name, const struct img_opts *o,
			struct package **want, struct img **out, struct err *err)
{
	struct package *p = NULL;
	int tmp = spool(fd, name, err), again, rc = 0;

	if (tmp < 0)
		return tmp;
	if (!o->format && (again = fcntl(tmp, F_DUPFD_CLOEXEC, 3)) >= 0)
		rc = package_open_fd(again, name, &stop, &p, err);
	if (rc || p)
		close(tmp);
	if (p)
		rc = take_package(p, want, name, o, out, err);
	else if (!rc)
		rc = img_open_fd(tmp, name, o, out, err);
	return rc;
}

int open_package(const char *name, struct package **p, struct rootfs **tree,
		 struct err *err)
{
	bool in = !strcmp(name, "-");
	int fd, again, rc;

	*p = NULL;
	*tree = NULL;
	if (in || is_packed(name, &fd)) {
		name = in ? "standard input" : name;
		fd = spool(in ? dup(STDIN_FILENO) : fd, name, err);
		if (fd < 0)
			return fd;
		again = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		rc = package_open_fd(fd, name, &stop, p, err);
		if (rc || *p) {
			close(again);
			return rc;
		}
		return rootfs_open_fd(again, name, &stop, tree, err);
	}
	rc = package_open(name, &stop, p, err);
	return rc || *p ? rc : rootfs_open(name, &stop, tree, err);
}

static int open_path(const char *path, const struct img_opts *o, unsigned flags,
		     struct package **want, struct img **out, struct err *err)
{
	bool ours = !as_qemu_img && !(flags & OPEN_WRITE);
	struct img_opts shared = *o;
	struct package *p = NULL;
	int rc, fd;

	if (ours && !strcmp(path, "-"))
		return open_spooled(dup(STDIN_FILENO), "standard input", o, want, out,
				    err);
	if (ours && !o->format && is_packed(path, &fd))
		return open_spooled(fd, path, o, want, out, err);
	if (ours && !o->format && !access(path, R_OK)) {
		rc = package_open(path, &stop, &p, err);
		if (rc || p)
			return rc ? rc : take_package(p, want, path, o, out, err);
	}
	rc = img_open(path, o, out, err);

	if (rc != -EBUSY || flags & (OPEN_WRITE | OPEN_COPY) || as_qemu_img)
		return rc;
	shared.no_lock = true;
	rc = img_open(path, &shared, out, err);
	if (!rc)
		fprintf(stderr,
			"%s: note: '%s' is in use: what is read may be changing\n",
			page.name, path);
	return rc;
}

/* The same with a passphrase from the terminal, if there is one. */
static int open_asking(const char *path, struct img_opts *o, unsigned flags,
		       struct package **want, struct img **out, struct err *err)
{
	struct err no_terminal;
	char *secret;
	int rc = cli_secret_ask(path, &secret, &o->secret_len, &no_terminal);

	if (rc) /* what the image said tells more */
		return -ENOKEY;
	o->secret = secret;
	rc = open_path(path, o, flags, want, out, err);
	cli_secret_free(secret, o->secret_len);
	return rc;
}

int image_open_any(const struct common *c, const char *name, const char *format,
		   unsigned flags, const char *snapshot, struct package **want,
		   struct img **out)
{
	static struct common list;
	struct img_opts o = {
		.format = format,
		.read_only = !(flags & OPEN_WRITE),
		.no_backing = flags & OPEN_NO_BACKING,
		.repair = flags & OPEN_REPAIR,
		.overwrite = flags & OPEN_OVERWRITE,
		.no_lock = c->share,
		.no_sync = c->cache && !strcmp(c->cache, "unsafe"),
		.allow_external = c->allow_external ? c->allow_external
				  : as_qemu_img     ? "/"
						    : NULL,
		.snapshot_name = snapshot,
	};
	const char *path = name;
	struct err err = {0};
	int rc = 0;

	*out = NULL;
	list = *c;
	if (c->image_opts) {
		list.n_options = 0;
		rc = parse_image_opts(name, &list, &o.format, &path);
	}
	if (!rc)
		rc = find_secret(&list, &o.secret, &o.secret_len);
	if (rc)
		return rc;
	rc = open_path(path, &o, flags, want, out, &err);
	if (rc == -ENOKEY && !as_qemu_img)
		rc = open_asking(path, &o, flags, want, out, &err);
	return rc < 0 ? fail(&err) : 0;
}

int image_open(const struct common *c, const char *name, const char *format,
	       unsigned flags, const char *snapshot, struct img **out)
{
	return image_open_any(c, name, format, flags, snapshot, NULL, out);
}

int image_close(struct img *img)
{
	char *path = img ? strdup(img_path(img)) : NULL;
	int rc = img_close(img);
	struct err err;

	if (rc)
		err_sys(&err, -rc, "cannot write '%s'", path ? path : "");
	free(path);
	return rc ? fail(&err) : 0;
}

/* ---- output ---- */

int print_json(struct json *j)
{
	bool failed = j->s.failed;

	if (!failed)
		fputs(j->s.p, stdout);
	else
		fprintf(stderr, "%s: no memory\n", page.name);
	json_fini(j);
	return failed ? CLI_FAILED : CLI_DONE;
}

/* ---- long jobs ---- */

static void on_stop(int sig)
{
	(void)sig;
	if (stop) /* the second time: at once */
		_exit(130);
	stop = true;
}

static void on_request(int sig)
{
	(void)sig;
	requests++;
}

static void handle(int sig, void (*f)(int))
{
	struct sigaction sa = {.sa_handler = f, .sa_flags = SA_RESTART};

	sigaction(sig, &sa, NULL);
}

void job_start(const struct common *c, struct cli_progress *p)
{
	*p = (struct cli_progress){.name = page.name, .request = &requests};
	if (c->progress_fd) {
		p->kind = CLI_PROGRESS_LINES;
		p->fd = atoi(c->progress_fd);
	} else if (c->quiet) {
		p->kind = CLI_PROGRESS_NONE;
	} else if (as_qemu_img && c->progress) {
		p->kind = CLI_PROGRESS_QEMU;
	} else if (c->progress || (!as_qemu_img && isatty(STDERR_FILENO))) {
		p->kind = CLI_PROGRESS_BAR;
	}
	handle(SIGINT, on_stop);
	handle(SIGTERM, on_stop);
	handle(SIGHUP, on_stop);
	handle(SIGUSR1, on_request);
	signal(SIGPIPE, SIG_IGN);
	cli_progress_start(p);
}

void job_progress(void *ctx, uint64_t done, uint64_t total)
{
	cli_progress_update(ctx, done, total);
}
