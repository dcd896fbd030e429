/*
 * pack/xml.h - XML from packages, by libxml2: nothing is fetched, no document type, no entities. Names are compared
 * without their namespaces, which differ between versions of one format. Any thread.
 */
#ifndef PACK_XML_H
#define PACK_XML_H

#include <libxml/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define XML_MAX (16u << 20)

/* Parses text of at most XML_MAX bytes; xmlFreeDoc() it. NULL with the message set. `name` is for messages. */
xmlDoc *xml_parse(const void *p, size_t len, const char *name, struct err *err);

/* The first child (next sibling) element with that local name; name NULL: any. NULL: none. */
xmlNode *xml_child(const xmlNode *n, const char *name);
xmlNode *xml_next(const xmlNode *n, const char *name);
/* The first element of that name in or below `n`, in document order; and the one behind `at` (within `n`). */
xmlNode *xml_find(const xmlNode *n, const xmlNode *at, const char *name);
bool xml_is(const xmlNode *n, const char *name);

/* Text of an element, of an attribute (by local name), without blanks around it: on the heap, NULL if not there
 * or longer than 4 KiB. */
char *xml_text(const xmlNode *n);
char *xml_attr(const xmlNode *n, const char *name);
/* A decimal number in either: false if it is none. */
bool xml_number(char *text, uint64_t *v);

#endif
