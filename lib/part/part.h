/*
 * part/part.h - partition tables of disk images, and what kind of thing is in a range of one. One thread for each
 * call; images are only read.
 */
#ifndef PART_PART_H
#define PART_PART_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct img;

/* More entries of a table are not looked at. */
#define PART_MAX 1024

struct part {
	unsigned number;    /* as Linux counts: sda1 is 1, the first logical one 5 */
	uint64_t off, len;  /* bytes, within the image */
	char type[40];      /* "0x83", or the type's GUID in lower case */
	char type_name[64]; /* "Linux filesystem"; "" if not known */
	char name[128];     /* GPT, UTF-8 */
	char uuid[40];      /* "" if there is none */
	bool active, logical, extended;
	bool cut; /* the table has it end behind the image */
};

struct part_table {
	char type[16];   /* "gpt", "dos", "mac", ...; "none" */
	char id[40];     /* disk GUID, or signature of an MBR */
	uint32_t sector; /* bytes that the table counts in */
	struct part *v;  /* owned; sorted by number */
	unsigned n;
	bool boot_code; /* an MBR whose boot code is not empty */
};

/*
 * Reads the image's partition table: 0 also if there is none. -EIO and others: it could not be read.
 * Free with part_table_free().
 */
int part_table_read(struct img *img, struct part_table *t, struct err *err);
void part_table_free(struct part_table *t);
/* The partition with this number, or NULL. */
const struct part *part_find(const struct part_table *t, unsigned number);

/* What is in a range. Empty strings: not known. */
struct part_content {
	char type
		[32]; /* libblkid's names: "ext4", "vfat", "crypto_LUKS"; "" if nothing is recognized */
	char usage[16]; /* "filesystem", "crypto", "raid", "other" */
	char label[256], uuid[64], version[32];
	bool ambivalent; /* marks of several kinds: `type` is empty */
};

/* Recognizes what begins at `off`; reads at most about 1.5 MiB. 0 or -errno. */
int part_recognize(struct img *img, uint64_t off, uint64_t len, struct part_content *c,
		   struct err *err);

#endif
