/* vm-img/image.c - opening images for the sub-commands, printing, long jobs. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Is the file packed as a whole? Formats' own marks are others. */
static bool is_packed(const char *path, int *fd)
{
	char head[8];
	ssize_t n;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	n = *fd < 0 ? -1 : pread(*fd, head, sizeof(head), 0);
	if (n > 0 && spool_is_packed(head, (size_t)n))
		return true;
	if (*fd >= 0)
		close(*fd);
	return false;
}

/* Opens what is in a pipe or a packed file, by way of a temporary file. Takes `fd` over. */
static int open_spooled(int fd, const char *name, const struct img_opts *o,
			struct img **out, struct err *err)
{
	int tmp = img_temp_fd(err), rc;

	if (tmp < 0) {
		close(fd);
		return tmp;
	}
	rc = spool_unpack(fd, name, tmp, &stop, err);
	close(fd);
	if (rc) {
		close(tmp);
		return rc;
	}
	return img_open_fd(tmp, name, o, out, err);
}

static int open_path(const char *path, const struct img_opts *o, unsigned flags,
		     struct img **out, struct err *err)
{
	struct img_opts shared = *o;
	int rc, fd;

	if (!as_qemu_img && !strcmp(path, "-") && !(flags & OPEN_WRITE))
		return open_spooled(dup(STDIN_FILENO), "standard input", o, out, err);
	if (!as_qemu_img && !o->format && !(flags & OPEN_WRITE) && is_packed(path, &fd))
		return open_spooled(fd, path, o, out, err);
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

int image_open(const struct common *c, const char *name, const char *format,
	       unsigned flags, const char *snapshot, struct img **out)
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
		.secret = find_secret(c),
	};
	const char *path = name;
	struct err err = {0};

	*out = NULL;
	if (c->image_opts) {
		int rc;

		list = *c;
		list.n_options = 0;
		rc = parse_image_opts(name, &list, &o.format, &path);
		if (rc)
			return rc;
		o.secret = find_secret(&list);
	}
	return open_path(path, &o, flags, out, &err) < 0 ? fail(&err) : 0;
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
