/* img/vdi_create.c - makes empty VDI images. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vdi_int.h"
#include "img/vhd_parent.h"

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

static int header_fill(struct vdi_header *h, uint64_t size, uint32_t block,
		       uint32_t n_blocks, bool fixed)
{
	uint64_t data_off = align_up(DEFAULT_MAP + 4ull * n_blocks, MB);
	int rc;

	memset(h, 0, sizeof(*h));
	strcpy(h->text, "<<< VirtualBox Disk Image >>>\n");
	h->magic = le32_make(VDI_MAGIC);
	h->version = le32_make(0x00010001);
	h->header_len = le32_make(VDI_LEN_1_1);
	h->type = le32_make(fixed ? VDI_FIXED : VDI_DYNAMIC);
	h->map_off = le32_make(DEFAULT_MAP);
	h->data_off = le32_make((uint32_t)data_off);
	geometry_fill(&h->legacy, size);
	h->size = le64_make(size);
	h->block_size = le32_make(block);
	h->n_blocks = le32_make(n_blocks);
	h->n_used = le32_make(fixed ? n_blocks : 0);
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

int vdi_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err)
{
	bool fixed = img_option_bool(opts->options, opts->n_options, "static", false);
	uint32_t block = (uint32_t)min_u64(
		img_option_number(opts->options, opts->n_options, "block_size",
				  opts->cluster_size ? opts->cluster_size : MB),
		UINT32_MAX);
	struct img_file *f = t->file;
	uint64_t size = align_up(opts->size, 512), n, end;
	struct vdi_header h;
	int rc;

	if (!is_pow2(block) || block < VDI_MIN_BLOCK || block > VDI_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "blocks of %u bytes: a power of two from 4 KiB to 256 "
			       "MiB is needed",
			       block);
	n = size / block + !!(size % block);
	if (opts->size > INT64_MAX / 2 || n > VDI_MAX_BLOCKS)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VDI image with blocks of %u "
			       "bytes: use larger blocks",
			       (unsigned long long)opts->size, block);
	if (opts->backing_path && fixed)
		return err_set(err, EINVAL, "a static image has no parent");
	rc = header_fill(&h, size, block, (uint32_t)n, fixed);
	if (!rc && opts->backing_path) {
		rc = header_parent(&h, t, opts, err);
		if (rc)
			return rc;
	}
	end = le32_get(h.data_off) + (fixed ? n * block : 0);
	/* The header, which makes it an image, is last. */
	if (!rc && !file_is_device(f))
		rc = file_truncate(f, end);
	if (!rc)
		rc = map_write(f, DEFAULT_MAP, n, fixed);
	if (!rc)
		rc = file_write(f, &h, 0, sizeof(h));
	return rc ? err_sys(err, -rc, "cannot write the image") : 0;
}
