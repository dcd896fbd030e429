/* guest/fs.c - file systems inside images: what all kinds share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/fs_int.h"

#include "base/mem.h"

static const struct fs_ops *const kinds[] = {&fs_ext, &fs_ntfs,  &fs_xfs, &fs_btrfs,
					     &fs_fat, &fs_exfat, &fs_swap};

static const struct fs_ops *find(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		for (const char *const *t = kinds[i]->types; *t; t++)
			if (!strcmp(*t, type))
				return kinds[i];
	return NULL;
}

bool fs_known(const char *type)
{
	return find(type) != NULL;
}

int fs_open(struct img *img, uint64_t off, uint64_t len, const char *type,
	    struct fs **out, struct err *err)
{
	const struct fs_ops *ops = find(type);
	struct fs *fs;
	int rc;

	*out = NULL;
	if (!ops)
		return err_set(err, ENOTSUP, "file system '%s' is not known", type);
	if (!range_ok(off, len, img_size(img)) || len > FS_MAX_BYTES)
		return err_set(err, EINVAL, "a file system outside '%s'",
			       img_path(img));
	fs = NEW(struct fs);
	if (!fs)
		return err_set(err, ENOMEM, "no memory");
	*fs = (struct fs){.img = img, .off = off, .len = len, .ops = ops};
	snprintf(fs->info.type, sizeof(fs->info.type), "%s", type);
	rc = ops->open(fs, err);
	if (!rc && fs->info.size > len)
		rc = err_set(err, EUCLEAN,
			     "the %s file system has %llu bytes, its partition %llu",
			     type, (unsigned long long)fs->info.size,
			     (unsigned long long)len);
	if (rc) {
		fs_close(fs);
		return rc;
	}
	*out = fs;
	return 0;
}

void fs_close(struct fs *fs)
{
	if (!fs)
		return;
	if (fs->ops->close)
		fs->ops->close(fs);
	free(fs->priv);
	free(fs);
}

const struct fs_info *fs_info(const struct fs *fs)
{
	return &fs->info;
}

int fs_used(struct fs *fs, struct ranges *used, struct err *err)
{
	int rc;

	if (fs->info.state != FS_CLEAN)
		return err_set(err, EUCLEAN, "%s", fs->info.why);
	rc = fs->ops->used(fs, used, err);
	if (!rc && fs->info.size < fs->len)
		rc = ranges_add(used, fs->info.size, fs->len - fs->info.size);
	if (rc == -ENOMEM || rc == -EFBIG)
		return err_set(err, -rc, "too many pieces are used");
	if (rc)
		return rc;
	ranges_sort(used);
	if (used->n &&
	    !range_ok(used->v[used->n - 1].off, used->v[used->n - 1].len, fs->len))
		return fs_damaged(fs, err, "it uses bytes behind its end");
	return 0;
}

/* ---- files ---- */

int fs_file_open(struct fs *fs, const char *path, struct fs_file **out)
{
	struct fs_file *f;
	int rc;

	*out = NULL;
	if (!fs->ops->file_open)
		return -ENOTSUP;
	f = NEW(struct fs_file);
	if (!f)
		return -ENOMEM;
	f->fs = fs;
	rc = fs->ops->file_open(fs, path, f);
	if (rc) {
		fs_file_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

uint64_t fs_file_size(const struct fs_file *f)
{
	return f->size;
}

int fs_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len)
{
	if (!range_ok(off, len, f->size))
		return -ENXIO;
	return len ? f->fs->ops->file_read(f, buf, off, len) : 0;
}

void fs_file_close(struct fs_file *f)
{
	if (!f)
		return;
	if (f->priv && f->fs->ops->file_close)
		f->fs->ops->file_close(f);
	free(f->priv);
	free(f);
}

int fs_file_ranges(struct fs_file *f, struct ranges *r)
{
	return f->fs->ops->file_ranges ? f->fs->ops->file_ranges(f, r) : -ENOTSUP;
}

char *fs_load(struct fs *fs, const char *path, size_t max, size_t *len)
{
	struct fs_file *f;
	char *buf = NULL;
	size_t n;

	if (fs_file_open(fs, path, &f))
		return NULL;
	n = (size_t)min_u64(max, f->size);
	buf = mem_new(n + 1, 1);
	if (buf && fs_file_read(f, buf, 0, n)) {
		free(buf);
		buf = NULL;
	}
	fs_file_close(f);
	if (len)
		*len = n;
	return buf;
}

/* ---- for the kinds ---- */

int fs_read(const struct fs *fs, void *buf, uint64_t off, uint64_t len)
{
	if (!range_ok(off, len, fs->len))
		return -ENXIO;
	return img_read(fs->img, buf, fs->off + off, len);
}

void *fs_read_new(const struct fs *fs, uint64_t off, uint64_t len)
{
	void *p = range_ok(off, len, fs->len) ? mem_new(len + 1, 1) : NULL;

	if (p && fs_read(fs, p, off, len)) {
		free(p);
		return NULL;
	}
	return p;
}

void fs_not_clean(struct fs *fs, enum fs_state state, const char *why)
{
	if (state <= fs->info.state)
		return;
	fs->info.state = state;
	snprintf(fs->info.why, sizeof(fs->info.why), "%s", why);
}

int fs_damaged(const struct fs *fs, struct err *err, const char *what)
{
	return err_set(err, EUCLEAN, "the %s file system is damaged: %s", fs->info.type,
		       what);
}

void fs_uuid(struct fs *fs, const uint8_t b[16])
{
	char *to = fs->info.uuid;

	for (unsigned i = 0; i < 16; i++)
		to += sprintf(to, "%s%02x",
			      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
}

void fs_label(struct fs *fs, const void *p, size_t n)
{
	n = min_u64(n, sizeof(fs->info.label) - 1);
	n = strnlen(p, n);
	while (n && ((const char *)p)[n - 1] == ' ')
		n--;
	memcpy(fs->info.label, p, n);
	fs->info.label[n] = 0;
	/* it may be printed: control characters go */
	for (char *c = fs->info.label; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}
