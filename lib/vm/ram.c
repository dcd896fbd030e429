/* vm/ram.c - guest-physical memory that is host memory. Built by one thread, then read by any. */
#include "vm/ram.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"

#define PAGE 4096ull
#define HUGE (2ull << 20)

/* A place for `size` bytes at a multiple of a huge page; MAP_FAILED. */
static uint8_t *map_memory(uint64_t size)
{
	uint8_t *all = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *p;

	if (all == MAP_FAILED)
		return all;
	p = (uint8_t *)align_up((uintptr_t)all, HUGE);
	if (p > all)
		munmap(all, (size_t)(p - all));
	munmap(p + size, (size_t)(all + HUGE - p));
	madvise(p, size, MADV_HUGEPAGE);
	madvise(p, size, MADV_DONTDUMP);
	return p;
}

int ram_init(struct ram *ram, uint64_t size, struct err *err)
{
	*ram = (struct ram){0};
	if (!size || size % PAGE || size > BIT(46))
		return err_set(err, EINVAL,
			       "memory of %" PRIu64 " bytes is not possible", size);
	ram->base = map_memory(size);
	if (ram->base == MAP_FAILED) {
		ram->base = NULL;
		return err_sys(err, errno,
			       "cannot get %" PRIu64 " MiB of memory for the guest",
			       size >> 20);
	}
	ram->ram_size = size;
	return 0;
}

void ram_fini(struct ram *ram)
{
	for (unsigned i = 0; i < ram->n_regions; i++)
		if (ram->region[i].kind == RAM_ROM)
			free(ram->region[i].host);
	if (ram->base)
		munmap(ram->base, ram->ram_size);
	*ram = (struct ram){0};
}

static int region_add(struct ram *ram, const struct ram_region *r, struct err *err)
{
	unsigned at = 0;

	if (ram->n_regions == RAM_MAX_REGIONS)
		return err_set(err, ENOSPC, "more than %d memory regions",
			       RAM_MAX_REGIONS);
	while (at < ram->n_regions && ram->region[at].gpa < r->gpa)
		at++;
	if ((at && ram->region[at - 1].gpa + ram->region[at - 1].size > r->gpa) ||
	    (at < ram->n_regions && r->gpa + r->size > ram->region[at].gpa))
		return err_set(err, EEXIST,
			       "memory at 0x%" PRIx64 " overlaps another region",
			       r->gpa);
	memmove(&ram->region[at + 1], &ram->region[at],
		(ram->n_regions - at) * sizeof(ram->region[0]));
	ram->region[at] = *r;
	ram->n_regions++;
	return 0;
}

int ram_add(struct ram *ram, uint64_t gpa, uint64_t size, struct err *err)
{
	struct ram_region r = {.gpa = gpa, .size = size, .kind = RAM_RAM};
	int rc;

	if (!size || gpa % PAGE || size % PAGE ||
	    !range_ok(ram->used, size, ram->ram_size))
		return err_set(err, EINVAL,
			       "no %" PRIu64 " bytes of memory left for 0x%" PRIx64,
			       size, gpa);
	r.host = ram->base + ram->used;
	rc = region_add(ram, &r, err);
	if (!rc)
		ram->used += size;
	return rc;
}

int ram_add_rom(struct ram *ram, uint64_t gpa, const void *data, size_t len,
		struct err *err)
{
	struct ram_region r = {
		.gpa = gpa, .size = align_up(len, PAGE), .kind = RAM_ROM};
	int rc;

	if (!len || gpa % PAGE || len > BIT(30))
		return err_set(err, EINVAL,
			       "a ROM of %zu bytes at 0x%" PRIx64 " is not possible",
			       len, gpa);
	r.host = aligned_alloc(PAGE, r.size);
	if (!r.host)
		return err_set(err, ENOMEM, "no memory for a ROM of %zu bytes", len);
	memset(r.host, 0xff, r.size);
	memcpy(r.host, data, len);
	rc = region_add(ram, &r, err);
	if (rc)
		free(r.host);
	return rc;
}

const struct ram_region *ram_find(const struct ram *ram, uint64_t gpa)
{
	for (unsigned i = 0; i < ram->n_regions; i++)
		if (gpa - ram->region[i].gpa < ram->region[i].size)
			return &ram->region[i];
	return NULL;
}

void *ram_ptr(const struct ram *ram, uint64_t gpa, uint64_t len, bool write)
{
	const struct ram_region *r = ram_find(ram, gpa);

	if (!r || !range_ok(gpa - r->gpa, len, r->size) ||
	    (write && r->kind != RAM_RAM))
		return NULL;
	return r->host + (gpa - r->gpa);
}
