/* img/parent.c - the parents of differencing images: what VDI, VHD and VHDX share. One thread. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parent.h"

bool parent_try(struct img *img, char *name)
{
	char *path = NULL;
	bool there;

	if (!name || !*name) {
		free(name);
		return false;
	}
	there = !extern_resolve(img->path, name, "parent", img->opts.allow_external,
				&path, NULL) &&
		!access(path, F_OK);
	free(path);
	if (there || !img->backing_path) {
		free(img->backing_path);
		img->backing_path = name;
	} else {
		free(name);
	}
	return there;
}

char *parent_base(char *path)
{
	char *slash = path ? strrchr(path, '/') : NULL;

	if (slash)
		memmove(path, slash + 1, strlen(slash + 1) + 1);
	return path;
}

int parent_open_new(const struct img_target *t, const struct img_create_opts *opts,
		    const struct img_format *fmt, struct img **out, struct err *err)
{
	struct img_opts o = {.format = opts->backing_format,
			     .read_only = true,
			     .no_lock = true,
			     .allow_external = opts->allow_external};
	char *path;
	int rc = extern_resolve(t->path, opts->backing_path, "parent",
				opts->allow_external, &path, err);

	if (rc)
		return rc;
	rc = img_open(path, &o, out, err);
	free(path);
	if (rc || (*out)->fmt == fmt)
		return rc;
	rc = err_set(err, EINVAL, "the parent of a %s image is of format %s, not %s",
		     fmt->name, (*out)->fmt->name, fmt->name);
	img_close(*out);
	return rc;
}

uint64_t plan_blocks(const struct img_plan *plan, uint64_t block)
{
	uint64_t n = 0, next = 0; /* blocks below `next` are counted */

	for (size_t i = 0; plan && i < plan->n_data; i++) {
		const struct img_range *r = &plan->data[i];
		uint64_t first = max_u64(next, r->off / block), end;

		if (!r->len)
			continue;
		end = (r->off + r->len - 1) / block + 1;
		if (end > first)
			n += end - first;
		next = max_u64(next, end);
	}
	return n;
}
