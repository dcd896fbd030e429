/* facts/snap.c - what was read of a computer, as a list of named texts. Any thread, one at a time. */
#include "facts/snap.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"

#define MAX_PATH 256

void snap_fini(struct snap *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->files[i].path);
		free(s->files[i].data);
	}
	free(s->files);
	*s = (struct snap){0};
}

void snap_reading(struct snap *s, const char *root, const char *path)
{
	if (s->where)
		snprintf(s->where, SNAP_WHERE, "%s/%s", root, path);
}

static struct snap_file *next_file(struct snap *s)
{
	if (s->n == SNAP_MAX_FILES)
		return NULL;
	if (s->n == s->size) {
		size_t size = s->size ? 2 * s->size : 64;
		void *p = mem_resize(s->files, size, sizeof(*s->files));

		if (!p)
			return NULL;
		s->files = p;
		s->size = size;
	}
	return &s->files[s->n];
}

void snap_add(struct snap *s, const char *path, const void *data, size_t len, int error)
{
	struct snap_file *f = next_file(s);

	len = min_u64(len, SNAP_MAX_FILE);
	if (!f || s->bytes + len > SNAP_MAX_TEXT) {
		s->full = true;
		return;
	}
	*f = (struct snap_file){.path = strdup(path), .error = error};
	if (!error) {
		f->data = malloc(len + 1);
		f->len = len;
	}
	if (!f->path || (!error && !f->data)) {
		free(f->path);
		free(f->data);
		s->full = true;
		return;
	}
	if (!error) {
		if (len)
			memcpy(f->data, data, len);
		f->data[len] = 0;
	}
	s->bytes += len;
	s->n++;
}

const struct snap_file *snap_find(const struct snap *s, const char *path)
{
	size_t len = strlen(path);

	for (size_t i = 0; i < s->n; i++) {
		const char *p = s->files[i].path;

		if (!strncmp(p, path, len) && (!p[len] || !strcmp(p + len, "/")))
			return &s->files[i];
	}
	return NULL;
}

const char *snap_text(const struct snap *s, const char *path)
{
	const struct snap_file *f = snap_find(s, path);

	return f ? f->data : NULL;
}

char *snap_line(const struct snap *s, const char *path, char *buf, size_t len)
{
	const char *t = snap_text(s, path);
	size_t n;

	buf[0] = 0;
	if (!t)
		return buf;
	t += strspn(t, " \t");
	n = strcspn(t, "\n");
	while (n && isspace((unsigned char)t[n - 1]))
		n--;
	snprintf(buf, len, "%.*s", (int)min_u64(n, len), t);
	for (char *p = buf; *p; p++) /* names of firmware may hold anything */
		if ((unsigned char)*p < 32 || (unsigned char)*p == 127)
			*p = '?';
	return buf;
}

/* The length of the first name below `dir` in path, 0: not below it. */
static size_t name_len(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) ? 0 : strcspn(path + n, "/");
}

bool snap_next(const struct snap *s, const char *dir, size_t *pos, char *buf,
	       size_t len)
{
	while (*pos < s->n) {
		size_t k = (*pos)++, n = name_len(s->files[k].path, dir);
		const char *name = s->files[k].path + strlen(dir);

		if (!n || n >= len)
			continue;
		if (k && name_len(s->files[k - 1].path, dir) == n &&
		    !memcmp(s->files[k - 1].path + strlen(dir), name, n))
			continue;
		memcpy(buf, name, n);
		buf[n] = 0;
		return true;
	}
	return false;
}

unsigned snap_count(const struct snap *s, const char *dir)
{
	char name[256];
	size_t pos = 0;
	unsigned n = 0;

	while (snap_next(s, dir, &pos, name, sizeof(name)))
		n++;
	return n;
}

static int by_path(const void *a, const void *b)
{
	const struct snap_file *x = a, *y = b;

	return strcmp(x->path, y->path);
}

void snap_sort(struct snap *s)
{
	if (s->n)
		qsort(s->files, s->n, sizeof(*s->files), by_path);
}

/* ---- the text form ---- */

struct reader {
	const char *p, *end;
	unsigned line;
	struct err *err;
};

static bool is_header(const char *p, const char *end)
{
	return end - p > 4 && !memcmp(p, "=== ", 4);
}

static const char *line_end(const char *p, const char *end)
{
	const char *nl = memchr(p, '\n', (size_t)(end - p));

	return nl ? nl + 1 : end;
}

/* Bytes of "06 00 01\n..." in place of the text; -1: not hex. */
static long unhex(const char *p, const char *end, unsigned char *out, size_t max)
{
	size_t n = 0;

	while (p < end) {
		char pair[3] = {0};

		if (isspace((unsigned char)*p)) {
			p++;
			continue;
		}
		if (end - p < 2 || !isxdigit((unsigned char)p[0]) ||
		    !isxdigit((unsigned char)p[1]) || n == max)
			return -1;
		memcpy(pair, p, 2);
		out[n++] = (unsigned char)strtoul(pair, NULL, 16);
		p += 2;
	}
	return (long)n;
}

static int error_number(const char *name)
{
	for (int e = 1; e < 134; e++) {
		const char *n = strerrorname_np(e);

		if (n && !strcmp(n, name))
			return e;
	}
	return EIO;
}

static bool path_ok(const char *path)
{
	return path[0] && path[0] != '/' && !strstr(path, "..") && !strstr(path, "//");
}

/* One entry: header at r->p. */
static int parse_entry(struct snap *s, struct reader *r)
{
	const char *end = line_end(r->p, r->end), *body = end;
	char head[MAX_PATH + 32], *attr;
	size_t len = (size_t)(end - r->p) - 4;

	if (len >= sizeof(head))
		return err_set(r->err, EINVAL, "line %u: the name is too long",
			       r->line);
	memcpy(head, r->p + 4, len);
	head[len] = 0;
	head[strcspn(head, "\r\n")] = 0;
	attr = strchr(head, ' ');
	if (attr)
		*attr++ = 0;
	if (strlen(head) >= MAX_PATH || !path_ok(head))
		return err_set(r->err, EINVAL, "line %u: '%.60s' is no name", r->line,
			       head);
	r->line++;
	while (body < r->end && !is_header(body, r->end)) {
		body = line_end(body, r->end);
		r->line++;
	}
	r->p = body;
	if (attr && attr[0] == '!') {
		snap_add(s, head, NULL, 0, error_number(attr + 1));
	} else if (attr && !strcmp(attr, "hex")) {
		unsigned char *bytes = malloc(SNAP_MAX_FILE);
		long n = bytes ? unhex(end, body, bytes, SNAP_MAX_FILE) : -1;

		if (n >= 0)
			snap_add(s, head, bytes, (size_t)n, 0);
		free(bytes);
		if (n < 0)
			return err_set(r->err, EINVAL, "'%.60s': not hex bytes", head);
	} else if (attr) {
		return err_set(r->err, EINVAL, "'%.60s': '%.20s' is unknown", head,
			       attr);
	} else {
		snap_add(s, head, end, (size_t)(body - end), 0);
	}
	return 0;
}

int snap_parse(struct snap *s, const char *text, size_t len, struct err *err)
{
	struct reader r = {text, text + len, 1, err};
	int rc = 0;

	if (len > 2 * SNAP_MAX_TEXT)
		return err_set(err, EFBIG, "%zu bytes are too many", len);
	while (r.p < r.end && !is_header(r.p, r.end)) {
		r.p = line_end(r.p, r.end);
		r.line++;
	}
	if (r.p == r.end)
		return err_set(err, EINVAL, "there is no '=== NAME' line");
	while (!rc && r.p < r.end && !s->full)
		rc = parse_entry(s, &r);
	if (!rc && s->full)
		rc = err_set(err, EFBIG, "too many or too large files");
	snap_sort(s);
	return rc;
}

static bool is_plain(const struct snap_file *f)
{
	for (size_t i = 0; i < f->len; i++)
		if (!f->data[i] || (unsigned char)f->data[i] == '\r')
			return false;
	return strncmp(f->data, "=== ", 4) && !strstr(f->data, "\n=== ");
}

void snap_print(const struct snap *s, struct str *out)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct snap_file *f = &s->files[i];

		if (f->error) {
			const char *name = strerrorname_np(f->error);

			str_addf(out, "=== %s !%s\n", f->path, name ? name : "EIO");
		} else if (is_plain(f)) {
			str_addf(out, "=== %s\n%s%s", f->path, f->data,
				 f->len && f->data[f->len - 1] != '\n' ? "\n" : "");
		} else {
			str_addf(out, "=== %s hex", f->path);
			for (size_t k = 0; k < f->len; k++)
				str_addf(out, "%s%02x", k % 32 ? " " : "\n",
					 (unsigned char)f->data[k]);
			str_addf(out, "\n");
		}
	}
}
