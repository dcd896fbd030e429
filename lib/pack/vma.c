/*
 * pack/vma.c - Proxmox's VMA: a header with the machine's settings and the names of its disks, then extents of up to 59
 * clusters of 64 KiB, of whose 16 blocks those that are not zeros are there. MD5 of the header and of each
 * extent's header. Follows vma_spec.txt of Proxmox' QEMU. One thread.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "pack/hash.h"
#include "pack/package_int.h"

enum { BLOCK = 4096, CLUSTER = 65536, PER_EXTENT = 59, DEVICES = 256, CONFIGS = 256 };
#define MAX_HEADER (32u << 20)
#define MAX_DISK   (64ull << 40)

struct device {
	be32 name, reserved;
	be64 size;
	uint8_t reserved2[16];
};

struct header {
	char magic[4];
	be32 version;
	uint8_t uuid[16];
	be64 ctime;
	uint8_t md5[16];
	be32 blob_off, blob_len, header_len;
	uint8_t reserved[1984];
	be32 config_name[CONFIGS], config_data[CONFIGS];
	be32 reserved2;
	struct device dev[DEVICES];
};

struct extent {
	char magic[4];
	be16 reserved, blocks;
	uint8_t uuid[16];
	uint8_t md5[16];
	be64 info[PER_EXTENT]; /* mask, -, device, cluster: 16, 8, 8, 32 bits */
};
static_assert(sizeof(struct header) == 12288 && sizeof(struct extent) == 512, "VMA");

struct vma {
	struct package *p;
	uint8_t *head; /* the whole header */
	uint32_t len;
	const struct header *h;
	int disk[DEVICES]; /* device to disk; -1: none */
	uint64_t file_size;
};

static bool vma_probe(const char *path, const uint8_t *head, size_t len)
{
	(void)path;
	return head && len >= 64 && !memcmp(head, "VMA\0", 4);
}

/* A MD5 that lies within what it is of, where it counts as zeros. */
static bool md5_ok(uint8_t *p, size_t len, uint8_t *field)
{
	uint8_t want[16], got[HASH_MAX];

	memcpy(want, field, 16);
	memset(field, 0, 16);
	hash_memory("md5", p, len, got);
	memcpy(field, want, 16);
	return !memcmp(want, got, 16);
}

/* ---- the header ---- */

static int bad(const struct vma *v, const char *what, struct err *err)
{
	return err_set(err, EINVAL, "'%s' is damaged: %s", v->p->path, what);
}

static int load_header(struct vma *v, struct err *err)
{
	struct header first;
	int64_t n = fd_pread_full(v->p->fd, &first, sizeof(first), 0);

	if (n != sizeof(first))
		return bad(v, "its header is not complete", err);
	if (be32_get(first.version) != 1)
		return err_set(err, ENOTSUP, "'%s' is of version %u, only 1 is known",
			       v->p->path, be32_get(first.version));
	v->len = be32_get(first.header_len);
	if (v->len < sizeof(first) || v->len > MAX_HEADER || v->len % 512 ||
	    v->len > v->file_size ||
	    !range_ok(be32_get(first.blob_off), be32_get(first.blob_len), v->len))
		return bad(v, "the sizes in its header are none", err);
	v->head = malloc(v->len);
	if (!v->head)
		return err_set(err, ENOMEM, "no memory to open '%s'", v->p->path);
	n = fd_pread_full(v->p->fd, v->head, v->len, 0);
	if (n != v->len)
		return bad(v, "its header is not complete", err);
	v->h = (const struct header *)v->head;
	if (!md5_ok(v->head, v->len, v->head + offsetof(struct header, md5)))
		return err_set(err, EBADMSG,
			       "'%s' is damaged: its header does not have the digest "
			       "that is with it",
			       v->p->path);
	return 0;
}

/* A blob: two bytes of length, little-endian, then that many; NULL if it is not in the buffer. */
static const char *blob(const struct vma *v, uint32_t at, uint32_t *len)
{
	uint32_t off = be32_get(v->h->blob_off), room = be32_get(v->h->blob_len);
	const uint8_t *p = v->head + off + at;

	if (!at || !range_ok(at, 2, room))
		return NULL;
	*len = load_u16(p);
	return range_ok(at + 2, *len, room) ? (const char *)p + 2 : NULL;
}

/* One line of qemu-server.conf. */
static void config_line(struct package *p, const char *line, size_t len,
			uint64_t *cores, uint64_t *sockets)
{
	char key[16], value[128];
	size_t k;
	char *to = NULL;

	for (k = 0; k < len && line[k] != ':'; k++)
		;
	if (k == len || k >= sizeof(key) || len - k >= sizeof(value))
		return;
	snprintf(key, sizeof(key), "%.*s", (int)k, line);
	for (k++; k < len && line[k] == ' '; k++)
		;
	snprintf(value, sizeof(value), "%.*s", (int)(len - k), line + k);
	to = value;
	if (!strcmp(key, "name") && !p->name)
		p->name = strdup(to);
	else if (!strcmp(key, "ostype") && !p->os)
		p->os = strdup(to);
	else if (!strcmp(key, "bios") && !p->firmware)
		p->firmware = strdup(strcmp(to, "ovmf") ? "bios" : "efi");
	else if (!strcmp(key, "memory"))
		p->memory = min_u64(strtoull(to, NULL, 10), 1 << 30) << 20;
	else if (!strcmp(key, "cores"))
		*cores = min_u64(strtoull(to, NULL, 10), 4096);
	else if (!strcmp(key, "sockets"))
		*sockets = min_u64(strtoull(to, NULL, 10), 64);
}

static void read_config(struct vma *v)
{
	uint64_t cores = 0, sockets = 1;

	for (unsigned i = 0; i < CONFIGS; i++) {
		uint32_t len, name_len;
		const char *text = blob(v, be32_get(v->h->config_data[i]), &len);
		const char *name = blob(v, be32_get(v->h->config_name[i]), &name_len);

		if (!text || !name || name_len < 16 ||
		    memcmp(name, "qemu-server.conf", 16))
			continue;
		for (uint32_t at = 0; at < len;) {
			const char *end = memchr(text + at, '\n', len - at);
			size_t n = end ? (size_t)(end - (text + at)) : len - at;

			if (n && text[at] == '[') /* a snapshot's settings */
				break;
			config_line(v->p, text + at, n, &cores, &sockets);
			at += (uint32_t)n + 1;
		}
	}
	v->p->cpus = (unsigned)(cores * (sockets ? sockets : 1));
}

static int add_device(struct vma *v, unsigned i, struct err *err)
{
	uint64_t size = be64_get(v->h->dev[i].size);
	struct package_disk *d;
	uint32_t len;
	const char *name = blob(v, be32_get(v->h->dev[i].name), &len);
	char text[80];

	v->disk[i] = -1;
	if (!size)
		return 0;
	if (!i || !name || size > MAX_DISK)
		return bad(v, "a disk in its header has no name, or no size", err);
	snprintf(text, sizeof(text), "%.*s", (int)min_u64(len, 64), name);
	for (char *s = text; *s; s++)
		if (*s == '/' || (unsigned char)*s < ' ')
			*s = '_';
	d = package_add_disk(v->p, !strncmp(text, "drive-", 6) ? text + 6 : text, err);
	if (!d)
		return -err->code;
	d->size = size;
	d->format = strdup("raw");
	v->disk[i] = (int)v->p->n_disks - 1;
	return d->format ? 0
			 : err_set(err, ENOMEM, "no memory to open '%s'", v->p->path);
}

/* ---- extents ---- */

/* The blocks of one cluster that are there, from *at on. */
static int add_cluster(struct vma *v, uint64_t info, uint64_t *at, struct err *err)
{
	unsigned mask = (unsigned)(info >> 48), dev = info >> 32 & 0xff;
	uint64_t off = (info & 0xffffffff) * CLUSTER;
	struct package_disk *d;

	if (!dev && !mask)
		return 0;
	if (!dev || v->disk[dev] < 0)
		return bad(v, "a cluster belongs to no disk", err);
	d = &v->p->disk[v->disk[dev]];
	if (off >= d->size)
		return bad(v, "a cluster lies behind the end of its disk", err);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t to = off + i * BLOCK;

		if (!(mask & 1u << i))
			continue;
		if (to < d->size &&
		    package_add_piece(d, to, *at,
				      (uint32_t)min_u64(BLOCK, d->size - to)))
			return err_set(err, ENOMEM, "no memory to open '%s'",
				       v->p->path);
		*at += BLOCK;
	}
	return 0;
}

static int read_extent(struct vma *v, uint64_t *at, struct err *err)
{
	struct extent e;
	int64_t n = fd_pread_full(v->p->fd, &e, sizeof(e), *at);
	uint64_t begin = *at += sizeof(e);
	int rc = 0;

	if (n != sizeof(e) || memcmp(e.magic, "VMAE", 4) ||
	    memcmp(e.uuid, v->h->uuid, 16))
		return bad(v, "an extent does not begin where it should", err);
	if (!md5_ok((uint8_t *)&e, sizeof(e), e.md5))
		return err_set(err, EBADMSG,
			       "'%s' is damaged: the extent at offset %llu does not "
			       "have the digest that is with it",
			       v->p->path, (unsigned long long)(begin - sizeof(e)));
	for (unsigned i = 0; i < PER_EXTENT && !rc; i++)
		rc = add_cluster(v, be64_get(e.info[i]), at, err);
	if (!rc && (*at - begin) / BLOCK != be16_get(e.blocks))
		return bad(v, "an extent has more or fewer blocks than it says", err);
	if (!rc && *at > v->file_size)
		return bad(v, "it ends within an extent", err);
	v->p->n_blocks++;
	return rc;
}

static int by_offset(const void *a, const void *b)
{
	const struct img_piece *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

static int read_all(struct vma *v, struct err *err)
{
	uint64_t at;
	int rc = load_header(v, err);

	for (unsigned i = 0; i < DEVICES && !rc; i++)
		rc = add_device(v, i, err);
	if (rc)
		return rc;
	read_config(v);
	for (at = v->len; at < v->file_size && !rc;) {
		rc = read_extent(v, &at, err);
		if (!rc && v->p->stop && atomic_load(v->p->stop))
			rc = err_set(err, EINTR, "interrupted");
	}
	for (unsigned i = 0; i < v->p->n_disks; i++)
		if (v->p->disk[i].n)
			qsort(v->p->disk[i].v, v->p->disk[i].n,
			      sizeof(struct img_piece), by_offset);
	return rc;
}

static int vma_open(struct package *p, struct err *err)
{
	struct vma v = {.p = p};
	struct stat st;
	int rc = fstat(p->fd, &st) < 0
			 ? err_sys(err, errno, "cannot read '%s'", p->path)
			 : 0;

	if (!rc) {
		v.file_size = (uint64_t)st.st_size;
		rc = read_all(&v, err);
	}
	free(v.head);
	return rc;
}

/* All of them were looked at when it was opened. */
static int vma_verify(struct package *p, unsigned *n, struct err *err)
{
	(void)err;
	*n = (unsigned)p->n_blocks + 1;
	return 0;
}

const struct package_kind package_vma = {
	.name = "vma",
	.title = "Proxmox backup",
	.probe = vma_probe,
	.open = vma_open,
	.verify = vma_verify,
};
