/* img/vmdk/create.c - makes empty VMDK images. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/str.h"
#include "img/parent.h"
#include "img/vmdk/vmdk_int.h"

#define PIECE      (2ull << 30) /* of a split image */
#define DESC_AT    1            /* sectors */
#define DESC_LEN   20
#define GRAIN      128
#define GTES       512
#define MAX_SPARSE (2ull << 40)
#define ADAPTERS   "ide|buslogic|lsilogic|legacyESX"
#define SUBFORMATS                                                                 \
	"monolithicSparse|monolithicFlat|twoGbMaxExtentSparse|twoGbMaxExtentFlat|" \
	"streamOptimized|vmfs|vmfsSparse"

/* clang-format off */
const struct img_option_desc vmdk_options[] = {
	{"subformat", OPTION_TEXT, SUBFORMATS, "monolithicSparse", "how the disk is laid out in files"},
	{"adapter_type", OPTION_TEXT, ADAPTERS, "ide", "the controller that the disk is for"},
	{"hwversion", OPTION_NUMBER, NULL, "4", "version of the virtual hardware"},
	{"toolsversion", OPTION_NUMBER, NULL, "2147483647", "version of VMware Tools in the guest"},
	{"compat6", OPTION_BOOL, NULL, "off", "hardware version 6"},
	{"zeroed_grain", OPTION_BOOL, NULL, "off", "grains can be marked as zeros"},
	{0},
};

struct layout {
	const char *name, *line, *suffix;
	bool sparse, split, cowd;
};

/* What is not in the main file has a suffix. */
static const struct layout layouts[] = {
	{"monolithicSparse", "SPARSE", NULL, .sparse = true},
	{"monolithicFlat", "FLAT", "flat", .sparse = false},
	{"twoGbMaxExtentSparse", "SPARSE", "s", .sparse = true, .split = true},
	{"twoGbMaxExtentFlat", "FLAT", "f", .split = true},
	{"vmfs", "VMFS", "flat", .sparse = false},
	{"vmfsSparse", "VMFSSPARSE", "delta", .cowd = true},
};
/* clang-format on */

/* ---- the descriptor ---- */

int vmdk_target_name(const struct img_target *t, const char **name, struct err *err)
{
	const char *slash = strrchr(t->path, '/');

	*name = slash ? slash + 1 : t->path;
	if (strpbrk(*name, "\"\n\r"))
		return err_set(err, EINVAL,
			       "'%s': a name with a quotation mark or a line break "
			       "cannot stand in a VMDK descriptor",
			       *name);
	return 0;
}

static int parent_take(struct vmdk_made *m, const struct img_target *t,
		       const struct img_create_opts *opts, struct err *err)
{
	struct img *parent;
	int rc;

	if (strpbrk(opts->backing_path, "\"\n\r"))
		return err_set(err, EINVAL, "'%s' cannot stand in a VMDK descriptor",
			       opts->backing_path);
	rc = parent_open_new(t, opts, &img_vmdk, &parent, err);
	if (rc)
		return rc;
	m->parent = opts->backing_path;
	m->parent_cid = ((struct vmdk *)parent->priv)->desc.cid;
	return img_close(parent);
}

int vmdk_made_fill(struct vmdk_made *m, const struct img_target *t,
		   const struct img_create_opts *opts, struct err *err)
{
	const struct img_option *o = opts->options;
	unsigned n = opts->n_options;
	bool compat6 = img_option_bool(o, n, "compat6", false);

	if (compat6 && img_option_text(o, n, "hwversion", NULL))
		return err_set(err, EINVAL, "compat6 and hwversion contradict");
	m->adapter = img_option_text(o, n, "adapter_type", "ide");
	m->hw_version = compat6 ? "6" : img_option_text(o, n, "hwversion", "4");
	m->tools_version = img_option_text(o, n, "toolsversion", "2147483647");
	m->size = align_up(opts->size, 512);
	m->parent_cid = VMDK_NO_PARENT;
	do {
		if (getrandom(&m->cid, sizeof(m->cid), 0) != sizeof(m->cid))
			return err_sys(err, errno, "no random numbers");
	} while (m->cid == VMDK_NO_PARENT);
	return opts->backing_path ? parent_take(m, t, opts, err) : 0;
}

/* ---- extents ---- */

/* Where things are in a sparse extent, sectors. */
struct plan {
	uint64_t n_gt, gd_len, rgd, gd, data;
};

static struct plan plan_extent(uint64_t size)
{
	uint64_t per_table = GRAIN * 512ull * GTES;
	struct plan p = {.n_gt = (size + per_table - 1) / per_table};

	p.gd_len = (p.n_gt * 4 + 511) / 512;
	p.rgd = DESC_AT + DESC_LEN;
	p.gd = p.rgd + p.gd_len + p.n_gt * 4;
	p.data = align_up(p.gd + p.gd_len + p.n_gt * 4, GRAIN);
	return p;
}

static int put_gd(struct img_file *f, uint64_t at, const struct plan *p)
{
	le32 *gd = mem_new(p->gd_len * 128 + 1, sizeof(*gd));
	int rc;

	if (!gd)
		return -ENOMEM;
	for (uint64_t i = 0; i < p->n_gt; i++)
		gd[i] = le32_make((uint32_t)(at + p->gd_len + i * 4));
	rc = file_write(f, gd, at * 512, p->gd_len * 512);
	free(gd);
	return rc;
}

static int make_sparse(struct img_file *f, uint64_t size, bool zero_grains)
{
	struct plan p = plan_extent(size);
	struct vmdk_header h = {
		.magic = "KDMV",
		.version = le32_make(zero_grains ? 2 : 1),
		.flags = le32_make(VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT |
				   (zero_grains ? VMDK_FLAG_ZERO_GRAIN : 0)),
		.capacity = le64_make(size / 512),
		.grain = le64_make(GRAIN),
		.desc_off = le64_make(DESC_AT),
		.desc_len = le64_make(DESC_LEN),
		.gtes = le32_make(GTES),
		.rgd_off = le64_make(p.rgd),
		.gd_off = le64_make(p.gd),
		.overhead = le64_make(p.data),
		.newlines = "\n \r\n",
	};
	int rc;

	memcpy(h.magic, "KDMV", 4);
	rc = file_truncate(f, p.data * 512);
	if (!rc)
		rc = put_gd(f, p.rgd, &p);
	if (!rc)
		rc = put_gd(f, p.gd, &p);
	return rc ? rc : file_write(f, &h, 0, sizeof(h));
}

/* ESX's: tables are made when they are needed. */
static int make_cowd(struct img_file *f, uint64_t size)
{
	uint64_t n_gd = (size + COWD_GTES * 512ull - 1) / (COWD_GTES * 512ull);
	uint64_t end = 4 + align_up(n_gd * 4, 512) / 512;
	struct cowd_header h = {
		.version = le32_make(1),
		.flags = le32_make(3),
		.capacity = le32_make((uint32_t)(size / 512)),
		.grain = le32_make(1),
		.gd_off = le32_make(4),
		.n_gd = le32_make((uint32_t)n_gd),
		.free = le32_make((uint32_t)end),
	};
	int rc = file_truncate(f, end * 512);

	memcpy(h.magic, "COWD", 4);
	return rc ? rc : file_write(f, &h, 0, sizeof(h));
}

struct maker {
	struct img_target *t;
	const struct layout *l;
	const char *base; /* of the names, without ".vmdk" */
	bool zero_grains;
	struct str lines;
};

static int make_extent(struct maker *k, unsigned number, uint64_t size, struct err *err)
{
	struct img_file *f = k->t->file;
	char name[300];
	int rc = 0;

	if (k->l->split)
		snprintf(name, sizeof(name), "%s-%s%03u.vmdk", k->base, k->l->suffix,
			 number);
	else if (k->l->suffix)
		snprintf(name, sizeof(name), "%s-%s.vmdk", k->base, k->l->suffix);
	else
		snprintf(name, sizeof(name), "%s.vmdk", k->base);
	if (k->l->suffix)
		rc = target_add_file(k->t, name, &f, err);
	if (rc)
		return rc;
	if (k->l->sparse)
		rc = make_sparse(f, size, k->zero_grains);
	else if (k->l->cowd)
		rc = make_cowd(f, size);
	else
		rc = file_truncate(f, size);
	str_addf(&k->lines, "RW %llu %s \"%s\"%s\n", (unsigned long long)(size / 512),
		 k->l->line, name, strcmp(k->l->line, "FLAT") ? "" : " 0");
	return rc ? err_sys(err, -rc, "cannot write '%s'", name) : 0;
}

static int make_extents(struct maker *k, uint64_t size, struct err *err)
{
	uint64_t piece = k->l->split ? PIECE : max_u64(size, 512);
	unsigned number = 1;

	for (uint64_t at = 0; at < size || number == 1; at += piece) {
		int rc = make_extent(k, number++, min_u64(piece, size - at), err);

		if (rc)
			return rc;
	}
	return 0;
}

static int put_text(struct maker *k, struct vmdk_made *m, struct err *err)
{
	uint64_t at = k->l->suffix ? 0 : DESC_AT * 512;
	char *text;
	int rc;

	m->lines = k->lines.p;
	text = k->lines.failed ? NULL : vmdk_desc_make(m);
	if (!text)
		return err_set(err, ENOMEM, "no memory to create '%s'", k->t->path);
	if (at && strlen(text) > DESC_LEN * 512)
		rc = err_set(err, ENAMETOOLONG,
			     "the parent's name is too long for the image: %zu bytes",
			     strlen(m->parent ? m->parent : ""));
	else if ((rc = file_write(k->t->file, text, at, strlen(text))))
		err_sys(err, -rc, "cannot write '%s'", k->t->path);
	free(text);
	return rc;
}

int vmdk_create(struct img_target *t, const struct img_create_opts *opts,
		struct err *err)
{
	const char *sub = img_option_text(opts->options, opts->n_options, "subformat",
					  layouts[0].name);
	struct maker k = {.t = t,
			  .l = layouts,
			  .zero_grains = img_option_bool(opts->options, opts->n_options,
							 "zeroed_grain", false)};
	struct vmdk_made m = {.create_type = sub};
	const char *name;
	char base[256];
	int rc;

	if (!strcasecmp(sub, "streamOptimized"))
		return vmdk_stream_create(t, opts, err);
	while (strcasecmp(k.l->name, sub))
		k.l++;
	rc = vmdk_target_name(t, &name, err);
	if (rc)
		return rc;
	if (opts->size > (k.l->sparse && !k.l->split ? MAX_SPARSE : 62ull << 40) ||
	    (k.l->cowd && opts->size >= MAX_SPARSE))
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VMDK image of kind %s",
			       (unsigned long long)opts->size, sub);
	if (opts->backing_path && !k.l->sparse && !k.l->cowd)
		return err_set(err, EINVAL, "a flat image has no parent");
	snprintf(base, sizeof(base), "%s", name);
	if (strlen(base) > 5 && !strcasecmp(base + strlen(base) - 5, ".vmdk"))
		base[strlen(base) - 5] = 0;
	k.base = base;
	rc = vmdk_made_fill(&m, t, opts, err);
	if (!rc)
		rc = make_extents(&k, m.size, err);
	if (!rc)
		rc = put_text(&k, &m, err);
	str_fini(&k.lines);
	return rc;
}
