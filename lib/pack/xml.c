/* pack/xml.c - reads XML by libxml2. Any thread. */
#include "pack/xml.h"

#include <libxml/parser.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT 4096

xmlDoc *xml_parse(const void *p, size_t len, const char *name, struct err *err)
{
	int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
		      XML_PARSE_COMPACT;
	xmlDoc *doc;

	if (len > XML_MAX || !len) {
		err_set(err, len ? EFBIG : EINVAL, "'%s' is %s", name,
			len ? "too large for a description" : "empty");
		return NULL;
	}
	if (memmem(p, len, "<!DOCTYPE", 9) || memmem(p, len, "<!ENTITY", 8)) {
		err_set(err, EINVAL, "'%s' has a document type, which is not read",
			name);
		return NULL;
	}
	doc = xmlReadMemory(p, (int)len, NULL, NULL, options);
	if (doc && (doc->intSubset || !xmlDocGetRootElement(doc))) {
		xmlFreeDoc(doc);
		doc = NULL;
	}
	if (!doc)
		err_set(err, EINVAL, "'%s' is not well-formed XML", name);
	return doc;
}

bool xml_is(const xmlNode *n, const char *name)
{
	return n->type == XML_ELEMENT_NODE &&
	       (!name || !strcmp((const char *)n->name, name));
}

xmlNode *xml_child(const xmlNode *n, const char *name)
{
	xmlNode *c = n ? n->children : NULL;

	while (c && !xml_is(c, name))
		c = c->next;
	return c;
}

xmlNode *xml_next(const xmlNode *n, const char *name)
{
	xmlNode *c = n->next;

	while (c && !xml_is(c, name))
		c = c->next;
	return c;
}

/* The node behind `at` in document order, within `top`. */
static const xmlNode *step(const xmlNode *top, const xmlNode *at)
{
	if (at->type == XML_ELEMENT_NODE && at->children)
		return at->children;
	while (at != top && !at->next)
		at = at->parent;
	return at == top ? NULL : at->next;
}

xmlNode *xml_find(const xmlNode *n, const xmlNode *at, const char *name)
{
	if (!n)
		return NULL;
	if (!at && xml_is(n, name))
		return (xmlNode *)n;
	at = step(n, at ? at : n);
	while (at && !xml_is(at, name))
		at = step(n, at);
	return (xmlNode *)at;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static char *trimmed(xmlChar *text)
{
	const char *p = (const char *)text;
	size_t n = p ? strlen(p) : 0;
	char *out;

	while (n && blank(*p)) {
		p++;
		n--;
	}
	while (n && blank(p[n - 1]))
		n--;
	out = text && n <= MAX_TEXT ? strndup(p, n) : NULL;
	xmlFree(text);
	return out;
}

char *xml_text(const xmlNode *n)
{
	return n ? trimmed(xmlNodeGetContent(n)) : NULL;
}

char *xml_attr(const xmlNode *n, const char *name)
{
	for (xmlAttr *a = n ? n->properties : NULL; a; a = a->next)
		if (!strcmp((const char *)a->name, name))
			return trimmed(xmlNodeGetContent((xmlNode *)a));
	return NULL;
}

bool xml_number(char *text, uint64_t *v)
{
	char *end;
	bool ok = text && *text >= '0' && *text <= '9';

	errno = 0;
	*v = ok ? strtoull(text, &end, 10) : 0;
	ok = ok && !errno && !*end;
	free(text);
	return ok;
}
