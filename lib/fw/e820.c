/*
 * fw/e820.c - the memory map a guest is given.
 *
 * Follows ACPI 6.5, 15 (system address map). One thread, before the processors start.
 */
#include "fw/e820.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"

static_assert(sizeof(struct e820_raw) == 20, "as INT 15h E820h returns it");

/* A map under construction: one piece more than any result may have room for. */
struct pieces {
	struct e820_entry e[2 * E820_MAX + 1];
	unsigned n;
};

/* Appends behind the last piece, or to it; pieces come sorted. */
static void piece_add(struct pieces *p, uint64_t base, uint64_t end,
		      enum e820_type type)
{
	struct e820_entry *last = p->n ? &p->e[p->n - 1] : NULL;

	if (base >= end)
		return;
	if (last && last->type == type && last->base + last->len == base)
		last->len += end - base;
	else
		p->e[p->n++] = (struct e820_entry){base, end - base, type};
}

int e820_add(struct e820 *map, uint64_t base, uint64_t len, enum e820_type type,
	     struct err *err)
{
	uint64_t end = base + len;
	struct pieces p = {.n = 0};
	bool added = false;

	if (!len)
		return 0;
	if (end < base)
		return err_set(err, EINVAL,
			       "memory range 0x%" PRIx64 " + 0x%" PRIx64
			       " goes past the end of the address space",
			       base, len);
	for (unsigned i = 0; i < map->n; i++) {
		const struct e820_entry *o = &map->entry[i];
		uint64_t o_end = o->base + o->len;

		piece_add(&p, o->base, min_u64(o_end, base), o->type);
		if (!added && o_end > base) {
			piece_add(&p, base, end, type);
			added = true;
		}
		piece_add(&p, max_u64(o->base, end), o_end, o->type);
	}
	if (!added)
		piece_add(&p, base, end, type);
	if (p.n > E820_MAX)
		return err_set(err, ENOSPC, "the memory map has more than %d ranges",
			       E820_MAX);
	memcpy(map->entry, p.e, p.n * sizeof(p.e[0]));
	map->n = p.n;
	return 0;
}

int e820_add_ram(struct e820 *map, const struct ram *ram, struct err *err)
{
	for (unsigned i = 0; i < ram->n_regions; i++) {
		const struct ram_region *r = &ram->region[i];
		int rc = r->kind == RAM_RAM
				 ? e820_add(map, r->gpa, r->size, E820_RAM, err)
				 : 0;

		if (rc)
			return rc;
	}
	return 0;
}

bool e820_all(const struct e820 *map, uint64_t base, uint64_t len, enum e820_type type)
{
	/* Neighbours of one type are merged, so one entry must hold it all. */
	for (unsigned i = 0; i < map->n; i++) {
		const struct e820_entry *e = &map->entry[i];

		if (e->type == type && base >= e->base &&
		    range_ok(base - e->base, len, e->len))
			return true;
	}
	return false;
}

uint64_t e820_ram_end(const struct e820 *map, uint64_t limit)
{
	for (unsigned i = map->n; i--;) {
		const struct e820_entry *e = &map->entry[i];

		if (e->type == E820_RAM && e->base < limit)
			return min_u64(limit, e->base + e->len);
	}
	return 0;
}

struct e820_raw e820_raw(const struct e820 *map, unsigned i)
{
	const struct e820_entry *e = &map->entry[i];

	return (struct e820_raw){le64_make(e->base), le64_make(e->len),
				 le32_make(e->type)};
}
