/*
 * img/dmg/tables.c - finds the block tables of Apple's disk images: in their property list (an XML file: the
 * "Data" of the members of the list "blkx"), or in the resource fork of old ones (Inside Macintosh: More
 * Toolbox, chapter 1: resources of type 'blkx'). One thread.
 */
#include <libxml/xmlreader.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/dmg/dmg_int.h"

/* ---- property list ---- */

/* Where the reader is. */
struct plist {
	xmlTextReader *r;
	int list_depth; /* of the list "blkx"; -1: not in it */
	char key[16];   /* the last one */
	dmg_take *take;
	void *ctx;
};

static int base64_digit(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* In place; the length, or -1. White space is skipped, the end is at "=". */
static ptrdiff_t base64_decode(unsigned char *s)
{
	size_t n = 0;
	uint32_t bits = 0;
	unsigned have = 0;

	for (const unsigned char *p = s; *p && *p != '='; p++) {
		int d = base64_digit(*p);

		if (d < 0 && !strchr(" \t\r\n", *p))
			return -1;
		if (d < 0)
			continue;
		bits = bits << 6 | (uint32_t)d;
		have += 6;
		if (have >= 8) {
			have -= 8;
			s[n++] = (uint8_t)(bits >> have);
		}
	}
	return (ptrdiff_t)n;
}

static int plist_data(struct plist *x, struct err *err)
{
	xmlChar *text = xmlTextReaderReadString(x->r);
	ptrdiff_t n = text ? base64_decode(text) : 0;
	int rc;

	if (n < 0)
		rc = err_set(err, EINVAL, "a table of it is no base64 text");
	else
		rc = n ? x->take(x->ctx, text, (size_t)n, err) : 0;
	xmlFree(text);
	return rc;
}

static int plist_element(struct plist *x, struct err *err)
{
	const char *name = (const char *)xmlTextReaderConstName(x->r);
	int depth = xmlTextReaderDepth(x->r), rc = 0;
	xmlChar *text;

	if (!name)
		return 0;
	if (!strcmp(name, "key")) {
		text = xmlTextReaderReadString(x->r);
		x->key[0] = '\0';
		if (text && strlen((char *)text) < sizeof(x->key))
			strcpy(x->key, (char *)text);
		xmlFree(text);
		return 0;
	}
	if (!strcmp(name, "array") && !strcmp(x->key, "blkx") && x->list_depth < 0)
		x->list_depth = depth;
	else if (!strcmp(name, "data") && !strcmp(x->key, "Data") &&
		 x->list_depth >= 0 && depth == x->list_depth + 2)
		rc = plist_data(x, err);
	x->key[0] = '\0';
	return rc;
}

int dmg_plist_tables(const char *xml, size_t len, dmg_take *take, void *ctx,
		     struct err *err)
{
	struct plist x = {.list_depth = -1, .take = take, .ctx = ctx};
	int more, rc = 0;

	/* Property lists have a document type, but no entities of their own. */
	if (memmem(xml, len, "<!ENTITY", 8))
		return err_set(err, EINVAL, "the property list defines entities");
	x.r = xmlReaderForMemory(xml, (int)len, NULL, NULL,
				 XML_PARSE_NONET | XML_PARSE_NOERROR |
					 XML_PARSE_NOWARNING);
	if (!x.r)
		return err_set(err, ENOMEM, "no memory for the property list");
	while (!rc && (more = xmlTextReaderRead(x.r)) == 1) {
		int type = xmlTextReaderNodeType(x.r);

		if (type == XML_READER_TYPE_ELEMENT)
			rc = plist_element(&x, err);
		else if (type == XML_READER_TYPE_END_ELEMENT &&
			 xmlTextReaderDepth(x.r) == x.list_depth)
			x.list_depth = -1;
	}
	if (!rc && more < 0)
		rc = err_set(err, EINVAL, "the property list is damaged");
	xmlFreeTextReader(x.r);
	return rc;
}

/* ---- resource fork ---- */

static uint32_t get16(const uint8_t *p)
{
	be16 v;

	memcpy(&v, p, sizeof(v));
	return be16_get(v);
}

static uint32_t get32(const uint8_t *p)
{
	be32 v;

	memcpy(&v, p, sizeof(v));
	return be32_get(v);
}

struct fork {
	const uint8_t *p;
	size_t len;
	uint32_t data, types; /* where the resources are, and the list of their types */
};

static int fork_damaged(struct err *err)
{
	return err_set(err, EINVAL, "the resource fork is damaged");
}

/* The resources of one type: `list` is where the list of their places is. */
static int fork_type(const struct fork *f, uint64_t list, uint32_t n, dmg_take *take,
		     void *ctx, struct err *err)
{
	int rc = 0;

	if (!range_ok(list, n * 12ull, f->len))
		return fork_damaged(err);
	for (uint32_t i = 0; i < n && !rc; i++) {
		uint64_t at = f->data + (get32(f->p + list + i * 12 + 4) & 0xffffff);
		uint32_t len;

		if (!range_ok(at, 4, f->len))
			return fork_damaged(err);
		len = get32(f->p + at);
		if (!range_ok(at + 4, len, f->len))
			return fork_damaged(err);
		rc = take(ctx, f->p + at + 4, len, err);
	}
	return rc;
}

int dmg_fork_tables(const uint8_t *p, size_t len, dmg_take *take, void *ctx,
		    struct err *err)
{
	struct fork f = {.p = p, .len = len};
	uint32_t map, n;
	int rc = 0;

	if (len < 16)
		return fork_damaged(err);
	f.data = get32(p);
	map = get32(p + 4);
	if (!range_ok(map, 30, len))
		return fork_damaged(err);
	f.types = map + get16(p + map + 24);
	if (!range_ok(f.types, 2, len))
		return fork_damaged(err);
	n = (get16(p + f.types) + 1) & 0xffff;
	if (!range_ok(f.types + 2ull, n * 8ull, len))
		return fork_damaged(err);
	for (uint32_t i = 0; i < n && !rc; i++) {
		const uint8_t *t = p + f.types + 2 + i * 8;

		if (!memcmp(t, "blkx", 4))
			rc = fork_type(&f, (uint64_t)f.types + get16(t + 6),
				       get16(t + 4) + 1, take, ctx, err);
	}
	return rc;
}
