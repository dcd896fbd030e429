/* vm-run/backends.c - disks, networks and serial lines by their options. Main thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "cli/secret.h"
#include "host/disk.h"
#include "pack/openany.h"
#include "vm-run.h"

#define WORKERS 4 /* a disk */

/* What cannot be written may be readable. */
static int tell_snapshot(const char *path, const struct img_opts *o, int rc,
			 struct err *err)
{
	struct img_opts ro = *o;
	struct img *img = NULL;
	size_t n = strlen(err->msg);

	ro.read_only = true;
	if (rc == -EROFS || rc == -ENOTSUP || rc == -EACCES || rc == -EPERM) {
		pack_open_image(path, &ro, NULL, NULL, &img, NULL);
		if (img)
			snprintf(err->msg + n, sizeof(err->msg) - n,
				 "; with ',snapshot' behind its name the guest writes "
				 "to a temporary file");
		img_close(img);
	}
	return rc;
}

/* To read, anything that holds one disk; to write, images. */
static int open_image(const char *path, const struct img_opts *o, struct img **out,
		      struct err *err)
{
	int rc;

	if (!strcmp(path, "-"))
		return img_open(path, o, out, err);
	if (o->read_only || o->snapshot)
		return pack_open_image(path, o, NULL, NULL, out, err);
	if (!o->format && pack_is_sealed(path))
		rc = err_set(err, EROFS, "disk '%s' is in a package, or packed", path);
	else
		rc = img_open(path, o, out, err);
	return rc && rc != -ENOKEY ? tell_snapshot(path, o, rc, err) : rc;
}

static int take_disk(const struct disk_opts *d, struct pc_config *cfg, struct err *err)
{
	struct blk *b = disk_open(d, WORKERS, err);

	if (!b)
		return -err->code;
	cfg->disks[cfg->n_disks++] = b;
	return 0;
}

static int open_disk(const struct options *o, const char *text, struct pc_config *cfg,
		     struct err *err)
{
	struct disk_opts d;
	int rc = disk_opts_parse(text, &d, err);

	d.open = open_image;
	d.snapshot |= o->snapshot != 0;
	if (!rc && d.key_file)
		rc = cli_secret_file(d.key_file, &d.secret, &d.secret_len, err);
	if (!rc)
		rc = take_disk(&d, cfg, err);
	/* Encrypted: whoever sits at the terminal may know the passphrase. */
	if (rc == -ENOKEY && !cli_secret_ask(d.path, &d.secret, &d.secret_len, NULL))
		rc = take_disk(&d, cfg, err);
	disk_opts_free(&d);
	return rc;
}

/* ---- networks ---- */

static int open_user_net(const struct options *o, struct pc *pc, struct pc_config *cfg,
			 const struct log *log, struct err *err)
{
	struct net_forward fwd[ARRAY_LEN(o->forwards)];

	for (unsigned i = 0; i < o->n_forwards; i++) {
		int rc = net_forward_parse(o->forwards[i], &fwd[i], err);

		if (rc)
			return rc;
	}
	cfg->nets[cfg->n_nets] =
		net_user_new(pc_loop(pc), fwd, o->n_forwards, log, err);
	return cfg->nets[cfg->n_nets] ? 0 : -err->code;
}

static int open_net(const struct options *o, const char *kind, struct pc *pc,
		    struct pc_config *cfg, const struct log *log, struct err *err)
{
	uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, (uint8_t)(0x56 + cfg->n_nets)};
	int rc = 0;

	if (!strcmp(kind, "none"))
		return 0;
	if (!strcmp(kind, "user")) {
		rc = open_user_net(o, pc, cfg, log, err);
	} else if (!strncmp(kind, "tap=", 4)) {
		cfg->nets[cfg->n_nets] = net_tap_new(pc_loop(pc), kind + 4, err);
		rc = cfg->nets[cfg->n_nets] ? 0 : -err->code;
	} else {
		return err_set(err, EINVAL,
			       "'--net %s': none, user or tap=IFNAME is wanted", kind);
	}
	if (!rc)
		memcpy(cfg->nets[cfg->n_nets++]->mac, mac, sizeof(mac));
	return rc;
}

bool backends_use_network(const struct options *o)
{
	bool user = o->n_forwards > 0;

	for (unsigned i = 0; i < o->n_nets; i++)
		user |= !strcmp(o->nets[i], "user");
	return user;
}

/* ---- serial lines ---- */

static bool is_socket(const char *where)
{
	return where && !strncmp(where, "socket:", 7);
}

bool backends_use_listeners(const struct options *o)
{
	bool any = is_socket(o->console) || is_socket(o->debug);

	for (unsigned i = 0; i < o->n_serials; i++)
		any |= is_socket(o->serials[i]);
	return any;
}

struct serial_env {
	struct loop *loop;
	const struct chr_filter *escape;
	const struct log *log;
	bool stdio_used;
};

/* The stream that `where` names; *chr stays NULL for "none". */
static int open_serial(struct serial_env *env, const char *option, const char *where,
		       struct chr **chr, struct err *err)
{
	*chr = NULL;
	if (!strcmp(where, "none"))
		return 0;
	if (!strcmp(where, "stdio")) {
		if (env->stdio_used)
			return err_set(err, EINVAL,
				       "only one serial line can be stdio");
		env->stdio_used = true;
		*chr = chr_fd_new(env->loop, STDIN_FILENO, STDOUT_FILENO, env->escape,
				  err);
	} else if (!strcmp(where, "pty")) {
		*chr = chr_pty_new(env->loop, env->log, err);
	} else if (!strncmp(where, "file:", 5)) {
		*chr = chr_file_new(env->loop, where + 5, err);
	} else if (is_socket(where)) {
		*chr = chr_socket_new(env->loop, where + 7, err);
	} else {
		return err_set(err, EINVAL,
			       "'--%s %s': stdio, none, pty, file:PATH or socket:PATH "
			       "is wanted",
			       option, where);
	}
	return *chr ? 0 : -err->code;
}

static int open_serials(const struct options *o, struct serial_env *env,
			struct pc_config *cfg, struct err *err)
{
	bool console_stdio = o->console && !strcmp(o->console, "stdio");
	int rc = 0;

	if (!o->n_serials && !console_stdio)
		rc = open_serial(env, "serial", "stdio", &cfg->serial[0], err);
	for (unsigned i = 0; i < o->n_serials && !rc; i++)
		rc = open_serial(env, "serial", o->serials[i], &cfg->serial[i], err);
	if (!rc && o->console)
		rc = open_serial(env, "console", o->console, &cfg->console, err);
	if (!rc && o->debug)
		rc = open_serial(env, "debugcon", o->debug, &cfg->debug, err);
	return rc;
}

int backends_open(const struct options *o, struct pc *pc, struct pc_config *cfg,
		  const struct chr_filter *escape, const struct log *log,
		  struct err *err)
{
	struct serial_env env = {pc_loop(pc), escape, log, false};
	int rc = 0;

	for (unsigned i = 0; i < o->n_disks && !rc; i++)
		rc = open_disk(o, o->disks[i], cfg, err);
	for (unsigned i = 0; i < o->n_nets && !rc; i++)
		rc = open_net(o, o->nets[i], pc, cfg, log, err);
	if (!rc && o->n_forwards && !o->n_nets)
		rc = open_net(o, "user", pc, cfg, log, err);
	return rc ? rc : open_serials(o, &env, cfg, err);
}
