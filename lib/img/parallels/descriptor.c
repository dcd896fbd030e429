/*
 * img/parallels/descriptor.c - takes DiskDescriptor.xml apart, which says what files a bundle (".hdd" folder) consists of
 * and which snapshots they are. The layout is docs/interop/prl-xml of QEMU. One thread.
 */
#include <ctype.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parallels/parallels_int.h"

#define NO_GUID      "{00000000-0000-0000-0000-000000000000}"
/* Larger numbers are damage: a 2 TiB disk in 2 GiB pieces has a thousand. */
#define MAX_STORAGES 4096
#define MAX_IMAGES   256

static xmlNode *child(xmlNode *n, const char *name)
{
	for (n = n ? n->children : NULL; n; n = n->next)
		if (n->type == XML_ELEMENT_NODE && !strcmp((char *)n->name, name))
			return n;
	return NULL;
}

static xmlNode *next(xmlNode *n, const char *name)
{
	while ((n = n->next))
		if (n->type == XML_ELEMENT_NODE && !strcmp((char *)n->name, name))
			return n;
	return NULL;
}

/* The text of an element, without blanks at its ends, new memory; NULL: none. */
static char *text_of(xmlNode *n)
{
	xmlChar *all = n ? xmlNodeGetContent(n) : NULL;
	const char *p = (const char *)all;
	char *out = NULL;

	if (p) {
		size_t len;

		p += strspn(p, " \t\r\n");
		len = strlen(p);
		while (len && strchr(" \t\r\n", p[len - 1]))
			len--;
		out = len ? strndup(p, len) : NULL;
	}
	xmlFree(all);
	return out;
}

static bool number_of(xmlNode *n, uint64_t *v)
{
	char *text = text_of(n), *end = NULL;
	bool ok = text && isdigit((unsigned char)*text);

	if (ok) {
		errno = 0;
		*v = strtoull(text, &end, 10);
		ok = !errno && !*end && *v <= INT64_MAX / 1024;
	}
	free(text);
	return ok;
}

static bool guid_of(xmlNode *n, char out[40])
{
	char *text = text_of(n);
	bool ok = text && strlen(text) == 38 && text[0] == '{' && text[37] == '}';

	for (unsigned i = 0; ok && i <= 38; i++)
		out[i] = (char)tolower((unsigned char)text[i]);
	free(text);
	return ok;
}

static int damaged(struct err *err, const char *what)
{
	return err_set(err, EINVAL, "it is damaged: %s", what);
}

/* ---- storages ---- */

static int take_image(struct descriptor_storage *s, xmlNode *n, struct err *err)
{
	struct descriptor_image *v = mem_resize(s->image, s->n_images + 1, sizeof(*v));
	char *type = text_of(child(n, "Type"));
	bool packed = type && !strcmp(type, "Compressed");
	bool plain = type && !strcmp(type, "Plain");

	free(type);
	if (!v)
		return err_set(err, ENOMEM, "no memory");
	s->image = v;
	v += s->n_images;
	*v = (struct descriptor_image){.plain = plain};
	if (!packed && !plain)
		return err_set(err, ENOTSUP, "it has a file of unknown type");
	if (!guid_of(child(n, "GUID"), v->guid))
		return damaged(err, "a file has no identifier");
	if (descriptor_image(s, v->guid))
		return damaged(err, "two files have one identifier");
	v->name = text_of(child(n, "File"));
	if (!v->name)
		return damaged(err, "a file has no name");
	s->n_images++;
	return 0;
}

static int take_storage(struct descriptor *d, xmlNode *n, struct err *err)
{
	struct descriptor_storage *v =
		mem_resize(d->storage, d->n_storages + 1, sizeof(*v));
	int rc = 0;

	if (!v)
		return err_set(err, ENOMEM, "no memory");
	d->storage = v;
	v += d->n_storages;
	*v = (struct descriptor_storage){0};
	if (d->n_storages++ == MAX_STORAGES)
		return damaged(err, "it has more than 4096 parts");
	if (!number_of(child(n, "Start"), &v->start) ||
	    !number_of(child(n, "End"), &v->end) || v->start >= v->end)
		return damaged(err, "a part of the disk has no place");
	for (n = child(n, "Image"); n && !rc; n = next(n, "Image"))
		rc = v->n_images == MAX_IMAGES
			     ? damaged(err, "a part has more than 256 files")
			     : take_image(v, n, err);
	return rc;
}

static int by_start(const void *a, const void *b)
{
	const struct descriptor_storage *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int take_storages(struct descriptor *d, xmlNode *root, struct err *err)
{
	xmlNode *n = child(child(root, "StorageData"), "Storage");
	uint64_t at = 0;
	int rc = 0;

	for (; n && !rc; n = next(n, "Storage"))
		rc = take_storage(d, n, err);
	if (rc)
		return rc;
	if (!d->n_storages)
		return damaged(err, "it has no StorageData");
	qsort(d->storage, d->n_storages, sizeof(*d->storage), by_start);
	for (unsigned i = 0; i < d->n_storages; i++) {
		if (d->storage[i].start != at)
			return damaged(err, "its parts overlap, or one is missing");
		at = d->storage[i].end;
	}
	return at == d->sectors ? 0
				: damaged(err, "its parts do not add up to its size");
}

/* ---- snapshots ---- */

static xmlNode *find_shot(xmlNode *shots, const char *guid)
{
	char g[40];

	for (xmlNode *n = child(shots, "Shot"); n; n = next(n, "Shot"))
		if (guid_of(child(n, "GUID"), g) && !strcmp(g, guid))
			return n;
	return NULL;
}

/* The current state, its parent, and so on. */
static int take_chain(struct descriptor *d, xmlNode *root, struct err *err)
{
	xmlNode *shots = child(root, "Snapshots"), *top = child(shots, "TopGUID");
	char guid[40] = PARALLELS_TOP;

	if (top && !guid_of(top, guid))
		return damaged(err, "TopGUID is no identifier");
	while (strcmp(guid, NO_GUID)) {
		xmlNode *shot;

		for (unsigned i = 0; i < d->n_chain; i++)
			if (!strcmp(d->chain[i], guid))
				return err_set(err, ELOOP,
					       "its chain of snapshots is a loop");
		if (d->n_chain == PARALLELS_CHAIN)
			return err_set(err, ELOOP,
				       "its chain of snapshots is longer than %d",
				       PARALLELS_CHAIN);
		strcpy(d->chain[d->n_chain++], guid);
		shot = find_shot(shots, guid);
		if (!shot && d->n_chain == 1)
			return 0; /* no snapshots were ever made */
		if (!shot || !guid_of(child(shot, "ParentGUID"), guid))
			return damaged(err, "a snapshot is missing");
	}
	return d->n_chain ? 0 : damaged(err, "TopGUID is zero");
}

/* ---- the whole ---- */

static int check_encryption(xmlNode *parameters, struct err *err)
{
	xmlNode *n = child(child(parameters, "Encryption"), "Engine");
	char *engine = text_of(n);
	bool is = engine && *engine && strcmp(engine, NO_GUID);

	free(engine);
	return is ? err_set(err, ENOTSUP, "it is encrypted") : 0;
}

static int take_document(struct descriptor *d, xmlDoc *doc, struct err *err)
{
	xmlNode *root = xmlDocGetRootElement(doc), *n;
	int rc;

	if (!root || strcmp((char *)root->name, "Parallels_disk_image"))
		return err_set(err, EINVAL, "it is no disk description of Parallels");
	n = child(root, "Disk_Parameters");
	if (!number_of(child(n, "Disk_size"), &d->sectors) || !d->sectors)
		return damaged(err, "it has no Disk_size");
	rc = check_encryption(n, err);
	if (!rc)
		rc = take_storages(d, root, err);
	if (!rc)
		rc = take_chain(d, root, err);
	return rc;
}

int descriptor_parse(struct descriptor *d, const char *xml, size_t len, struct err *err)
{
	xmlDoc *doc;
	int rc;

	*d = (struct descriptor){0};
	/* There are none in such files; what they expand to would have no bound. */
	if (memmem(xml, len, "<!DOCTYPE", 9))
		return err_set(err, EINVAL, "it has a document type");
	doc = xmlReadMemory(xml, (int)len, NULL, NULL,
			    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
				    XML_PARSE_NOCDATA);
	if (!doc)
		return err_set(err, EINVAL, "it is damaged: it is no XML");
	rc = take_document(d, doc, err);
	xmlFreeDoc(doc);
	return rc;
}

void descriptor_fini(struct descriptor *d)
{
	for (unsigned i = 0; i < d->n_storages; i++) {
		for (unsigned k = 0; k < d->storage[i].n_images; k++)
			free(d->storage[i].image[k].name);
		free(d->storage[i].image);
	}
	free(d->storage);
	*d = (struct descriptor){0};
}

const struct descriptor_image *descriptor_image(const struct descriptor_storage *s,
						const char *guid)
{
	for (unsigned i = 0; i < s->n_images; i++)
		if (!strcmp(s->image[i].guid, guid))
			return &s->image[i];
	return NULL;
}
