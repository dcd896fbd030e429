/*
 * guest/scan.h - what is on a disk: its partitions, the file systems in them, the systems that are installed.
 * One thread.
 */
#ifndef GUEST_SCAN_H
#define GUEST_SCAN_H

#include "guest/fs.h"
#include "part/part.h"

enum os_kind { OS_NONE, OS_LINUX, OS_WINDOWS, OS_OTHER };

struct guest_os {
	enum os_kind kind;
	char name[128];   /* "Debian GNU/Linux 12 (bookworm)", "Windows 10 Pro" */
	char version[64]; /* "12", "10.0.19045" */
};

struct guest_volume {
	struct part part; /* number 0: the whole disk, which has no table */
	struct part_content content;
	struct fs *fs; /* owned; NULL: none, or not known */
	char error
		[160]; /* why it could not be opened; "": it is not known, or there is none */
	struct guest_os os;
};

struct guest_disk {
	struct img *img; /* borrowed: has to live longer */
	struct part_table table;
	struct guest_volume *v; /* owned; without extended partitions */
	unsigned n;
};

/* Looks at everything. Damaged file systems are no failure: `error` tells. End with guest_disk_close(). */
int guest_disk_open(struct img *img, struct guest_disk *d, struct err *err);
void guest_disk_close(struct guest_disk *d);

/* ---- what of a disk is used ---- */

enum volume_verdict {
	VOLUME_MAPPED, /* by its file system's own map */
	VOLUME_WHOLE,  /* all of it, for `why` */
};

struct volume_used {
	const struct guest_volume *v; /* borrowed */
	enum volume_verdict verdict;
	uint64_t used, dropped; /* bytes */
	char why[240];
};

/*
 * What of the disk has to be kept: `used` becomes sorted; everything that is in no partition, or is not understood, is
 * kept. `report` has room for d->n.
 */
int guest_disk_used(struct guest_disk *d, struct ranges *used,
		    struct volume_used *report, struct err *err);

#endif
