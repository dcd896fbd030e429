/*
 * pack/ext4.c - makes an ext4 file system and fills it, by libext2fs. Names and folders come first, with empty files; then the
 * layers are read once more for the content. One thread.
 */
#include "pack/ext4.h"

#include <archive.h>
#include <archive_entry.h>
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/guid.h"
#include "base/mem.h"

#define BLOCK      4096u
#define MIB        (1ull << 20)
#define MAX_SIZE   (16ull << 40)
#define INODE_SIZE 256

struct ext4 {
	ext2_filsys fs;
	struct tree *t;
	uint32_t *dir; /* node to inode, of folders; 0: none */
};

static int failed(errcode_t rc, const char *what, struct err *err)
{
	int code = rc == EXT2_ET_BLOCK_ALLOC_FAIL || rc == EXT2_ET_INODE_ALLOC_FAIL ||
				   rc == ENOSPC
			   ? ENOSPC
		   : rc == EXT2_ET_NO_MEMORY ? ENOMEM
		   : rc > 0 && rc < 4096     ? (int)rc
					     : EIO;

	if (code == ENOSPC)
		return err_set(err, code,
			       "the files do not fit in the file system: --size makes "
			       "it larger");
	return err_set(err, code, "cannot make the file system (%s): %.120s", what,
		       error_message(rc));
}

uint64_t ext4_size_for(const struct tree *t)
{
	uint64_t bytes = 0, inodes = 0;

	for (uint32_t i = 0; i < t->n_objects; i++) {
		const struct tree_object *o = &t->object[i];

		if (!o->names)
			continue;
		inodes++;
		bytes += S_ISDIR(o->mode) ? BLOCK
					  : align_up(min_u64(o->size, MAX_SIZE), BLOCK);
		if (bytes > MAX_SIZE)
			return MAX_SIZE;
	}
	/* a quarter more, for what is written later; inodes are made for every 16 KiB */
	bytes += bytes / 4 + inodes * 2 * INODE_SIZE + 64 * MIB;
	bytes = max_u64(bytes, (inodes + inodes / 4) * 16384);
	return align_up(bytes, MIB);
}

/* ---- an empty one ---- */

static errcode_t fill_tables(ext2_filsys fs)
{
	errcode_t rc = ext2fs_allocate_tables(fs);

	/* The file is new: inode tables read as zeros. */
	for (dgrp_t i = 0; i < fs->group_desc_count && !rc; i++) {
		ext2fs_bg_flags_set(fs, i, EXT2_BG_INODE_ZEROED);
		ext2fs_group_desc_csum_set(fs, i);
	}
	if (!rc)
		rc = ext2fs_mkdir(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, NULL);
	for (ext2_ino_t i = EXT2_ROOT_INO + 1; i < EXT2_FIRST_INODE(fs->super) && !rc;
	     i++)
		ext2fs_inode_alloc_stats2(fs, i, 1, 0);
	if (!rc) {
		ext2fs_inode_alloc_stats2(fs, EXT2_BAD_INO, 1, 0);
		rc = ext2fs_update_bb_inode(fs, NULL);
	}
	if (!rc)
		rc = ext2fs_create_resize_inode(fs);
	return rc;
}

static errcode_t make_lost_found(ext2_filsys fs)
{
	ext2_ino_t ino;
	errcode_t rc = ext2fs_mkdir(fs, EXT2_ROOT_INO, 0, "lost+found");

	if (rc == EXT2_ET_DIR_EXISTS) /* the tree has one */
		return 0;
	if (!rc)
		rc = ext2fs_lookup(fs, EXT2_ROOT_INO, "lost+found", 10, NULL, &ino);
	/* room for names when the disk is full */
	for (unsigned i = 0; i < 3 && !rc; i++)
		rc = ext2fs_expand_dir(fs, ino);
	return rc;
}

static void name_it(struct ext2_super_block *s, const char *label)
{
	struct guid g;

	if (!guid_make(&g, true))
		memcpy(s->s_uuid, g.b, sizeof(s->s_uuid));
	if (!guid_make(&g, true))
		memcpy(s->s_hash_seed, g.b, sizeof(s->s_hash_seed));
	s->s_checksum_type = EXT2_CRC32C_CHKSUM;
	s->s_def_hash_version = EXT2_HASH_HALF_MD4;
	if (label)
		memcpy(s->s_volume_name, label,
		       strnlen(label, sizeof(s->s_volume_name)));
	s->s_max_mnt_count = (uint16_t)-1;
	s->s_mkfs_time = (uint32_t)time(NULL);
	s->s_lastcheck = s->s_mkfs_time;
}

static int begin(struct ext4 *x, int fd, uint64_t at, uint64_t size, const char *label,
		 struct err *err)
{
	struct ext2_super_block p = {0};
	char path[40], where[40];
	errcode_t rc;

	p.s_rev_level = EXT2_DYNAMIC_REV;
	p.s_log_block_size = 2;
	p.s_log_cluster_size = 2;
	p.s_inode_size = INODE_SIZE;
	p.s_log_groups_per_flex = 4;
	p.s_feature_compat =
		EXT3_FEATURE_COMPAT_HAS_JOURNAL | EXT2_FEATURE_COMPAT_EXT_ATTR |
		EXT2_FEATURE_COMPAT_RESIZE_INODE | EXT2_FEATURE_COMPAT_DIR_INDEX;
	p.s_feature_incompat =
		EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
		EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG;
	p.s_feature_ro_compat =
		EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER |
		EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
		EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |
		EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
	p.s_min_extra_isize = p.s_want_extra_isize = 32;
	ext2fs_blocks_count_set(&p, size / BLOCK);
	ext2fs_r_blocks_count_set(&p, size / BLOCK / 20);
	p.s_inodes_count = (uint32_t)min_u64(size / 16384, UINT32_MAX);
	if (ftruncate(fd, (off_t)(at + size)) < 0)
		return err_sys(err, errno, "cannot make a file of %llu bytes",
			       (unsigned long long)(at + size));
	snprintf(where, sizeof(where), "offset=%llu", (unsigned long long)at);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = ext2fs_initialize(path, EXT2_FLAG_64BITS | EXT2_FLAG_RW, &p,
			       unix_io_manager, &x->fs);
	if (!rc && at)
		rc = io_channel_set_options(x->fs->io, where);
	if (rc)
		return failed(rc, "begin", err);
	name_it(x->fs->super, label);
	x->fs->super->s_min_extra_isize = x->fs->super->s_want_extra_isize = 32;
	ext2fs_init_csum_seed(x->fs);
	rc = fill_tables(x->fs);
	return rc ? failed(rc, "tables", err) : 0;
}

/* ---- names ---- */

static errcode_t add_name(ext2_filsys fs, ext2_ino_t dir, const char *name,
			  ext2_ino_t ino, int type)
{
	errcode_t rc = ext2fs_link(fs, dir, name, ino, type);

	if (rc != EXT2_ET_DIR_NO_SPACE)
		return rc;
	rc = ext2fs_expand_dir(fs, dir);
	return rc ? rc : ext2fs_link(fs, dir, name, ino, type);
}

static void set_owner(struct ext2_inode *i, const struct tree_object *o)
{
	int64_t t = o->mtime < 0 ? 0 : (int64_t)min_u64((uint64_t)o->mtime, UINT32_MAX);

	i->i_mode = (uint16_t)((i->i_mode & S_IFMT) | (o->mode & 07777));
	i->i_uid = (uint16_t)o->uid;
	ext2fs_set_i_uid_high(*i, (uint16_t)(o->uid >> 16));
	i->i_gid = (uint16_t)o->gid;
	ext2fs_set_i_gid_high(*i, (uint16_t)(o->gid >> 16));
	i->i_atime = i->i_ctime = i->i_mtime = (uint32_t)t;
}

/* The owner, rights and times of what is there. */
static errcode_t dress(ext2_filsys fs, ext2_ino_t ino, const struct tree_object *o)
{
	struct ext2_inode i;
	errcode_t rc = ext2fs_read_inode(fs, ino, &i);

	if (rc)
		return rc;
	set_owner(&i, o);
	return ext2fs_write_inode(fs, ino, &i);
}

static errcode_t make_dir(struct ext4 *x, ext2_ino_t parent, const char *name,
			  const struct tree_object *o, ext2_ino_t *ino)
{
	errcode_t rc = ext2fs_mkdir(x->fs, parent, 0, name);

	if (rc == EXT2_ET_DIR_NO_SPACE) {
		rc = ext2fs_expand_dir(x->fs, parent);
		if (!rc)
			rc = ext2fs_mkdir(x->fs, parent, 0, name);
	}
	if (!rc)
		rc = ext2fs_lookup(x->fs, parent, name, (int)strlen(name), NULL, ino);
	return rc ? rc : dress(x->fs, *ino, o);
}

static errcode_t make_symlink(struct ext4 *x, ext2_ino_t parent, const char *name,
			      struct tree_object *o)
{
	errcode_t rc = ext2fs_symlink(x->fs, parent, 0, name, o->target);
	ext2_ino_t ino;

	if (rc == EXT2_ET_DIR_NO_SPACE) {
		rc = ext2fs_expand_dir(x->fs, parent);
		if (!rc)
			rc = ext2fs_symlink(x->fs, parent, 0, name, o->target);
	}
	if (!rc)
		rc = ext2fs_lookup(x->fs, parent, name, (int)strlen(name), NULL, &ino);
	if (rc)
		return rc;
	o->ino = ino;
	return dress(x->fs, ino, o);
}

static int ext_type(mode_t mode)
{
	return S_ISREG(mode)   ? EXT2_FT_REG_FILE
	       : S_ISCHR(mode) ? EXT2_FT_CHRDEV
	       : S_ISBLK(mode) ? EXT2_FT_BLKDEV
	       : S_ISLNK(mode) ? EXT2_FT_SYMLINK
			       : EXT2_FT_FIFO;
}

/* An empty file, a device, a pipe. */
static errcode_t make_inode(struct ext4 *x, ext2_ino_t parent, struct tree_object *o)
{
	struct ext2_inode i = {.i_mode = (uint16_t)(o->mode & S_IFMT)};
	ext2_extent_handle_t handle;
	ext2_ino_t ino;
	errcode_t rc = ext2fs_new_inode(x->fs, parent, i.i_mode, NULL, &ino);

	if (rc)
		return rc;
	ext2fs_inode_alloc_stats2(x->fs, ino, 1, 0);
	set_owner(&i, o);
	if (S_ISCHR(o->mode) || S_ISBLK(o->mode)) {
		if (o->major < 256 && o->minor < 256)
			i.i_block[0] = o->major << 8 | o->minor;
		else
			i.i_block[1] = (o->minor & 0xff) | o->major << 8 |
				       (o->minor & ~0xffu) << 12;
	} else if (S_ISREG(o->mode)) {
		i.i_flags = EXT4_EXTENTS_FL;
		rc = ext2fs_extent_open2(x->fs, ino, &i, &handle);
		if (rc)
			return rc;
		ext2fs_extent_free(handle);
	}
	o->ino = ino;
	return ext2fs_write_new_inode(x->fs, ino, &i);
}

/* One more name. */
static errcode_t count_name(ext2_filsys fs, ext2_ino_t ino)
{
	struct ext2_inode i;
	errcode_t rc = ext2fs_read_inode(fs, ino, &i);

	if (rc)
		return rc;
	i.i_links_count++;
	return ext2fs_write_inode(fs, ino, &i);
}

static errcode_t make_node(struct ext4 *x, uint32_t n)
{
	const struct tree_node *node = &x->t->node[n];
	struct tree_object *o = &x->t->object[node->object];
	ext2_ino_t parent = x->dir[node->parent];
	errcode_t rc = 0;

	if (S_ISDIR(o->mode))
		return make_dir(x, parent, node->name, o, &x->dir[n]);
	if (!o->ino && S_ISLNK(o->mode))
		return make_symlink(x, parent, node->name, o);
	if (!o->ino)
		rc = make_inode(x, parent, o);
	if (!rc)
		rc = add_name(x->fs, parent, node->name, o->ino, ext_type(o->mode));
	return rc ? rc : count_name(x->fs, o->ino);
}

/* All names, folders before what is in them. */
static int make_names(struct ext4 *x, struct err *err)
{
	struct tree *t = x->t;
	uint32_t at = TREE_ROOT;
	errcode_t rc = dress(x->fs, EXT2_ROOT_INO, &t->object[t->node[at].object]);

	x->dir[at] = EXT2_ROOT_INO;
	for (bool down = true; !rc;) {
		if (down && x->dir[at] && t->node[at].child != TREE_NONE) {
			at = t->node[at].child;
		} else {
			while (at != TREE_ROOT && t->node[at].next == TREE_NONE)
				at = t->node[at].parent;
			if (at == TREE_ROOT)
				break;
			at = t->node[at].next;
		}
		if (t->node[at].object != TREE_NONE)
			rc = make_node(x, at);
		if (rc)
			return failed(rc, t->node[at].name, err);
		if (t->stop && atomic_load(t->stop))
			return err_set(err, EINTR, "interrupted");
	}
	return rc ? failed(rc, "names", err) : 0;
}

/* ---- content ---- */

static errcode_t put_attrs(struct ext4 *x, struct tree_object *o,
			   struct archive_entry *e)
{
	struct ext2_xattr_handle *h;
	const char *name;
	const void *value;
	size_t len;
	errcode_t rc;

	if (!archive_entry_xattr_reset(e))
		return 0;
	rc = ext2fs_xattrs_open(x->fs, o->ino, &h);
	if (!rc)
		rc = ext2fs_xattrs_read(h);
	if (rc)
		return rc;
	while (!rc && !archive_entry_xattr_next(e, &name, &value, &len)) {
		/* what the kernel keeps for the host's own use stays there */
		if (!name ||
		    (strncmp(name, "user.", 5) && strcmp(name, "security.capability")))
			continue;
		rc = ext2fs_xattr_set(h, name, value, len);
		if (rc == EXT2_ET_EA_NO_SPACE)
			rc = 0;
	}
	ext2fs_xattrs_close(&h);
	return rc;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* Whole blocks of zeros become holes. */
static errcode_t put_content(ext2_file_t f, struct archive *a, uint64_t size,
			     const char **why)
{
	uint8_t buf[16 * BLOCK];
	uint64_t at = 0;
	errcode_t rc = 0;

	while (at < size && !rc) {
		la_ssize_t n =
			archive_read_data(a, buf, min_u64(sizeof(buf), size - at));
		unsigned done;

		if (n < 0) {
			*why = archive_error_string(a);
			return EIO;
		}
		if (!n)
			break;
		for (size_t k = 0; k < (size_t)n && !rc; k += done) {
			done = (unsigned)min_u64(BLOCK - (at + k) % BLOCK,
						 (size_t)n - k);
			if (is_zero(buf + k, done) && done == BLOCK)
				continue;
			rc = ext2fs_file_llseek(f, at + k, EXT2_SEEK_SET, NULL);
			if (!rc)
				rc = ext2fs_file_write(f, buf + k, done, &done);
		}
		at += (uint64_t)n;
	}
	return rc ? rc : ext2fs_file_set_size2(f, size);
}

static int put_file(void *ctx, struct tree_object *o, uint32_t object,
		    struct archive *a, struct archive_entry *e, struct err *err)
{
	struct ext4 *x = ctx;
	const char *why = NULL;
	ext2_file_t f;
	errcode_t rc, rc2;

	(void)object;
	if (!o->ino)
		return 0;
	rc = put_attrs(x, o, e);
	if (!rc && o->size) {
		rc = ext2fs_file_open(x->fs, o->ino, EXT2_FILE_WRITE, &f);
		if (!rc) {
			rc = put_content(f, a, o->size, &why);
			rc2 = ext2fs_file_close(f);
			rc = rc ? rc : rc2;
		}
	}
	if (why)
		return err_set(err, EINVAL, "cannot read the content of '%.80s': %.80s",
			       archive_entry_pathname(e), why);
	if (!rc) /* writing sets the time */
		rc = dress(x->fs, o->ino, o);
	return rc ? failed(rc, archive_entry_pathname(e), err) : 0;
}

/* ---- where files are ---- */

struct place {
	struct ext4_file *f;
	uint64_t at;   /* of the file system, bytes */
	uint64_t next; /* block of the file that comes next */
	bool full;
};

static bool add_run(struct ext4_file *f, uint64_t first, uint64_t n)
{
	struct boot_run *last = f->n ? &f->run[f->n - 1] : NULL, *v;

	if (!n)
		return true;
	if (last &&
	    (first ? last->first && last->first + last->n == first : !last->first)) {
		last->n += n;
		return true;
	}
	v = f->n < EXT4_MAX_RUNS ? mem_resize(f->run, f->n + 1, sizeof(*v)) : NULL;
	if (!v)
		return false;
	f->run = v;
	v[f->n++] = (struct boot_run){first, n};
	return true;
}

static int place_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t k, blk64_t ref,
		       int ref_off, void *ctx)
{
	struct place *p = ctx;
	const unsigned sectors = BLOCK / 512;

	(void)fs;
	(void)ref;
	(void)ref_off;
	if (k < 0 || (uint64_t)k < p->next)
		return 0;
	p->full |= !add_run(p->f, 0, ((uint64_t)k - p->next) * sectors) ||
		   !add_run(p->f, p->at / 512 + *block * sectors, sectors);
	p->next = (uint64_t)k + 1;
	return p->full ? BLOCK_ABORT : 0;
}

static int find_places(struct ext4 *x, uint64_t at, struct ext4_file *f, unsigned n,
		       struct err *err)
{
	for (unsigned i = 0; i < n; i++) {
		const struct tree_object *o = &x->t->object[f[i].object];
		struct place p = {.f = &f[i], .at = at};
		errcode_t rc = ext2fs_block_iterate3(
			x->fs, o->ino, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY,
			NULL, place_block, &p);
		uint64_t blocks = (o->size + BLOCK - 1) / BLOCK;

		if (rc)
			return failed(rc, "blocks", err);
		f[i].size = o->size;
		if (blocks > p.next)
			p.full |= !add_run(&f[i], 0, (blocks - p.next) * (BLOCK / 512));
		if (p.full)
			return err_set(err, E2BIG,
				       "the kernel or its initial RAM disk is in too "
				       "many pieces");
	}
	return 0;
}

static int finish(struct ext4 *x, struct err *err)
{
	int blocks = ext2fs_default_journal_size(ext2fs_blocks_count(x->fs->super));
	errcode_t rc = make_lost_found(x->fs);

	if (!rc && blocks > 0)
		rc = ext2fs_add_journal_inode(x->fs, (blk_t)blocks, 0);
	if (!rc) {
		x->fs->super->s_state |= EXT2_VALID_FS;
		rc = ext2fs_close_free(&x->fs);
	}
	return rc ? failed(rc, "end", err) : 0;
}

int ext4_write(int fd, uint64_t at, uint64_t size, const char *label, struct tree *t,
	       const struct tree_layer *v, unsigned n, struct ext4_file *files,
	       unsigned n_files, struct err *err)
{
	struct ext4 x = {.t = t};
	int rc;

	if (size % MIB || size < 16 * MIB || size > MAX_SIZE)
		return err_set(err, EINVAL,
			       "a file system of %llu bytes cannot be made: whole MiB, "
			       "from 16 on, can",
			       (unsigned long long)size);
	initialize_ext2_error_table();
	x.dir = calloc(t->n_nodes, sizeof(*x.dir));
	rc = x.dir ? begin(&x, fd, at, size, label, err)
		   : err_set(err, ENOMEM, "no memory to make a file system");
	if (!rc)
		rc = make_names(&x, err);
	if (!rc)
		rc = tree_files(t, v, n, put_file, &x, err);
	if (!rc)
		rc = find_places(&x, at, files, n_files, err);
	if (!rc)
		rc = finish(&x, err);
	if (x.fs)
		ext2fs_free(x.fs);
	free(x.dir);
	return rc;
}
