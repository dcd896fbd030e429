/*
 * pack/ova.c - OVA (a tar file with an OVF description, a manifest, disks), the same as files in a folder, and Vagrant boxes
 * (a tar file, usually packed, with an OVF, or with disk images alone). One thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "pack/package_int.h"

#define MAX_MANIFEST (1u << 20)
#define MAX_OVF      (16u << 20)

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), e = strlen(end);

	return n > e && !strcasecmp(name + n - e, end);
}

/* ---- tar files ---- */

static int collect(void *ctx, const struct tar_entry *e, struct err *err)
{
	return package_add_file(ctx, e, err);
}

static const struct package_file *file_like(const struct package *p, const char *end)
{
	for (unsigned i = 0; i < p->n_files; i++)
		if (ends_with(p->file[i].name, end))
			return &p->file[i];
	return NULL;
}

static int find_in_tar(struct package *p, struct package_disk *d, const char *href,
		       struct err *err)
{
	const struct package_file *f =
		package_name_ok(href) ? package_find_file(p, href) : NULL;

	if (!f)
		return err_set(err, ENOENT, "'%s' names '%.80s', which is not in it",
			       p->path, href);
	d->off = f->off;
	d->len = f->size;
	return 0;
}

static int load_manifest(struct package *p, const struct package_file *f,
			 struct err *err)
{
	void *text;
	int rc = package_load(p, f, MAX_MANIFEST, &text, err);

	if (!rc)
		rc = package_manifest(p, text, err);
	free(text);
	return rc;
}

static int open_ovf_in_tar(struct package *p, const struct package_file *ovf,
			   struct err *err)
{
	const struct package_file *mf = file_like(p, ".mf");
	void *text;
	int rc = package_load(p, ovf, MAX_OVF, &text, err);

	if (!rc)
		rc = ovf_read(p, text, ovf->size, ovf->name, find_in_tar, err);
	free(text);
	if (!rc && mf)
		rc = load_manifest(p, mf, err);
	return rc;
}

static bool tar_probe(const char *path, const uint8_t *head, size_t len)
{
	(void)path;
	return head && tar_looks_like(head, len);
}

/* The members' names say what it is: an archive without any is none of ours. */
static int ova_open(struct package *p, struct err *err)
{
	const struct package_file *ovf;
	int rc = tar_walk(p->fd, p->path, collect, p, p->stop, err);

	if (rc == -EFBIG) /* so many files are a tree */
		return 1;
	ovf = rc ? NULL : file_like(p, ".ovf");
	if (rc || !ovf || file_like(p, "metadata.json"))
		return rc ? rc : 1;
	return open_ovf_in_tar(p, ovf, err);
}

const struct package_kind package_ova = {
	.name = "ova",
	.title = "Open Virtualization Format archive",
	.probe = tar_probe,
	.open = ova_open,
	.verify = package_verify_files,
};

/* ---- boxes ---- */

static bool is_disk_name(const char *name)
{
	static const char *const ends[] = {".vmdk",  ".vhd", ".vhdx", ".vdi",
					   ".qcow2", ".img", ".raw",  ".hds"};

	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (ends_with(name, ends[i]))
			return true;
	return false;
}

static int box_open(struct package *p, struct err *err)
{
	const struct package_file *ovf;
	int rc = tar_walk(p->fd, p->path, collect, p, p->stop, err);

	if (rc == -EFBIG)
		return 1;
	if (rc ||
	    (!file_like(p, "metadata.json") && !package_find_file(p, "Vagrantfile")))
		return rc ? rc : 1;
	ovf = file_like(p, ".ovf");
	if (ovf)
		return open_ovf_in_tar(p, ovf, err);
	for (unsigned i = 0; i < p->n_files && !rc; i++) {
		struct package_disk *d;

		if (!is_disk_name(p->file[i].name))
			continue;
		d = package_add_disk(p, p->file[i].name, err);
		if (!d)
			return -err->code;
		d->off = p->file[i].off;
		d->len = p->file[i].size;
	}
	return p->n_disks ? 0 : 1;
}

const struct package_kind package_box = {
	.name = "box",
	.title = "Vagrant box",
	.probe = tar_probe,
	.open = box_open,
	.verify = package_verify_files,
};

/* ---- a description beside its files ---- */

static bool ovf_probe(const char *path, const uint8_t *head, size_t len)
{
	return head && ends_with(path, ".ovf") && memmem(head, len, "<", 1) &&
	       memmem(head, len, "nvelope", 7);
}

static int find_beside(struct package *p, struct package_disk *d, const char *href,
		       struct err *err)
{
	const char *slash = strrchr(p->path, '/');
	char *folder =
		slash ? strndup(p->path, (size_t)(slash - p->path) + 1) : strdup(".");
	int rc = folder ? package_beside(p, folder, href, &d->path, err)
			: err_set(err, ENOMEM, "no memory to open '%s'", p->path);

	free(folder);
	return rc;
}

/* NAME.mf beside NAME.ovf */
static int manifest_beside(struct package *p, struct err *err)
{
	size_t n = strlen(p->path) - 4, len;
	struct err none;
	char *path;
	void *text;
	int rc;

	if (asprintf(&path, "%.*s.mf", (int)n, p->path) < 0)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	rc = fd_load_file(path, MAX_MANIFEST, &text, &len, &none);
	free(path);
	if (rc == -ENOENT)
		return 0;
	if (rc) {
		*err = none;
		return rc;
	}
	rc = package_manifest(p, text, err);
	free(text);
	return rc;
}

static int ovf_open(struct package *p, struct err *err)
{
	size_t len;
	void *text;
	int rc = fd_load_file(p->path, MAX_OVF, &text, &len, err);

	if (rc)
		return rc;
	rc = ovf_read(p, text, len, p->path, find_beside, err);
	free(text);
	return rc ? rc : manifest_beside(p, err);
}

const struct package_kind package_ovf = {
	.name = "ovf",
	.title = "Open Virtualization Format, in a folder",
	.probe = ovf_probe,
	.open = ovf_open,
	.verify = package_verify_files,
};
