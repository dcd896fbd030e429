/*
 * img/formats.c - the table of formats: finding one by name or by content, settings by name. Any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/size.h"
#include "img/img_int.h"

#define IMG_FORMAT(id) &img_##id,
static const struct img_format *const formats[] = {
#include "img/formats.h"
};
#undef IMG_FORMAT

/* ---- by name ---- */

static bool format_has_name(const struct img_format *f, const char *name)
{
	bool is = !strcasecmp(f->name, name);

	for (const char *const *a = f->aliases; a && *a; a++)
		is |= !strcasecmp(*a, name);
	return is;
}

const struct img_format *format_find(const char *name, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (format_has_name(formats[i], name))
			return formats[i];
	err_set(err, ENOTSUP,
		"disk image format '%s' is not known: 'vm-img formats' lists them",
		name);
	return NULL;
}

static void format_tell(const struct img_format *f, struct img_format_info *info)
{
	*info = (struct img_format_info){
		.name = f->name,
		.title = f->title ? f->title : f->name,
		.aliases = f->aliases,
		.options = f->options,
		.creates = f->create || f->stream_begin,
		.writes = f->alloc || f->in_place,
		.checks = f->check,
		.repairs = f->can_fix,
		.resizes = f->resize,
		.snapshots = f->snapshots,
		.backing = f->backing,
		.packs = f->packer,
	};
}

bool img_format_at(unsigned i, struct img_format_info *info)
{
	if (i >= ARRAY_LEN(formats))
		return false;
	format_tell(formats[i], info);
	return true;
}

int img_format_find(const char *name, struct img_format_info *info, struct err *err)
{
	const struct img_format *f = format_find(name, err);

	if (!f)
		return -ENOTSUP;
	format_tell(f, info);
	return 0;
}

/* ---- by content ---- */

const struct img_format *format_probe(const struct img_probe *p)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (formats[i]->probe && formats[i]->probe(p))
			return formats[i];
	return &img_raw;
}

int format_probe_file(struct img_file *f, const char *path,
		      const struct img_format **fmt, struct err *err)
{
	uint8_t *buf = mem_new(IMG_PROBE_LEN + IMG_TAIL_LEN, 1);
	struct img_probe p = {.head = buf, .size = file_size(f)};
	int rc;

	if (!buf)
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	p.head_len = min_u64(IMG_PROBE_LEN, p.size);
	p.tail_len = min_u64(IMG_TAIL_LEN, p.size);
	p.tail = buf + IMG_PROBE_LEN;
	rc = file_read(f, buf, 0, p.head_len);
	if (!rc)
		rc = file_read(f, buf + IMG_PROBE_LEN, p.size - p.tail_len, p.tail_len);
	if (rc)
		err_sys(err, -rc, "cannot read '%s'", path);
	else
		*fmt = format_probe(&p);
	if (!rc && *fmt == &img_raw && split_is_first(path, p.size))
		*fmt = &img_split;
	free(buf);
	return rc;
}

bool img_fd_recognized(int fd)
{
	uint8_t *buf = mem_new(IMG_PROBE_LEN + IMG_TAIL_LEN, 1);
	struct img_probe p = {.head = buf};
	struct stat st;
	bool is = false;

	if (!buf || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0) {
		free(buf);
		return false;
	}
	p.size = (uint64_t)st.st_size;
	p.head_len = min_u64(IMG_PROBE_LEN, p.size);
	p.tail_len = min_u64(IMG_TAIL_LEN, p.size);
	p.tail = buf + IMG_PROBE_LEN;
	if (pread(fd, buf, p.head_len, 0) == (ssize_t)p.head_len &&
	    pread(fd, buf + IMG_PROBE_LEN, p.tail_len, (off_t)(p.size - p.tail_len)) ==
		    (ssize_t)p.tail_len)
		is = format_probe(&p) != &img_raw;
	free(buf);
	return is;
}

/* ---- settings ---- */

static const struct img_option *option_last(const struct img_option *o, unsigned n,
					    const char *name)
{
	while (n--)
		if (!strcmp(o[n].name, name))
			return &o[n];
	return NULL;
}

const char *img_option_text(const struct img_option *o, unsigned n, const char *name,
			    const char *usual)
{
	const struct img_option *x = option_last(o, n, name);

	return x ? x->value : usual;
}

static int parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = {"on", "yes", "true", "y"};
	static const char *const no[] = {"off", "no", "false", "n"};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
			*out = !strcmp(text, yes[i]);
			return 0;
		}
	}
	return -EINVAL;
}

bool img_option_bool(const struct img_option *o, unsigned n, const char *name,
		     bool usual)
{
	const char *text = img_option_text(o, n, name, NULL);
	bool v = usual;

	if (text)
		parse_bool(text, &v);
	return v;
}

uint64_t img_option_number(const struct img_option *o, unsigned n, const char *name,
			   uint64_t usual)
{
	const char *text = img_option_text(o, n, name, NULL);
	uint64_t v = usual;

	if (text)
		size_parse(text, &v, NULL);
	return v;
}

/* Is `value` one of "a|b|c"? */
static bool among(const char *choices, const char *value)
{
	size_t len = strlen(value);

	for (const char *p = choices; *p;) {
		size_t n = strcspn(p, "|");

		if (n == len && !memcmp(p, value, n))
			return true;
		p += n + (p[n] == '|');
	}
	return false;
}

static int option_check(const struct img_format *fmt, const struct img_option_desc *d,
			const struct img_option *o, struct err *err)
{
	uint64_t number;
	bool flag;

	if (d->choices && !among(d->choices, o->value))
		return err_set(err, EINVAL, "option '%s=%s' of %s: one of %s is wanted",
			       o->name, o->value, fmt->name, d->choices);
	if (d->kind == OPTION_BOOL && parse_bool(o->value, &flag))
		return err_set(err, EINVAL, "option '%s=%s' of %s: on or off is wanted",
			       o->name, o->value, fmt->name);
	if (d->kind == OPTION_SIZE || d->kind == OPTION_NUMBER) {
		int rc = size_parse(o->value, &number, err);

		if (rc)
			return err_prefix(err, "option '%s' of %s", o->name, fmt->name);
	}
	return 0;
}

int format_check_options(const struct img_format *fmt, const struct img_option *options,
			 unsigned n, struct err *err)
{
	for (unsigned i = 0; i < n; i++) {
		const struct img_option_desc *d = fmt->options;
		int rc;

		while (d && d->name && strcmp(d->name, options[i].name))
			d++;
		if (!d || !d->name)
			return err_set(err, EINVAL,
				       "format %s has no option '%s': 'vm-img formats "
				       "%s' lists them",
				       fmt->name, options[i].name, fmt->name);
		rc = option_check(fmt, d, &options[i], err);
		if (rc)
			return rc;
	}
	return 0;
}
