/* guest/ranges.c - lists of byte ranges. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/ranges.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"

int ranges_add(struct ranges *r, uint64_t off, uint64_t len)
{
	struct img_range *last = r->n ? &r->v[r->n - 1] : NULL;

	if (!len)
		return 0;
	if (last && last->off + last->len == off) {
		last->len += len;
		return 0;
	}
	if (r->n == r->size) {
		size_t more = r->size ? r->size * 2 : 64;
		struct img_range *v;

		if (more > RANGES_MAX)
			return -EFBIG;
		v = mem_resize(r->v, more, sizeof(*v));
		if (!v)
			return -ENOMEM;
		r->v = v;
		r->size = more;
	}
	r->v[r->n++] = (struct img_range){off, len};
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct img_range *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

void ranges_sort(struct ranges *r)
{
	size_t to = 0;

	if (!r->n)
		return;
	qsort(r->v, r->n, sizeof(*r->v), by_offset);
	for (size_t i = 1; i < r->n; i++) {
		struct img_range *last = &r->v[to], *x = &r->v[i];

		if (x->off <= last->off + last->len)
			last->len = max_u64(last->off + last->len, x->off + x->len) -
				    last->off;
		else
			r->v[++to] = *x;
	}
	r->n = to + 1;
}

uint64_t ranges_bytes(const struct ranges *r)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < r->n; i++)
		sum += r->v[i].len;
	return sum;
}

void ranges_fini(struct ranges *r)
{
	free(r->v);
	*r = (struct ranges){0};
}

int ranges_invert(const struct ranges *free, uint64_t end, uint64_t base,
		  struct ranges *used)
{
	uint64_t at = 0;
	int rc = 0;

	for (size_t i = 0; i < free->n && !rc && at < end; i++) {
		const struct img_range *f = &free->v[i];

		if (f->off > at)
			rc = ranges_add(used, base + at, min_u64(f->off, end) - at);
		at = max_u64(at, f->off + f->len);
	}
	if (!rc && at < end)
		rc = ranges_add(used, base + at, end - at);
	return rc;
}

int ranges_add_bits(struct ranges *r, const uint8_t *bits, uint64_t n, bool value,
		    uint64_t base, uint64_t unit)
{
	uint64_t start = 0, same = value ? ~0ull : 0;
	bool in = false;
	int rc = 0;

	for (uint64_t i = 0; i < n && !rc; i++) {
		bool bit;

		/* whole words that change nothing */
		while (i % 64 == 0 && n - i >= 64 &&
		       load_u64(bits + i / 8) == (in ? same : ~same))
			i += 64;
		if (i >= n)
			break;
		bit = ((bits[i / 8] >> (i % 8)) & 1) == value;
		if (bit && !in)
			start = i;
		else if (!bit && in)
			rc = ranges_add(r, base + start * unit, (i - start) * unit);
		in = bit;
	}
	if (in && !rc)
		rc = ranges_add(r, base + start * unit, (n - start) * unit);
	return rc;
}
