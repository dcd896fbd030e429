/*
 * guest/hive.c - single keys and values of a registry hive. The layout is that of "Windows registry file format
 * specification" (M. Suhanov). Cell offsets count from the first bin, 4096 bytes into the file.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "guest/hive.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "base/guid.h"
#include "base/mem.h"

#define FIRST_BIN 4096u
#define MAX_KEYS  65536u /* of one key that are looked at */
#define MAX_NAME  512u
#define MAX_DATA  16344u /* larger values are in several cells */
#define MAX_DEPTH 32

enum { NODE_ASCII = 0x20, VALUE_ASCII = 1 };

struct nk {
	char magic[2];
	le16 flags;
	uint8_t time[8];
	le32 spare, parent, n_keys, n_volatile, keys, volatile_keys, n_values, values,
		security, class_name, max[5];
	le16 name_len, class_len;
};
_Static_assert(sizeof(struct nk) == 76, "as it lies on the disk");

struct vk {
	char magic[2];
	le16 name_len;
	le32 len, data, type;
	le16 flags, spare;
};
_Static_assert(sizeof(struct vk) == 20, "as it lies on the disk");

/* Reads from a cell's content: -EUCLEAN if it does not have as much. */
static int cell_read(struct hive *h, uint32_t cell, uint32_t at, void *buf,
		     uint32_t len)
{
	le32 head;
	int64_t size;

	if (cell % 8 || !range_ok(cell, 8, h->size) ||
	    fs_file_read(h->file, &head, FIRST_BIN + (uint64_t)cell, 4))
		return -EUCLEAN;
	size = -(int64_t)(int32_t)le32_get(head) - 4;
	if (size < 0 || !range_ok(at, len, (uint64_t)size) ||
	    !range_ok(cell + 4ull, (uint64_t)size, h->size))
		return -EUCLEAN;
	return fs_file_read(h->file, buf, FIRST_BIN + (uint64_t)cell + 4 + at, len);
}

int hive_open(struct hive *h, struct fs_file *file)
{
	uint8_t b[512];

	*h = (struct hive){.file = file};
	if (fs_file_size(file) < FIRST_BIN + 4096)
		return -EUCLEAN;
	if (fs_file_read(file, b, 0, sizeof(b)))
		return -EIO;
	if (memcmp(b, "regf", 4) || load_u32(b + 20) != 1)
		return -EUCLEAN;
	h->torn = load_u32(b + 4) != load_u32(b + 8);
	h->root = load_u32(b + 36);
	h->size = (uint32_t)min_u64(load_u32(b + 40), fs_file_size(file) - FIRST_BIN);
	return 0;
}

/* Is the name of n bytes that follows in the cell this one? */
static bool name_is(struct hive *h, uint32_t cell, uint32_t at, uint32_t n, bool ascii,
		    const char *want, size_t want_len)
{
	char raw[MAX_NAME + 1], *text;
	bool same;

	if (n > MAX_NAME || cell_read(h, cell, at, raw, n))
		return false;
	if (ascii)
		return n == want_len && !strncasecmp(raw, want, n);
	text = utf16_to_utf8(raw, n & ~1u, false);
	same = text && strlen(text) == want_len && !strncasecmp(text, want, want_len);
	free(text);
	return same;
}

static bool key_is(struct hive *h, uint32_t cell, const char *want, size_t len)
{
	struct nk k;

	return !cell_read(h, cell, 0, &k, sizeof(k)) && !memcmp(k.magic, "nk", 2) &&
	       name_is(h, cell, sizeof(k), le16_get(k.name_len),
		       le16_get(k.flags) & NODE_ASCII, want, len);
}

/* What "lh" lists have beside each key. */
static uint32_t hash_of(const char *name, size_t len)
{
	uint32_t v = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)name[i];

		v = v * 37 + (c >= 'a' && c <= 'z' ? c - 32u : c);
	}
	return v;
}

/* A key in a list of keys, which may be a list of lists. */
static int find_in_list(struct hive *h, uint32_t list, const char *name, size_t len,
			unsigned depth, uint32_t *out)
{
	uint8_t head[4], *p;
	uint32_t n, each;
	int rc = -ENOENT;

	if (cell_read(h, list, 0, head, 4))
		return -EUCLEAN;
	n = load_u16(head + 2);
	each = head[0] == 'l' && (head[1] == 'f' || head[1] == 'h') ? 8 : 4;
	if (memcmp(head, "lf", 2) && memcmp(head, "lh", 2) && memcmp(head, "li", 2) &&
	    memcmp(head, "ri", 2))
		return -EUCLEAN;
	if (head[0] == 'r' && depth)
		return -EUCLEAN;
	p = mem_new(n * each + 1u, 1);
	if (!p || cell_read(h, list, 4, p, n * each)) {
		free(p);
		return -EUCLEAN;
	}
	for (uint32_t i = 0; i < n && rc == -ENOENT; i++) {
		uint32_t cell = load_u32(p + i * each);

		if (head[0] == 'r') {
			rc = find_in_list(h, cell, name, len, depth + 1, out);
			continue;
		}
		if (head[1] == 'h' && load_u32(p + i * 8 + 4) != hash_of(name, len))
			continue;
		if (key_is(h, cell, name, len)) {
			*out = cell;
			rc = 0;
		}
	}
	free(p);
	return rc;
}

int hive_find(struct hive *h, uint32_t key, const char *path, uint32_t *out)
{
	for (unsigned depth = 0; depth < MAX_DEPTH; depth++) {
		size_t n = strcspn(path, "\\");
		struct nk k;
		int rc;

		if (!n) {
			*out = key;
			return 0;
		}
		if (cell_read(h, key, 0, &k, sizeof(k)) || memcmp(k.magic, "nk", 2))
			return -EUCLEAN;
		if (!le32_get(k.n_keys))
			return -ENOENT;
		rc = find_in_list(h, le32_get(k.keys), path, n, 0, &key);
		if (rc)
			return rc;
		path += n;
		path += *path == '\\';
	}
	return -ENOENT;
}

static int find_value(struct hive *h, uint32_t key, const char *name, struct vk *v,
		      uint32_t *cell)
{
	struct nk k;
	uint32_t n;

	if (cell_read(h, key, 0, &k, sizeof(k)) || memcmp(k.magic, "nk", 2))
		return -EUCLEAN;
	n = (uint32_t)min_u64(le32_get(k.n_values), MAX_KEYS);
	for (uint32_t i = 0; i < n; i++) {
		le32 at;

		if (cell_read(h, le32_get(k.values), i * 4, &at, 4))
			return -EUCLEAN;
		*cell = le32_get(at);
		if (!cell_read(h, *cell, 0, v, sizeof(*v)) &&
		    !memcmp(v->magic, "vk", 2) &&
		    name_is(h, *cell, sizeof(*v), le16_get(v->name_len),
			    le16_get(v->flags) & VALUE_ASCII, name, strlen(name)))
			return 0;
	}
	return -ENOENT;
}

/* Small data stands in the place of its offset. */
static int read_data(struct hive *h, const struct vk *v, void *buf, uint32_t len)
{
	if (le32_get(v->len) & 0x80000000) {
		if (len > 4)
			return -EUCLEAN;
		memcpy(buf, &v->data, len);
		return 0;
	}
	return cell_read(h, le32_get(v->data), 0, buf, len);
}

char *hive_text(struct hive *h, uint32_t key, const char *name)
{
	struct vk v;
	uint32_t cell, len;
	uint8_t *raw;
	char *text = NULL;

	if (find_value(h, key, name, &v, &cell))
		return NULL;
	len = le32_get(v.len) & 0x7fffffff;
	if ((le32_get(v.type) != 1 && le32_get(v.type) != 2) || len > MAX_DATA)
		return NULL;
	raw = mem_new(len + 2u, 1);
	if (raw && !read_data(h, &v, raw, len))
		text = utf16_to_utf8(raw, len & ~1u, false);
	free(raw);
	return text;
}

int hive_number(struct hive *h, uint32_t key, const char *name, uint32_t *out)
{
	struct vk v;
	uint32_t cell;
	le32 n;
	int rc = find_value(h, key, name, &v, &cell);

	if (rc)
		return rc;
	if (le32_get(v.type) != 4 || (le32_get(v.len) & 0x7fffffff) != 4 ||
	    read_data(h, &v, &n, 4))
		return -EUCLEAN;
	*out = le32_get(n);
	return 0;
}
