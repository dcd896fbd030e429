/* img/vmdk/text.c - the descriptors of VMDK images: reading any, writing new ones. Any thread. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/str.h"
#include "img/vmdk/vmdk_int.h"

#define MAX_LINES 65536

void vmdk_desc_fini(struct vmdk_desc *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->line[i].name);
	free(d->line);
	free(d->parent);
	free(d->text);
	*d = (struct vmdk_desc){0};
}

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

/* The word at *p; moves behind it. Returns its length. */
static size_t word(const char **p, const char *end, const char **w)
{
	*w = *p = skip_blanks(*p, end);
	while (*p<end &&*(*p)> ' ')
		(*p)++;
	return (size_t)(*p - *w);
}

static int number(const char **p, const char *end, uint64_t *v)
{
	const char *w;
	size_t n = word(p, end, &w);

	*v = 0;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)w[i]) || *v > VMDK_MAX_EXTENT / 10)
			return -EINVAL;
		*v = *v * 10 + (uint64_t)(w[i] - '0');
	}
	return n && *v <= VMDK_MAX_EXTENT ? 0 : -EINVAL;
}

/* "..." at *p: new memory; NULL when there is none. */
static char *quoted(const char **p, const char *end)
{
	const char *from = skip_blanks(*p, end), *to;

	if (from == end || *from != '"')
		return NULL;
	from++;
	to = memchr(from, '"', (size_t)(end - from));
	if (!to)
		return NULL;
	*p = to + 1;
	return strndup(from, (size_t)(to - from));
}

/* RW 4192256 SPARSE "name" 0 */
static int extent_line(struct vmdk_line *l, const char *p, const char *end)
{
	const char *w;
	size_t n;

	if (number(&p, end, &l->sectors))
		return -EINVAL;
	n = word(&p, end, &w);
	if (!n || n >= sizeof(l->type))
		return -EINVAL;
	memcpy(l->type, w, n);
	if (!strcasecmp(l->type, "ZERO"))
		return 0;
	l->name = quoted(&p, end);
	if (!l->name)
		return -EINVAL;
	if (skip_blanks(p, end) < end && isdigit((unsigned char)*skip_blanks(p, end)))
		return number(&p, end, &l->off);
	return 0;
}

static int add_extent(struct vmdk_desc *d, enum vmdk_access access, const char *p,
		      const char *end)
{
	struct vmdk_line *v;
	int rc;

	if (d->n == MAX_LINES)
		return -E2BIG;
	if (!(d->n & (d->n - 1))) { /* 0, 1, 2, 4, ... */
		v = mem_resize(d->line, d->n ? d->n * 2 : 1, sizeof(*v));
		if (!v)
			return -ENOMEM;
		d->line = v;
	}
	v = &d->line[d->n];
	*v = (struct vmdk_line){.access = access};
	rc = extent_line(v, p, end);
	if (rc)
		free(v->name);
	else
		d->n++;
	return rc;
}

static uint32_t hex(const char *p, const char *end, size_t *len)
{
	uint32_t v = 0;

	for (*len = 0; p < end && *len < 8 && isxdigit((unsigned char)*p); p++, ++*len)
		v = v << 4 |
		    (uint32_t)(isdigit((unsigned char)*p) ? *p - '0'
							  : (*p | 32) - 'a' + 10);
	return v;
}

static bool key_is(const char *key, size_t n, const char *name)
{
	return n == strlen(name) && !strncasecmp(key, name, n);
}

/* key = value */
static int setting(struct vmdk_desc *d, const char *p, const char *end)
{
	const char *eq = memchr(p, '=', (size_t)(end - p)), *v;
	size_t n, len;
	char *text;

	if (!eq)
		return 0;
	for (n = (size_t)(eq - p); n && (p[n - 1] == ' ' || p[n - 1] == '\t');)
		n--;
	v = skip_blanks(eq + 1, end);
	if (key_is(p, n, "CID")) {
		d->cid = hex(v, end, &d->cid_len);
		d->cid_at = (size_t)(v - d->text);
	} else if (key_is(p, n, "parentCID")) {
		d->parent_cid = hex(v, end, &len);
	} else if (key_is(p, n, "createType")) {
		text = quoted(&v, end);
		if (text)
			snprintf(d->create_type, sizeof(d->create_type), "%s", text);
		free(text);
	} else if (key_is(p, n, "parentFileNameHint")) {
		free(d->parent);
		d->parent = quoted(&v, end);
	}
	return 0;
}

static int one_line(struct vmdk_desc *d, const char *p, const char *end)
{
	static const char *const access[] = {
		[VMDK_RW] = "RW",
		[VMDK_RDONLY] = "RDONLY",
		[VMDK_NOACCESS] = "NOACCESS",
	};
	const char *w, *q = p;
	size_t n;

	if (p == end || *p == '#')
		return 0;
	n = word(&q, end, &w);
	for (unsigned i = 0; i < ARRAY_LEN(access); i++)
		if (key_is(w, n, access[i]))
			return add_extent(d, i, q, end);
	return setting(d, p, end);
}

int vmdk_desc_parse(struct vmdk_desc *d, char *text, size_t len, const char *path,
		    struct err *err)
{
	unsigned line = 0;
	const char *end;

	*d = (struct vmdk_desc){
		.text = text, .len = strnlen(text, len), .parent_cid = VMDK_NO_PARENT};
	end = text + d->len;
	for (const char *p = text; p < end;) {
		const char *to = p + strcspn(p, "\r\n");
		int rc = one_line(d, skip_blanks(p, to), to);

		line++;
		if (rc == -ENOMEM)
			return err_set(err, ENOMEM, "no memory to open '%s'", path);
		if (rc)
			return err_set(err, EINVAL,
				       "'%s' is damaged: line %u of its descriptor, "
				       "'%.*s'",
				       path, line, (int)min_u64(60, (uint64_t)(to - p)),
				       p);
		p = to + (to < end) + (to + 1 < end && to[0] == '\r' && to[1] == '\n');
	}
	return 0;
}

char *vmdk_desc_make(const struct vmdk_made *m)
{
	bool ide = !strcmp(m->adapter, "ide");
	unsigned heads = ide ? 16 : 255, sectors = 63;
	uint64_t cylinders = m->size / 512 / (heads * sectors);
	struct str s = {0};

	if (ide)
		cylinders = min_u64(cylinders, 16383);
	str_addf(&s,
		 "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\n"
		 "createType=\"%s\"\n",
		 m->cid, m->parent_cid, m->create_type);
	if (m->parent)
		str_addf(&s, "parentFileNameHint=\"%s\"\n", m->parent);
	str_addf(&s, "\n# Extent description\n%s\n# The Disk Data Base\n#DDB\n\n",
		 m->lines);
	str_addf(&s,
		 "ddb.virtualHWVersion = \"%s\"\n"
		 "ddb.geometry.cylinders = \"%llu\"\n"
		 "ddb.geometry.heads = \"%u\"\n"
		 "ddb.geometry.sectors = \"%u\"\n"
		 "ddb.adapterType = \"%s\"\n"
		 "ddb.toolsVersion = \"%s\"\n",
		 m->hw_version, (unsigned long long)cylinders, heads, sectors,
		 m->adapter, m->tools_version);
	if (s.failed) {
		str_fini(&s);
		return NULL;
	}
	return s.p;
}
