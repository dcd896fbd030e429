/* img/parent.h - finding the parents of differencing images, for VDI, VHD and VHDX. One thread. */
#ifndef IMG_PARENT_H
#define IMG_PARENT_H

#include "img/img_int.h"

/*
 * A candidate for the parent's path, which is taken over (NULL is fine). Is there such a file that may be
 * opened? Then it is img->backing_path; so is the first one, for the message, when there is none.
 */
bool parent_try(struct img *img, char *name);

/* The name without folders, in place. */
char *parent_base(char *path);

/* Opens, read-only, what is to be the parent of the image that is made, which must be of format `fmt`. */
int parent_open_new(const struct img_target *t, const struct img_create_opts *opts,
		    const struct img_format *fmt, struct img **out, struct err *err);

/* How many blocks of `block` bytes the plan's data touches. NULL: none. */
uint64_t plan_blocks(const struct img_plan *plan, uint64_t block);

#endif
