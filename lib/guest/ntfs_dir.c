/* guest/ntfs_dir.c - NTFS: files by their path. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "guest/ntfs_int.h"

#include "base/guid.h"
#include "base/mem.h"

#define MAX_INDEX (64u << 20) /* bytes of a directory that are looked at */

/*
 * Looks through the entries of an index node: `p` is its header. 0 and *ref, -ENOENT, -EUCLEAN. Only ASCII names are
 * wanted, so case is simple.
 */
static int find_entry(const uint8_t *p, size_t size, const char *want, uint64_t *ref)
{
	size_t at = size >= 16 ? load_u32(p) : 0;
	size_t end = size >= 16 ? min_u64(load_u32(p + 4), size) : 0;
	size_t n = strlen(want);

	if (at < 16)
		return -EUCLEAN;
	while (at + 16 <= end) {
		const uint8_t *e = p + at, *key = e + 16;
		size_t len = load_u16(e + 8), key_len = load_u16(e + 10), i;

		if (load_u16(e + 12) & 2)
			break;
		if (len < 16 || len % 8 || len > end - at || key_len > len - 16)
			return -EUCLEAN;
		at += len;
		if (key_len < 66 || key[64] != n || key_len < 66 + 2 * n)
			continue;
		for (i = 0; i < n; i++) {
			unsigned c = load_u16(key + 66 + 2 * i);
			unsigned w = (uint8_t)want[i];

			c = c >= 'A' && c <= 'Z' ? c + 32 : c;
			w = w >= 'A' && w <= 'Z' ? w + 32 : w;
			if (c != w)
				break;
		}
		if (i == n) {
			*ref = load_u64(e) & 0xffffffffffffull;
			return 0;
		}
	}
	return -ENOENT;
}

/* The nodes of a large directory, one by one. */
static int find_large(struct fs *fs, uint64_t dir, uint32_t node, const char *want,
		      uint64_t *ref)
{
	struct ntfs_stream s;
	uint8_t *buf = mem_new(node + 8u, 1);
	int rc = buf ? ntfs_stream_open(fs, dir, NTFS_INDEX, "$I30", &s) : -ENOMEM;

	if (rc) {
		free(buf);
		return rc;
	}
	rc = -ENOENT;
	for (uint64_t at = 0; rc == -ENOENT && at + node <= s.size && at < MAX_INDEX;
	     at += node) {
		if (ntfs_stream_read(&s, buf, at, node))
			rc = -EIO;
		else if (ntfs_fixup(buf, node, "INDX")) /* else: not in use */
			rc = find_entry(buf + 24, node - 24, want, ref);
	}
	ntfs_stream_fini(&s);
	free(buf);
	return rc;
}

static int find_in(struct fs *fs, uint64_t dir, const char *want, uint64_t *ref)
{
	struct ntfs_stream root;
	uint32_t node;
	int rc = ntfs_stream_open(fs, dir, NTFS_INDEX_ROOT, "$I30", &root);

	if (rc)
		return rc;
	if (!root.resident || root.size < 32) {
		ntfs_stream_fini(&root);
		return -EUCLEAN;
	}
	node = load_u32(root.resident + 8);
	rc = find_entry(root.resident + 16, root.size - 16, want, ref);
	if (rc == -ENOENT && root.resident[28] & 1)
		rc = is_pow2(node) && node >= 512 && node <= 65536
			     ? find_large(fs, dir, node, want, ref)
			     : -EUCLEAN;
	ntfs_stream_fini(&root);
	return rc;
}

int ntfs_file_open(struct fs *fs, const char *path, struct fs_file *f)
{
	struct ntfs_stream *s;
	uint64_t at = REC_ROOT;
	int rc;

	for (unsigned depth = 0; depth < 32; depth++) {
		char part[256];
		size_t n;

		path += strspn(path, "/\\");
		n = strcspn(path, "/\\");
		if (!n)
			break;
		if (n >= sizeof(part))
			return -ENOENT;
		memcpy(part, path, n);
		part[n] = 0;
		path += n;
		rc = find_in(fs, at, part, &at);
		if (rc)
			return rc;
	}
	s = f->priv = NEW(struct ntfs_stream);
	if (!s)
		return -ENOMEM;
	rc = ntfs_stream_open(fs, at, NTFS_DATA, "", s);
	f->size = s->size;
	return rc;
}

int ntfs_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len)
{
	return ntfs_stream_read(f->priv, buf, off, len);
}

void ntfs_file_close(struct fs_file *f)
{
	ntfs_stream_fini(f->priv);
}

int ntfs_file_ranges(struct fs_file *f, struct ranges *r)
{
	const struct ntfs_stream *s = f->priv;
	const struct ntfs *x = f->fs->priv;
	int rc = 0;

	for (size_t i = 0; i < s->n && !rc; i++)
		if (s->run[i].lcn != NTFS_HOLE)
			rc = ranges_add(r, s->run[i].lcn * x->cluster,
					s->run[i].n * x->cluster);
	return rc;
}
