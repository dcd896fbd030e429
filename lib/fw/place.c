/*
 * fw/place.c - who gets which guest memory: nothing is put where something is, or where no RAM is.
 *
 * One thread, before the processors run.
 */
#include <inttypes.h>
#include <string.h>

#include "fw/kernel_int.h"
#include "vm/dma.h"

#define HIGH_MIN BIT(20)

/* The range that shares a byte with [gpa, gpa + len), or NULL. */
static const struct boot_range *taken(const struct boot *b, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < b->info->n_ranges; i++) {
		const struct boot_range *r = &b->info->range[i];

		if (range_overlap(gpa, len, r->gpa, r->len))
			return r;
	}
	return NULL;
}

static int take(struct boot *b, uint64_t gpa, uint64_t len, const char *what,
		struct err *err)
{
	if (b->info->n_ranges == BOOT_MAX_RANGES)
		return err_set(err, ENOSPC, "'%s' has more than %u parts", b->in->name,
			       BOOT_MAX_RANGES);
	b->info->range[b->info->n_ranges++] = (struct boot_range){gpa, len, what};
	return 0;
}

int place_fixed(struct boot *b, uint64_t gpa, uint64_t len, const char *what,
		struct err *err)
{
	const struct boot_range *other;

	if (!len)
		return 0;
	if (!e820_all(b->in->e820, gpa, len, E820_RAM))
		return err_set(err, ENOSPC,
			       "no guest memory at 0x%" PRIx64 "-0x%" PRIx64
			       " for the %s of '%s': give the guest more memory",
			       gpa, gpa + len - 1, what, b->in->name);
	other = taken(b, gpa, len);
	if (other)
		return err_set(err, ENOSPC,
			       "cannot load the %s of '%s' at 0x%" PRIx64 "-0x%" PRIx64
			       ": the %s is at 0x%" PRIx64 "-0x%" PRIx64,
			       what, b->in->name, gpa, gpa + len - 1, other->what,
			       other->gpa, other->gpa + other->len - 1);
	return take(b, gpa, len, what, err);
}

int place_copy(struct boot *b, uint64_t gpa, const void *p, size_t len, struct err *err)
{
	if (len && !dma_write(b->ram, gpa, p, len))
		return err_set(err, ENOSPC,
			       "no guest memory at 0x%" PRIx64 "-0x%" PRIx64, gpa,
			       gpa + len - 1);
	return 0;
}

int place_zero(struct boot *b, uint64_t gpa, uint64_t len, struct err *err)
{
	struct iovec iov[RAM_MAX_REGIONS];
	unsigned n = 0;

	if (!dma_map(b->ram, gpa, len, iov, &n, RAM_MAX_REGIONS))
		return err_set(err, ENOSPC,
			       "no guest memory at 0x%" PRIx64 "-0x%" PRIx64, gpa,
			       gpa + len - 1);
	for (unsigned i = 0; i < n; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
	dma_written(b->ram, gpa, len);
	return 0;
}

static int no_room(const char *what, uint64_t len, uint64_t max, struct err *err)
{
	return err_set(err, ENOSPC,
		       "no room for the %s of %" PRIu64
		       " bytes in guest memory below 0x%" PRIx64
		       ": give the guest more memory",
		       what, len, max);
}

int place_high(struct boot *b, const void *p, size_t len, uint64_t max,
	       const char *what, uint64_t *gpa, struct err *err)
{
	const struct e820 *map = b->in->e820;

	for (unsigned i = map->n; i-- && len;) {
		const struct e820_entry *e = &map->entry[i];
		uint64_t bottom = max_u64(e->base, HIGH_MIN);
		uint64_t top = min_u64(e->base + e->len, max);

		/* Each turn goes below a range that is in the way: at most n_ranges turns. */
		while (e->type == E820_RAM && top > bottom && top - bottom >= len) {
			const struct boot_range *r;
			int rc;

			*gpa = align_down(top - len, PAGE);
			if (*gpa < bottom)
				break;
			r = taken(b, *gpa, len);
			if (!r) {
				rc = take(b, *gpa, len, what, err);
				return rc ? rc : place_copy(b, *gpa, p, len, err);
			}
			top = r->gpa;
		}
	}
	return no_room(what, len, max, err);
}

int place_low(struct boot *b, const void *p, size_t len, uint64_t align,
	      const char *what, uint64_t *gpa, struct err *err)
{
	const struct e820 *map = b->in->e820;

	for (unsigned i = 0; i < map->n && len; i++) {
		const struct e820_entry *e = &map->entry[i];
		uint64_t bottom = max_u64(e->base, LOW_MIN);
		uint64_t top = min_u64(e->base + e->len, LOW_MAX);

		while (e->type == E820_RAM) {
			const struct boot_range *r;
			int rc;

			*gpa = align_up(bottom, align);
			if (*gpa > top || top - *gpa < len)
				break;
			r = taken(b, *gpa, len);
			if (!r) {
				rc = take(b, *gpa, len, what, err);
				return rc || !p ? rc : place_copy(b, *gpa, p, len, err);
			}
			bottom = r->gpa + r->len;
		}
	}
	return no_room(what, len, LOW_MAX, err);
}

int place_text(struct boot *b, const char *text, const char *what, uint64_t *gpa,
	       struct err *err)
{
	if (!text)
		text = "";
	return place_low(b, text, strlen(text) + 1, 16, what, gpa, err);
}
