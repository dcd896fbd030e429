/* vm-img/select.h - which parts of a disk convert copies: --used-only, --partition. Main thread. */
#ifndef VM_IMG_SELECT_H
#define VM_IMG_SELECT_H

#include "vm-img.h"

struct select {
	bool used_only;
	const char *partitions; /* "1,3"; NULL: all */
	struct str report;      /* what was left out, for people */
};

/* Leaves in the list what is wanted of the image. 0 or an exit status; select_fini() in any case. */
int select_apply(struct select *s, struct img *img, struct img_work_list *work);
void select_fini(struct select *s);
/* Finds a partition: 0 (*off and *len), or an exit status. */
int select_find(struct img *img, const char *number, uint64_t *off, uint64_t *len);

#endif
