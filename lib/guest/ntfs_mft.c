/*
 * guest/ntfs_mft.c - NTFS: records, attributes, runs, streams. The layout is that of the Linux-NTFS project's
 * documentation (flatcap.github.io/linux-ntfs).
 */
#include <stdlib.h>
#include <string.h>

#include "guest/ntfs_int.h"

#include "base/mem.h"

#define MAX_RUNS (4u << 20)
#define MAX_LIST (1u << 20) /* bytes of an attribute list */

bool ntfs_fixup(uint8_t *p, uint32_t len, const char magic[4])
{
	uint32_t at = load_u16(p + 4), n = load_u16(p + 6);

	if (memcmp(p, magic, 4) || n != len / 512 + 1 || at < 8 || at % 2 ||
	    at + n * 2 > len)
		return false;
	for (uint32_t i = 1; i < n; i++) {
		uint8_t *end = p + i * 512 - 2;

		if (memcmp(end, p + at, 2))
			return false;
		memcpy(end, p + at + i * 2, 2);
	}
	return true;
}

void ntfs_stream_fini(struct ntfs_stream *s)
{
	free(s->run);
	free(s->resident);
	*s = (struct ntfs_stream){0};
}

/* ---- runs ---- */

static int add_run(struct ntfs_stream *s, uint64_t lcn, uint64_t n)
{
	const struct ntfs *x = s->fs->priv;

	if (lcn != NTFS_HOLE && !range_ok(lcn, n, x->clusters))
		return -EUCLEAN;
	if (s->n == s->size_runs) {
		size_t more = s->size_runs ? s->size_runs * 2 : 8;
		struct ntfs_run *v;

		if (more > MAX_RUNS)
			return -EUCLEAN;
		v = mem_resize(s->run, more, sizeof(*v));
		if (!v)
			return -ENOMEM;
		s->run = v;
		s->size_runs = more;
	}
	s->run[s->n++] = (struct ntfs_run){lcn, n};
	s->vcn += n;
	return 0;
}

/* A signed little-endian number of n bytes. */
static int64_t number(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	if (n && n < 8 && v >> (8 * n - 1))
		v |= ~0ull << (8 * n);
	return (int64_t)v;
}

/* Mapping pairs: length, and distance from the run before. */
static int add_runs(struct ntfs_stream *s, const uint8_t *p, const uint8_t *end)
{
	uint64_t lcn = 0;

	while (p < end && *p) {
		unsigned nl = *p & 15, no = *p >> 4;
		int64_t len;
		int rc;

		if (!nl || nl > 8 || no > 8 || nl + no + 1u > (size_t)(end - p))
			return -EUCLEAN;
		len = number(p + 1, nl);
		lcn += (uint64_t)number(p + 1 + nl, no);
		if (len <= 0 || (uint64_t)len > FS_MAX_BYTES)
			return -EUCLEAN;
		rc = add_run(s, no ? lcn : NTFS_HOLE, (uint64_t)len);
		if (rc)
			return rc;
		p += 1 + nl + no;
	}
	return 0;
}

/* ---- attributes ---- */

static bool name_is(const uint8_t *utf16, unsigned n, const char *name)
{
	if (strlen(name) != n)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (load_u16(utf16 + 2 * i) != (uint8_t)name[i])
			return false;
	return true;
}

/* The next attribute of a record, from `at` on, that is of the type and name and (if non-resident) begins at
 * vcn; its offset, 0 if there is none. */
static uint32_t find_attr(const uint8_t *rec, uint32_t size, uint32_t type,
			  const char *name, uint64_t vcn)
{
	uint32_t at = load_u16(rec + 20);

	while (at + 16 <= size && load_u32(rec + at) != UINT32_MAX) {
		const uint8_t *a = rec + at;
		uint32_t len = load_u32(a + 4);

		if (len < 24 || len % 8 || len > size - at || (a[8] && len < 64))
			return 0;
		if (load_u32(a) == type && load_u16(a + 10) + 2u * a[9] <= len &&
		    name_is(a + load_u16(a + 10), a[9], name) &&
		    (!a[8] || load_u64(a + 16) == vcn))
			return at;
		at += len;
	}
	return 0;
}

/* Takes what the attribute holds to the stream. */
static int take_attr(struct ntfs_stream *s, const uint8_t *a)
{
	uint32_t len = load_u32(a + 4), at, n;

	s->packed |= load_u16(a + 12) & 0x40ff;
	if (a[8]) {
		if (!load_u64(a + 16)) {
			s->size = load_u64(a + 48);
			s->init = min_u64(load_u64(a + 56), s->size);
		}
		at = load_u16(a + 32);
		return at < len ? add_runs(s, a + at, a + len) : -EUCLEAN;
	}
	at = load_u16(a + 20);
	n = load_u32(a + 16);
	if (at > len || n > len - at)
		return -EUCLEAN;
	s->resident = mem_new(n + 1u, 1);
	if (!s->resident)
		return -ENOMEM;
	memcpy(s->resident, a + at, n);
	s->size = s->init = n;
	return 0;
}

/* A record of the table in new memory, checked. */
static uint8_t *load_record(struct fs *fs, uint64_t n)
{
	struct ntfs *x = fs->priv;
	uint8_t *rec = mem_new(x->record + 8u, 1);

	if (!rec || n > FS_MAX_BYTES / x->record ||
	    ntfs_stream_read(&x->mft, rec, n * x->record, x->record) ||
	    !ntfs_fixup(rec, x->record, "FILE") || !(load_u16(rec + 22) & 1) ||
	    load_u32(rec + 24) > x->record) {
		free(rec);
		return NULL;
	}
	return rec;
}

/* The pieces of a stream that an attribute list names, in the order of their clusters. */
static int take_listed(struct ntfs_stream *s, struct ntfs_stream *list, uint32_t type,
		       const char *name)
{
	const struct ntfs *x = s->fs->priv;
	uint8_t *p;
	uint64_t size = list->size;
	int rc = -ENOENT;

	if (size > MAX_LIST || size < 26)
		return -EUCLEAN;
	p = mem_new(size, 1);
	if (!p || ntfs_stream_read(list, p, 0, size)) {
		free(p);
		return -EUCLEAN;
	}
	for (uint64_t at = 0; at + 26 <= size;) {
		const uint8_t *e = p + at;
		uint32_t len = load_u16(e + 4), where;
		uint8_t *rec;

		if (len < 24 || len > size - at)
			break;
		at += len;
		if (load_u32(e) != type || e[7] + 2u * e[6] > len ||
		    !name_is(e + e[7], e[6], name) || load_u64(e + 8) != s->vcn)
			continue;
		rec = load_record(s->fs, load_u64(e + 16) & 0xffffffffffffull);
		where = rec ? find_attr(rec, x->record, type, name, s->vcn) : 0;
		/* what opened the table itself is here again */
		rc = where ? take_attr(s, rec + where) : -EUCLEAN;
		free(rec);
		if (rc || s->resident)
			break;
	}
	free(p);
	return rc;
}

/* The table's own first record is read from where the boot sector says. */
static int open_in(struct ntfs_stream *s, const uint8_t *rec, uint32_t type,
		   const char *name)
{
	const struct ntfs *x = s->fs->priv;
	uint32_t at = find_attr(rec, x->record, NTFS_LIST, "", 0);
	struct ntfs_stream list = {.fs = s->fs};
	int rc;

	if (at && type != NTFS_LIST) {
		rc = take_attr(&list, rec + at);
		if (!rc)
			rc = take_listed(s, &list, type, name);
		ntfs_stream_fini(&list);
	} else {
		at = find_attr(rec, x->record, type, name, 0);
		rc = at ? take_attr(s, rec + at) : -ENOENT;
	}
	if (!rc && !s->resident && s->size > s->vcn * x->cluster)
		rc = -EUCLEAN;
	return rc;
}

int ntfs_stream_open(struct fs *fs, uint64_t record, uint32_t type, const char *name,
		     struct ntfs_stream *s)
{
	uint8_t *rec = load_record(fs, record);
	int rc;

	*s = (struct ntfs_stream){.fs = fs};
	rc = rec ? open_in(s, rec, type, name) : -EUCLEAN;
	free(rec);
	if (rc)
		ntfs_stream_fini(s);
	return rc;
}

int ntfs_mft_open(struct fs *fs, uint64_t lcn)
{
	struct ntfs *x = fs->priv;
	uint8_t *rec = fs_read_new(fs, lcn * x->cluster, x->record);
	struct ntfs_stream s = {.fs = fs};
	uint32_t at;
	int rc = -EUCLEAN;

	x->mft.fs = fs;
	if (rec && ntfs_fixup(rec, x->record, "FILE")) {
		at = find_attr(rec, x->record, NTFS_DATA, "", 0);
		rc = at ? take_attr(&x->mft, rec + at) : -ENOENT;
		/* With the first piece the others can be found. */
		if (!rc && x->mft.size > x->mft.vcn * x->cluster) {
			rc = open_in(&s, rec, NTFS_DATA, "");
			if (!rc) {
				ntfs_stream_fini(&x->mft);
				x->mft = s;
			} else {
				ntfs_stream_fini(&s);
			}
		}
	}
	free(rec);
	return rc;
}

/* ---- reading ---- */

int ntfs_stream_read(struct ntfs_stream *s, void *buf, uint64_t off, size_t len)
{
	const struct ntfs *x = s->fs->priv;
	uint64_t start = 0, part;
	uint8_t *to = buf;

	if (!range_ok(off, len, s->size))
		return -ENXIO;
	if (s->resident) {
		memcpy(buf, s->resident + off, len);
		return 0;
	}
	if (s->packed)
		return -ENOTSUP;
	for (size_t i = 0; i < s->n && len; start += s->run[i++].n * x->cluster) {
		uint64_t bytes = s->run[i].n * x->cluster;
		int rc = 0;

		if (off >= start + bytes)
			continue;
		part = min_u64(len, start + bytes - off);
		if (s->run[i].lcn == NTFS_HOLE || off >= s->init)
			memset(to, 0, part);
		else
			rc = fs_read(s->fs, to,
				     s->run[i].lcn * x->cluster + off - start, part);
		if (rc)
			return rc;
		if (off < s->init && off + part > s->init)
			memset(to + (s->init - off), 0, off + part - s->init);
		to += part;
		off += part;
		len -= part;
	}
	return len ? -EUCLEAN : 0;
}
