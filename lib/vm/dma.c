/* vm/dma.c - how devices reach guest memory. Any thread. */
#include "vm/dma.h"

#include <string.h>

#include "base/bits.h"

/* The part of [gpa, gpa + *len) from gpa on that lies in one RAM region: shortens *len. */
static uint8_t *ram_run(const struct ram *ram, uint64_t gpa, uint64_t *len)
{
	const struct ram_region *r = ram_find(ram, gpa);

	if (!r || r->kind != RAM_RAM)
		return NULL;
	*len = min_u64(*len, r->size - (gpa - r->gpa));
	return r->host + (gpa - r->gpa);
}

static bool all_ram(const struct ram *ram, uint64_t gpa, uint64_t len)
{
	while (len) {
		uint64_t n = len;

		if (!ram_run(ram, gpa, &n))
			return false;
		gpa += n;
		len -= n;
	}
	return true;
}

bool dma_read(const struct ram *ram, uint64_t gpa, void *buf, size_t len)
{
	char *to = buf;

	if (!all_ram(ram, gpa, len))
		return false;
	while (len) {
		uint64_t n = len;
		const uint8_t *p = ram_run(ram, gpa, &n);

		memcpy(to, p, n);
		to += n;
		gpa += n;
		len -= n;
	}
	return true;
}

bool dma_write(const struct ram *ram, uint64_t gpa, const void *buf, size_t len)
{
	const char *from = buf;
	uint64_t at = gpa;
	size_t left = len;

	if (!all_ram(ram, gpa, len))
		return false;
	while (left) {
		uint64_t n = left;
		uint8_t *p = ram_run(ram, at, &n);

		memcpy(p, from, n);
		from += n;
		at += n;
		left -= n;
	}
	dma_written(ram, gpa, len);
	return true;
}

bool dma_map(const struct ram *ram, uint64_t gpa, uint64_t len, struct iovec *iov,
	     unsigned *n, unsigned max)
{
	while (len) {
		uint64_t run = len;
		uint8_t *p = ram_run(ram, gpa, &run);

		if (!p || *n == max)
			return false;
		iov[(*n)++] = (struct iovec){p, run};
		gpa += run;
		len -= run;
	}
	return true;
}

void dma_written(const struct ram *ram, uint64_t gpa, uint64_t len)
{
	if (ram->written && len)
		ram->written(ram->written_ctx, gpa, len);
}
