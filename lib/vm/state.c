/*
 * vm/state.c - devices' state by named fields.
 *
 * Format, little-endian: per section  le32 "SECT", str name, le32 n_fields, then per field
 * str name, le32 size, bytes; str = le16 length and bytes. The end: le32 "ENDS".
 */
#include "vm/state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define MAGIC_SECT 0x54434553u
#define MAGIC_END  0x53444e45u

void state_add(struct state *s, const char *name, int instance, void *dev,
	       const struct state_field *fields, void (*save)(void *dev),
	       int (*loaded)(void *dev))
{
	struct state_section *sec = &s->section[s->n];

	assert(s->n < STATE_MAX_SECTIONS);
	if (instance >= 0)
		snprintf(sec->name, sizeof(sec->name), "%s.%d", name, instance);
	else
		snprintf(sec->name, sizeof(sec->name), "%s", name);
	for (unsigned i = 0; i < s->n; i++)
		assert(strcmp(s->section[i].name, sec->name));
	sec->dev = dev;
	sec->fields = fields;
	sec->save = save;
	sec->loaded = loaded;
	s->n++;
}

static void put_u32(struct str *out, uint32_t v)
{
	le32 x = le32_make(v);

	str_add(out, &x, sizeof(x));
}

static void put_name(struct str *out, const char *name)
{
	le16 len = le16_make((uint16_t)strlen(name));

	str_add(out, &len, sizeof(len));
	str_add(out, name, strlen(name));
}

int state_save(const struct state *s, struct str *out, struct err *err)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct state_section *sec = &s->section[i];
		const struct state_field *f;
		uint32_t n = 0;

		if (sec->save)
			sec->save(sec->dev);
		for (f = sec->fields; f->name; f++)
			n++;
		put_u32(out, MAGIC_SECT);
		put_name(out, sec->name);
		put_u32(out, n);
		for (f = sec->fields; f->name; f++) {
			put_name(out, f->name);
			put_u32(out, f->size);
			str_add(out, (const char *)sec->dev + f->off, f->size);
		}
	}
	put_u32(out, MAGIC_END);
	return out->failed ? err_set(err, ENOMEM, "no memory for the devices' state")
			   : 0;
}

struct reader {
	const uint8_t *p;
	size_t len, at;
	bool bad;
};

static const void *get(struct reader *r, size_t n)
{
	const void *p = r->p + r->at;

	if (r->bad || !range_ok(r->at, n, r->len)) {
		r->bad = true;
		return NULL;
	}
	r->at += n;
	return p;
}

static uint32_t get_u32(struct reader *r)
{
	const void *p = get(r, 4);

	return p ? load_u32(p) : 0;
}

/* A name into buf, which is empty when it does not fit. */
static void get_name(struct reader *r, char *buf, size_t size)
{
	const void *l = get(r, 2);
	size_t len = l ? load_u16(l) : 0;
	const void *p = get(r, len);

	buf[0] = 0;
	if (p && len < size) {
		memcpy(buf, p, len);
		buf[len] = 0;
	} else {
		r->bad = true;
	}
}

static const struct state_field *field_find(const struct state_section *sec,
					    const char *name)
{
	const struct state_field *f = sec->fields;

	while (f->name && strcmp(f->name, name))
		f++;
	return f->name ? f : NULL;
}

static int load_section(const struct state_section *sec, struct reader *r,
			struct err *err)
{
	uint32_t n = get_u32(r);

	for (uint32_t i = 0; i < n && !r->bad; i++) {
		const struct state_field *f;
		char name[64];
		uint32_t size;
		const void *p;

		get_name(r, name, sizeof(name));
		size = get_u32(r);
		p = get(r, size);
		if (!p)
			break;
		f = field_find(sec, name);
		if (!f)
			continue; /* newer than we are: its absence is the old behaviour */
		if (f->size != size)
			return err_set(err, EINVAL,
				       "saved field '%s' of '%s' has %u bytes, not %u",
				       name, sec->name, size, f->size);
		memcpy((char *)sec->dev + f->off, p, size);
	}
	if (r->bad)
		return err_set(err, EINVAL, "the saved state of '%s' is cut short",
			       sec->name);
	if (sec->loaded && sec->loaded(sec->dev) < 0)
		return err_set(err, EINVAL, "the saved state of '%s' makes no sense",
			       sec->name);
	return 0;
}

int state_load(const struct state *s, const void *p, size_t len, struct err *err)
{
	struct reader r = {.p = p, .len = len};
	bool seen[STATE_MAX_SECTIONS] = {false};

	while (!r.bad) {
		uint32_t magic = get_u32(&r);
		char name[64];
		unsigned i;
		int rc;

		if (magic == MAGIC_END)
			break;
		get_name(&r, name, sizeof(name));
		if (magic != MAGIC_SECT || r.bad)
			return err_set(err, EINVAL,
				       "the saved devices are damaged at byte %zu",
				       r.at);
		for (i = 0; i < s->n && strcmp(s->section[i].name, name); i++)
			;
		if (i == s->n)
			return err_set(err, EINVAL,
				       "the saved machine has a device '%s' that this "
				       "one has not",
				       name);
		if (seen[i])
			return err_set(err, EINVAL, "device '%s' was saved twice",
				       name);
		seen[i] = true;
		rc = load_section(&s->section[i], &r, err);
		if (rc)
			return rc;
	}
	if (r.bad)
		return err_set(err, EINVAL, "the saved devices are cut short");
	for (unsigned i = 0; i < s->n; i++)
		if (!seen[i])
			return err_set(err, EINVAL,
				       "the saved machine lacks the device '%s'",
				       s->section[i].name);
	return 0;
}
