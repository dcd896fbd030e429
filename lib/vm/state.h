/*
 * vm/state.h - the guest-visible state of every device as tables of named fields, so that saving a
 * running machine and restoring it is one function. Never a raw structure dump: a file made by
 * another version fails with the name of the field that does not fit, or skips what it lacks.
 */
#ifndef VM_STATE_H
#define VM_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct state_field {
	const char *name;
	uint32_t off;  /* in the device's structure */
	uint32_t size; /* in bytes: the whole array for arrays */
};

#define STATE(type, member)                                     \
	{                                                       \
		.name = #member, .off = offsetof(type, member), \
		.size = sizeof(((type *)0)->member)             \
	}

#define STATE_MAX_SECTIONS 128

/* One device's registration. */
struct state_section {
	char name[32];                    /* unique: "i8254", "virtio-blk.0" */
	void *dev;                        /* borrowed */
	const struct state_field *fields; /* borrowed, ends with an empty one */
	/* Before saving: brings fields up to date (NULL: nothing to do). Machine paused. */
	void (*save)(void *dev);
	/* After loading: checks the fields (they are hostile) and re-derives the rest. 0 or -EINVAL. */
	int (*loaded)(void *dev);
};

struct state {
	struct state_section section[STATE_MAX_SECTIONS];
	unsigned n;
};

/*
 * Registers; `name` is copied, with ".instance" behind it when instance >= 0. Too many sections or a name
 * twice is our own mistake (assert).
 */
void state_add(struct state *s, const char *name, int instance, void *dev,
	       const struct state_field *fields, void (*save)(void *dev),
	       int (*loaded)(void *dev));

/* All sections, appended to `out` (binary). 0 or -ENOMEM. Machine paused, lock held. */
int state_save(const struct state *s, struct str *out, struct err *err);
/* Sets them from state_save()'s bytes. Each section of this machine must be there. */
int state_load(const struct state *s, const void *p, size_t len, struct err *err);

#endif
