/* part/part_int.h - what the files of this folder share. */
#ifndef PART_PART_INT_H
#define PART_PART_INT_H

#include "part/part.h"
#include "part/view.h"

/* Brings all that a partition table may consist of into the view; tells the sector's size and the boot code. */
int part_fill_tables(struct view *v, struct part_table *t, struct err *err);

#endif
