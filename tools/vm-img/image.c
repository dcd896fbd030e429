/* vm-img/image.c - opening images for the sub-commands, printing, long jobs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/secret.h"
#include "pack/openany.h"
#include "pack/tar.h"
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

int image_opts(struct common *c, const char **name, const char **format)
{
	const char *text = *name;

	return c->image_opts ? parse_image_opts(text, c, format, name) : 0;
}

/* ---- opening ---- */

static int open_path(const char *path, const struct img_opts *o, unsigned flags,
		     struct package **want, struct img **out, struct err *err)
{
	bool ours = !as_qemu_img && !(flags & OPEN_WRITE);
	struct img_opts shared = *o;
	int rc;

	rc = ours ? pack_open_image(path, o, &stop, want, out, err)
		  : img_open(path, o, out, err);
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

int open_package(const char *name, struct package **p, struct rootfs **tree,
		 struct err *err)
{
	return pack_open_package(name, &stop, p, tree, err);
}

/* A tar file is no disk, and copying its bytes to one is not what anybody wants. */
static int refuse_tar(struct img **img, const char *name)
{
	uint8_t head[512];
	struct err err;

	if (strcmp(img_format_name(*img), "raw") || img_size(*img) < sizeof(head) ||
	    img_read(*img, head, 0, sizeof(head)) ||
	    !tar_looks_like(head, sizeof(head)))
		return 0;
	img_close(*img);
	*img = NULL;
	err_set(&err, EINVAL,
		"'%s' is an archive of files: 'vm-img import' makes a disk of them, "
		"-f raw takes it as it is",
		name);
	return fail(&err);
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
	if (rc < 0)
		return fail(&err);
	return *out && flags & OPEN_COPY && !o.format && !as_qemu_img
		       ? refuse_tar(out, name)
		       : 0;
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
