/*
 * pack/xva.c - Xen's XVA: a tar file with ova.xml, and each disk cut into blocks of 1 MiB named Ref:N/00000000 and up, each
 * followed by a member with its digest. Blocks of zeros are left out. One thread.
 *
 * Readers of the format count: a number that is skipped is a block of zeros, and an empty block (a sign of life
 * between long runs of zeros) takes a number and no room.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "pack/hash.h"
#include "pack/package_int.h"
#include "pack/xml.h"

#define BLOCK    (1u << 20)
#define MAX_XML  (16u << 20)
#define MAX_DISK (64ull << 40)
#define MAX_TEXT 64

struct place {
	uint64_t next; /* number of the block that would follow */
	uint64_t end;  /* of the disk so far */
	uint64_t off;  /* of the last block in the package */
	uint32_t len;
};

struct xva {
	struct package *p;
	struct package_file xml;
	struct place at[MAX_DISKS];
	unsigned last; /* disk of the last block */
};

static bool xva_probe(const char *path, const uint8_t *head, size_t len)
{
	(void)path;
	return head && tar_looks_like(head, len) &&
	       !strcmp((const char *)head, "ova.xml");
}

/* "Ref:12/00000003" */
static bool parse_name(const char *name, size_t *ref_len, uint64_t *number,
		       const char **suffix)
{
	const char *slash = strchr(name, '/');
	char *end;

	if (!slash || slash == name || slash - name > 100 ||
	    !isdigit((unsigned char)slash[1]))
		return false;
	*ref_len = (size_t)(slash - name);
	*number = strtoull(slash + 1, &end, 10);
	*suffix = end;
	return *number <= MAX_DISK / BLOCK;
}

static int find_disk(struct xva *x, const char *name, size_t len, unsigned *out,
		     struct err *err)
{
	struct package *p = x->p;
	char ref[128];

	for (unsigned k = 0; k < p->n_disks; k++) {
		unsigned i = (x->last + k) % p->n_disks; /* mostly the same again */

		if (!strncmp(p->disk[i].name, name, len) && !p->disk[i].name[len]) {
			*out = i;
			return 0;
		}
	}
	snprintf(ref, sizeof(ref), "%.*s", (int)len, name);
	*out = p->n_disks;
	return package_add_disk(p, ref, err) ? 0 : -err->code;
}

static int add_block(struct xva *x, unsigned i, uint64_t number,
		     const struct tar_entry *e, struct err *err)
{
	struct place *at = &x->at[i];

	if (number < at->next || e->size > BLOCK)
		return err_set(err, EINVAL,
			       "'%s' is damaged: block '%.60s' is out of order or too "
			       "large",
			       x->p->path, e->name);
	at->end += (number - at->next) * BLOCK;
	at->next = number + 1;
	at->off = e->off;
	at->len = (uint32_t)e->size;
	if (e->size &&
	    package_add_piece(&x->p->disk[i], at->end, e->off, (uint32_t)e->size))
		return err_set(err, ENOMEM, "no memory to open '%s'", x->p->path);
	at->end += e->size;
	return 0;
}

/* The digest of the block before. */
static int add_digest(struct xva *x, unsigned i, uint64_t number, bool xx,
		      const struct tar_entry *e, struct err *err)
{
	struct package *p = x->p;
	const struct place *at = &x->at[i];

	if (number + 1 != at->next || e->size > MAX_TEXT)
		return err_set(err, EINVAL,
			       "'%s' is damaged: '%.60s' is no digest of the block "
			       "before",
			       p->path, e->name);
	if (p->n_blocks == p->block_size) {
		size_t more = p->block_size ? p->block_size * 2 : 256;
		struct block_digest *v = mem_resize(p->block, more, sizeof(*v));

		if (!v)
			return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
		p->block = v;
		p->block_size = more;
	}
	p->block[p->n_blocks++] =
		(struct block_digest){at->off, e->off, at->len, (uint32_t)e->size, xx};
	return 0;
}

static int member(void *ctx, const struct tar_entry *e, struct err *err)
{
	struct xva *x = ctx;
	const char *suffix;
	uint64_t number;
	size_t len;
	unsigned i;
	int rc;

	if (!strcmp(e->name, "ova.xml")) {
		x->xml.off = e->off;
		x->xml.size = e->size;
		return 0;
	}
	if (!parse_name(e->name, &len, &number, &suffix))
		return 0;
	rc = find_disk(x, e->name, len, &i, err);
	if (rc)
		return rc;
	x->last = i;
	if (!*suffix)
		return add_block(x, i, number, e, err);
	if (!strcasecmp(suffix, ".checksum"))
		return add_digest(x, i, number, false, e, err);
	if (!strcmp(suffix, ".xxhash"))
		return add_digest(x, i, number, true, e, err);
	return 0;
}

/* ---- ova.xml: values as XML-RPC has them ---- */

/* The value of a member of a <struct>. */
static xmlNode *value_of(const xmlNode *s, const char *name)
{
	for (xmlNode *m = xml_child(s, "member"); m; m = xml_next(m, "member")) {
		char *text = xml_text(xml_child(m, "name"));
		bool is = text && !strcmp(text, name);

		free(text);
		if (is)
			return xml_child(m, "value");
	}
	return NULL;
}

static char *text_of(const xmlNode *s, const char *name)
{
	const xmlNode *v = value_of(s, name);

	return v ? xml_text(v) : NULL;
}

static int read_vdi(struct xva *x, const char *id, const xmlNode *snap, struct err *err)
{
	struct package *p = x->p;

	for (unsigned i = 0; i < p->n_disks; i++) {
		uint64_t size;

		if (strcmp(p->disk[i].name, id) ||
		    !xml_number(text_of(snap, "virtual_size"), &size))
			continue;
		if (size < x->at[i].end || size > MAX_DISK)
			return err_set(err, EINVAL,
				       "'%s' is damaged: disk %.60s has %llu bytes, "
				       "and blocks up to %llu",
				       p->path, id, (unsigned long long)size,
				       (unsigned long long)x->at[i].end);
		p->disk[i].size = size;
	}
	return 0;
}

static void read_vm(struct package *p, const xmlNode *snap)
{
	uint64_t v;
	char *text;

	if (p->name)
		return;
	p->name = text_of(snap, "name_label");
	if (xml_number(text_of(snap, "memory_static_max"), &v))
		p->memory = v;
	if (xml_number(text_of(snap, "VCPUs_max"), &v) && v <= 4096)
		p->cpus = (unsigned)v;
	text = text_of(value_of(snap, "HVM_boot_params")
			       ? xml_child(value_of(snap, "HVM_boot_params"), "struct")
			       : NULL,
		       "firmware");
	p->firmware = text;
}

static int read_object(struct xva *x, const xmlNode *s, struct err *err)
{
	const xmlNode *snap = xml_child(value_of(s, "snapshot"), "struct");
	char *class = text_of(s, "class"), *id = text_of(s, "id");
	int rc = 0;

	if (class && id && snap && !strcmp(class, "VDI"))
		rc = read_vdi(x, id, snap, err);
	else if (class && snap && !strcmp(class, "VM"))
		read_vm(x->p, snap);
	free(class);
	free(id);
	return rc;
}

static int read_xml(struct xva *x, struct err *err)
{
	const xmlNode *n;
	xmlDoc *doc;
	void *text;
	int rc = 0;

	x->xml.name = (char *)"ova.xml";
	rc = package_load(x->p, &x->xml, MAX_XML, &text, err);
	if (rc)
		return rc;
	doc = xml_parse(text, x->xml.size, "ova.xml", err);
	free(text);
	if (!doc)
		return -err->code;
	n = xml_child(xmlDocGetRootElement(doc), "struct"); /* <value><struct> */
	n = xml_child(xml_child(value_of(n, "objects"), "array"), "data");
	for (n = xml_child(n, "value"); n && !rc; n = xml_next(n, "value"))
		rc = read_object(x, xml_child(n, "struct"), err);
	xmlFreeDoc(doc);
	return rc;
}

static int xva_open(struct package *p, struct err *err)
{
	struct xva *x = NEW(struct xva);
	int rc;

	if (!x)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	x->p = p;
	rc = tar_walk(p->fd, p->path, member, x, p->stop, err);
	for (unsigned i = 0; i < p->n_disks && !rc; i++) {
		p->disk[i].size = align_up(x->at[i].end, 512);
		p->disk[i].format = strdup("raw");
		if (!p->disk[i].format)
			rc = err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	}
	if (!rc)
		rc = read_xml(x, err);
	free(x);
	return rc;
}

static int check_block(struct package *p, const struct block_digest *b, struct err *err)
{
	char want[MAX_TEXT + 1] = "", got[HASH_TEXT];
	int64_t n = fd_pread_full(p->fd, want, b->text_len, b->text_off);
	int rc = b->xx ? hash_xxh64(p->fd, b->off, b->len, got)
		       : hash_file("sha1", p->fd, b->off, b->len, p->stop, got);

	if (rc == -EINTR)
		return err_set(err, EINTR, "interrupted");
	if (rc || n != b->text_len)
		return err_sys(err, rc ? -rc : EIO, "cannot read '%s' at offset %llu",
			       p->path, (unsigned long long)b->off);
	want[strcspn(want, " \r\n")] = 0;
	if (strcasecmp(want, got))
		return err_set(err, EBADMSG,
			       "'%s' is damaged: the block at offset %llu does not "
			       "have the digest that is with it",
			       p->path, (unsigned long long)b->off);
	return 0;
}

static int xva_verify(struct package *p, unsigned *n, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < p->n_blocks && !rc; i++, ++*n)
		rc = check_block(p, &p->block[i], err);
	return rc;
}

const struct package_kind package_xva = {
	.name = "xva",
	.title = "Xen export",
	.probe = xva_probe,
	.open = xva_open,
	.verify = xva_verify,
};
