/* img/vdi/create.c - makes empty VDI images. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vdi/vdi_int.h"
#include "img/parent.h"

#define MB          (1u << 20)
#define DEFAULT_MAP 4096 /* where the map begins */

/* The geometry of a large IDE disk. */
static void geometry_fill(struct vdi_geometry *g, uint64_t size)
{
	g->cylinders = le32_make((uint32_t)min_u64(16383, size / 512 / (16 * 63)));
	g->heads = le32_make(16);
	g->sectors = le32_make(63);
	g->sector_size = le32_make(512);
}

/* What an image will be like. */
struct layout {
	uint64_t size, n_blocks;
	uint32_t block;
	bool fixed;
};

static uint64_t data_offset(const struct layout *l)
{
	return align_up(DEFAULT_MAP + 4ull * l->n_blocks, MB);
}

static int header_fill(struct vdi_header *h, const struct layout *l)
{
	int rc;

	memset(h, 0, sizeof(*h));
	strcpy(h->text, "<<< VirtualBox Disk Image >>>\n");
	h->magic = le32_make(VDI_MAGIC);
	h->version = le32_make(0x00010001);
	h->header_len = le32_make(VDI_LEN_1_1);
	h->type = le32_make(l->fixed ? VDI_FIXED : VDI_DYNAMIC);
	h->map_off = le32_make(DEFAULT_MAP);
	h->data_off = le32_make((uint32_t)data_offset(l));
	geometry_fill(&h->legacy, l->size);
	h->size = le64_make(l->size);
	h->block_size = le32_make(l->block);
	h->n_blocks = le32_make((uint32_t)l->n_blocks);
	h->n_used = le32_make(l->fixed ? (uint32_t)l->n_blocks : 0);
	rc = guid_make(&h->create, false);
	return rc ? rc : guid_make(&h->modify, false);
}

/* The map: no block anywhere, or each in its place. */
static int map_write(struct img_file *f, uint64_t at, uint64_t n, bool fixed)
{
	le32 *piece = mem_new(1024, sizeof(*piece));
	int rc = piece ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < n && !rc; i += 1024) {
		for (unsigned k = 0; k < 1024; k++)
			piece[k] = le32_make(fixed && i + k < n ? (uint32_t)(i + k)
								: VDI_FREE);
		rc = file_write(f, piece, at + i * 4, 4096);
	}
	free(piece);
	return rc;
}

/* clang-format off */
const struct img_option_desc vdi_options[] = {
	{"static", OPTION_BOOL, NULL, "off", "all blocks are in the file from the start"},
	{"preallocation", OPTION_TEXT, "off|metadata", "off", "metadata: as static"},
	{"block_size", OPTION_SIZE, NULL, "1M", "4k to 256M; other programs read 1M only"},
	{0},
};
/* clang-format on */

/* Makes it one in front of a parent, which is found by its identifier, in the same folder. */
static int header_parent(struct vdi_header *h, const struct img_target *t,
			 const struct img_create_opts *opts, struct err *err)
{
	struct img *parent;
	int rc;

	if (strchr(opts->backing_path, '/'))
		return err_set(err, EINVAL,
			       "the parent of a VDI image is in the same folder, '%s' "
			       "is not",
			       opts->backing_path);
	rc = parent_open_new(t, opts, &img_vdi, &parent, err);
	if (rc)
		return rc;
	h->type = le32_make(VDI_DIFF);
	h->parent = ((struct vdi *)parent->priv)->h.create;
	h->parent_modify = ((struct vdi *)parent->priv)->h.modify;
	return img_close(parent);
}

static int layout_plan(struct layout *l, const struct img_create_opts *opts,
		       struct err *err)
{
	const struct img_option *o = opts->options;
	uint64_t block =
		img_option_number(o, opts->n_options, "block_size",
				  opts->cluster_size ? opts->cluster_size : MB);

	if (!is_pow2(block) || block < VDI_MIN_BLOCK || block > VDI_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "blocks of %llu bytes: a power of two from 4 KiB to 256 "
			       "MiB is needed",
			       (unsigned long long)block);
	l->block = (uint32_t)block;
	l->size = align_up(opts->size, 512);
	l->n_blocks = l->size / block + !!(l->size % block);
	l->fixed = img_option_bool(o, opts->n_options, "static", false) ||
		   strcmp(img_option_text(o, opts->n_options, "preallocation", "off"),
			  "off");
	if (opts->size > INT64_MAX / 2 || l->n_blocks > VDI_MAX_BLOCKS)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VDI image with blocks of %u "
			       "bytes: use larger blocks",
			       (unsigned long long)opts->size, l->block);
	return 0;
}

int vdi_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err)
{
	struct layout l;
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	m->fully_allocated = data_offset(&l) + l.n_blocks * l.block;
	m->required = l.fixed ? m->fully_allocated
			      : data_offset(&l) + plan_blocks(plan, l.block) * l.block;
	return 0;
}

int vdi_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err)
{
	struct img_file *f = t->file;
	struct vdi_header h;
	struct layout l;
	uint64_t end;
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	if (opts->backing_path && l.fixed)
		return err_set(err, EINVAL, "a static image has no parent");
	rc = header_fill(&h, &l);
	if (!rc && opts->backing_path) {
		rc = header_parent(&h, t, opts, err);
		if (rc)
			return rc;
	}
	end = data_offset(&l) + (l.fixed ? l.n_blocks * l.block : 0);
	/* The header, which makes it an image, is last. */
	if (!rc && !file_is_device(f))
		rc = file_truncate(f, end);
	if (!rc)
		rc = map_write(f, DEFAULT_MAP, l.n_blocks, l.fixed);
	if (!rc)
		rc = file_write(f, &h, 0, sizeof(h));
	return rc ? err_sys(err, -rc, "cannot write the image") : 0;
}
