/*
 * pack/rootfs.c - finds the layers of container images: `docker save` (manifest.json), OCI image layout (index.json, blobs), which
 * SHA-256 names; or takes a tar file or folder as the one layer. One thread.
 */
#include "pack/rootfs.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "pack/bootdisk.h"
#include "pack/ext4.h"
#include "pack/hash.h"
#include "pack/package_int.h"

#define MAX_JSON   (8u << 20)
#define MAX_LAYERS 500
#define MAX_NESTED 4

struct rootfs {
	const char *kind;
	struct package *p; /* the tar file's members, or the folder's name */
	struct tree_layer layer[MAX_LAYERS];
	char *name[MAX_LAYERS]; /* owned, of the layers */
	int fd[MAX_LAYERS];     /* owned; -1 */
	unsigned n;
	char *command; /* owned: what a container of it would run; NULL: not known */
};

void rootfs_close(struct rootfs *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < r->n; i++) {
		free(r->name[i]);
		if (r->fd[i] >= 0)
			close(r->fd[i]);
	}
	package_close(r->p);
	free(r->command);
	free(r);
}

const char *rootfs_kind(const struct rootfs *r)
{
	return r->kind;
}

unsigned rootfs_layers(const struct rootfs *r)
{
	return r->n;
}

/* ---- files inside ---- */

/* An open file of the image, with where it lies: -ENOENT. *own: descriptor of its own, or -1. */
static int place(struct rootfs *r, const char *name, struct tree_layer *l, int *own,
		 struct err *err)
{
	const struct package_file *f;
	struct stat st;
	char *path;
	int rc;

	*own = -1;
	if (r->p->fd >= 0) {
		f = package_name_ok(name) ? package_find_file(r->p, name) : NULL;
		if (!f)
			return err_set(err, ENOENT, "there is no '%.100s' in '%s'",
				       name, r->p->path);
		*l = (struct tree_layer){.fd = r->p->fd, .off = f->off, .len = f->size};
		return 0;
	}
	rc = package_beside(r->p, r->p->path, name, &path, err);
	if (rc)
		return rc;
	*own = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*own < 0 || fstat(*own, &st) < 0 || !S_ISREG(st.st_mode))
		rc = err_sys(err, *own < 0 ? errno : EINVAL, "cannot open '%s'", path);
	free(path);
	if (rc && *own >= 0) {
		close(*own);
		*own = -1;
	}
	if (!rc)
		*l = (struct tree_layer){.fd = *own, .len = (uint64_t)st.st_size};
	return rc;
}

static json_t *load(struct rootfs *r, const char *name, struct err *err)
{
	struct tree_layer l = {0};
	json_t *j = NULL;
	json_error_t why;
	char *text;
	int own, rc = place(r, name, &l, &own, err);

	if (rc)
		return NULL;
	text = l.len <= MAX_JSON ? malloc(l.len + 1) : NULL;
	if (!text)
		err_set(err, EFBIG, "'%.80s' in '%s' is too large", name, r->p->path);
	else if (fd_pread_full(l.fd, text, l.len, l.off) != (int64_t)l.len)
		err_set(err, EIO, "cannot read '%.80s' in '%s'", name, r->p->path);
	else if (!(j = json_loadb(text, l.len, 0, &why)))
		err_set(err, EINVAL, "'%.80s' in '%s' is not JSON: line %d: %.80s",
			name, r->p->path, why.line, why.text);
	free(text);
	if (own >= 0)
		close(own);
	return j;
}

static int bad(const struct rootfs *r, const char *what, struct err *err)
{
	return err_set(err, EINVAL, "'%s' is damaged: %s", r->p->path, what);
}

/* ---- layers ---- */

/* `digest`: SHA-256 as text that it must have; NULL: none is known. */
static int add_layer(struct rootfs *r, const char *name, const char *digest,
		     struct err *err)
{
	struct tree_layer *l = &r->layer[r->n];
	char text[HASH_TEXT];
	int rc;

	if (r->n == MAX_LAYERS)
		return bad(r, "it has too many layers", err);
	rc = place(r, name, l, &r->fd[r->n], err);
	if (rc)
		return rc;
	r->name[r->n] = strdup(name);
	l->name = r->name[r->n++];
	if (!l->name)
		return err_set(err, ENOMEM, "no memory to open '%s'", r->p->path);
	if (!digest)
		return 0;
	rc = hash_file("sha256", l->fd, l->off, l->len, r->p->stop, text);
	if (rc)
		return err_sys(err, -rc, "cannot read '%.80s' in '%s'", name,
			       r->p->path);
	if (strcasecmp(text, digest))
		return err_set(err, EBADMSG,
			       "'%.80s' in '%s' is damaged: its SHA-256 is not its "
			       "name",
			       name, r->p->path);
	return 0;
}

/* The words of a JSON list behind those that are there: false if one could not stand on a command line. */
static bool add_words(char **text, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *w = json_string_value(json_array_get(list, i));
		char *longer;

		if (!w || !*w || strlen(w) != strcspn(w, " \t\n\"'\\") ||
		    asprintf(&longer, "%s%s%s", *text ? *text : "", *text ? " " : "",
			     w) < 0)
			return false;
		free(*text);
		*text = longer;
	}
	return true;
}

/* What the image's configuration says that a container runs; none is no failure. */
static void take_command(struct rootfs *r, const char *config)
{
	struct err err;
	json_t *j = config ? load(r, config, &err) : NULL;
	const json_t *c = json_object_get(j, "config");

	if (!add_words(&r->command, json_object_get(c, "Entrypoint")) ||
	    !add_words(&r->command, json_object_get(c, "Cmd"))) {
		free(r->command);
		r->command = NULL;
	}
	json_decref(j);
}

static int docker(struct rootfs *r, struct err *err)
{
	json_t *top = load(r, "manifest.json", err), *layers, *one;
	size_t i;
	int rc = 0;

	if (!top)
		return -err->code;
	layers = json_object_get(json_array_get(top, 0), "Layers");
	if (!json_is_array(layers))
		rc = bad(r, "its manifest has no layers", err);
	else if (json_array_size(top) != 1)
		rc = err_set(err, ENOTSUP,
			     "'%s' holds %zu images: save the one that is wanted",
			     r->p->path, json_array_size(top));
	for (i = 0; !rc && i < json_array_size(layers); i++) {
		one = json_array_get(layers, i);
		rc = json_is_string(one)
			     ? add_layer(r, json_string_value(one), NULL, err)
			     : bad(r, "its manifest names no layer", err);
	}
	if (!rc)
		take_command(r, json_string_value(json_object_get(
					json_array_get(top, 0), "Config")));
	json_decref(top);
	return rc;
}

/* "blobs/sha256/HEX" of a descriptor; *hex points into it. */
static char *blob_name(const json_t *desc, const char **hex)
{
	const char *digest = json_string_value(json_object_get(desc, "digest"));
	char *name = NULL;

	if (!digest || strncmp(digest, "sha256:", 7) ||
	    strspn(digest + 7, "0123456789abcdef") != 64 || digest[71])
		return NULL;
	if (asprintf(&name, "blobs/sha256/%s", digest + 7) < 0)
		return NULL;
	*hex = name + 13;
	return name;
}

static int oci_layers(struct rootfs *r, const json_t *manifest, struct err *err)
{
	const json_t *layers = json_object_get(manifest, "layers");
	int rc = json_is_array(layers) ? 0 : bad(r, "its manifest has no layers", err);

	for (size_t i = 0; !rc && i < json_array_size(layers); i++) {
		const char *hex;
		char *name = blob_name(json_array_get(layers, i), &hex);

		rc = name ? add_layer(r, name, hex, err)
			  : bad(r, "a layer has no SHA-256 digest", err);
		free(name);
	}
	if (!rc) {
		const char *hex;
		char *name = blob_name(json_object_get(manifest, "config"), &hex);

		take_command(r, name);
		free(name);
	}
	return rc;
}

/* The manifest for this kind of computer; else the only one. */
static const json_t *choose(const json_t *manifests)
{
	for (size_t i = 0; i < json_array_size(manifests); i++) {
		const json_t *m = json_array_get(manifests, i);
		const json_t *on = json_object_get(m, "platform");
		const char *arch =
			json_string_value(json_object_get(on, "architecture"));
		const char *os = json_string_value(json_object_get(on, "os"));

		if (arch && os && !strcmp(arch, "amd64") && !strcmp(os, "linux"))
			return m;
	}
	return json_array_size(manifests) == 1 ? json_array_get(manifests, 0) : NULL;
}

static int oci(struct rootfs *r, struct err *err)
{
	json_t *at = load(r, "index.json", err);
	int rc = at ? 0 : -err->code;

	for (unsigned depth = 0; !rc; depth++) {
		const json_t *manifests = json_object_get(at, "manifests"), *one;
		const char *hex;
		char *name;

		if (!manifests) {
			rc = oci_layers(r, at, err);
			break;
		}
		one = choose(manifests);
		name = one ? blob_name(one, &hex) : NULL;
		if (depth == MAX_NESTED || !name) {
			free(name);
			rc = err_set(err, ENOTSUP,
				     "'%s' holds no image for linux/amd64, or several",
				     r->p->path);
			break;
		}
		json_decref(at);
		at = load(r, name, err);
		free(name);
		rc = at ? 0 : -err->code;
	}
	json_decref(at);
	return rc;
}

/* ---- opening ---- */

static int collect(void *ctx, const struct tar_entry *e, struct err *err)
{
	return package_add_file(ctx, e, err);
}

static bool has(const struct package *p, const char *name)
{
	char *path;
	bool is;

	if (p->fd >= 0)
		return package_find_file(p, name);
	if (asprintf(&path, "%s/%s", p->path, name) < 0)
		return false;
	is = !access(path, F_OK);
	free(path);
	return is;
}

static int open_tree(struct rootfs *r, struct err *err)
{
	struct package *p = r->p;
	int rc = p->fd >= 0 ? tar_walk(p->fd, p->path, collect, p, p->stop, err) : 0;

	/* As many files as no container image has, or sparse ones: a tree itself. */
	if (rc && rc != -EFBIG && rc != -ENOTSUP)
		return rc;
	if (!rc && has(p, "manifest.json")) {
		r->kind = "docker";
		return docker(r, err);
	}
	if (!rc && has(p, "index.json") && has(p, "oci-layout")) {
		r->kind = "oci";
		return oci(r, err);
	}
	r->kind = p->fd >= 0 ? "tar" : "folder";
	r->layer[0] = (struct tree_layer){
		.fd = p->fd, .len = UINT64_MAX, .path = p->path, .name = p->path};
	r->fd[0] = -1;
	r->n = 1;
	return 0;
}

/* Takes `fd` over. */
static int open_any(int fd, const char *name, const atomic_bool *stop,
		    struct rootfs **out, struct err *err)
{
	struct rootfs *r = NEW(struct rootfs);
	int rc = 0;

	if (!r || !(r->p = NEW(struct package))) {
		free(r);
		if (fd >= 0)
			close(fd);
		return err_set(err, ENOMEM, "no memory to open '%s'", name);
	}
	r->p->fd = fd;
	r->p->stop = stop;
	r->p->path = strdup(name);
	rc = r->p->path ? open_tree(r, err)
			: err_set(err, ENOMEM, "no memory to open '%s'", name);
	if (rc) {
		rootfs_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

int rootfs_open_fd(int fd, const char *name, const atomic_bool *stop,
		   struct rootfs **out, struct err *err)
{
	uint8_t head[512];

	*out = NULL;
	if (fd_pread_full(fd, head, sizeof(head), 0) != sizeof(head) ||
	    !tar_looks_like(head, sizeof(head))) {
		close(fd);
		return 0;
	}
	return open_any(fd, name, stop, out, err);
}

int rootfs_open(const char *path, const atomic_bool *stop, struct rootfs **out,
		struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	*out = NULL;
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (!fstat(fd, &st) && S_ISDIR(st.st_mode)) {
		bool bundle = !faccessat(fd, "DiskDescriptor.xml", F_OK, 0);

		close(fd);
		if (bundle) /* a disk image of Parallels */
			return 0;
		return open_any(-1, path, stop, out, err);
	}
	return rootfs_open_fd(fd, path, stop, out, err);
}

/* ---- making a disk ---- */

int rootfs_add_tar(struct rootfs *r, int fd, struct err *err)
{
	if (r->n == MAX_LAYERS)
		return bad(r, "it has too many layers", err);
	r->layer[r->n] =
		(struct tree_layer){.fd = fd, .len = UINT64_MAX, .name = "the kernel"};
	r->fd[r->n++] = -1;
	return 0;
}

int rootfs_write(struct rootfs *r, int fd, struct rootfs_disk *d, struct err *err)
{
	struct tree t;
	int rc = tree_build(&t, r->layer, r->n, r->p->stop, err);
	uint64_t size = d->size;

	if (!rc && !size)
		size = ext4_size_for(&t);
	if (!rc)
		rc = bootdisk_write(fd, size, d, r->command, &t, r->layer, r->n, err);
	tree_fini(&t);
	return rc;
}
