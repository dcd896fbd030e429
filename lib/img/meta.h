/*
 * img/meta.h - pieces of an image's tables in memory, for the formats whose tables are arrays at a fixed
 * place (VDI, VHD, VHDX). The format's lock is held in every call but meta_list_write() and
 * meta_list_free().
 */
#ifndef IMG_META_H
#define IMG_META_H

#include <stdbool.h>
#include <stdint.h>

#include "img/file.h"

struct meta_page {
	uint64_t off; /* in the file */
	bool dirty;   /* differs from the file */
	bool writing; /* a copy is on the way to the file: must stay */
	struct meta_page *next;
	uint8_t data[];
};

struct meta_pages {
	struct img_file *file; /* borrowed */
	uint32_t size;         /* of a page: 512 or 4096 */
	size_t n, n_dirty;
	struct meta_page **buckets;
};

/* Copies of what is to be written, by ascending offset. */
struct meta_copy {
	uint64_t off;
	uint8_t *data;
};

struct meta_list {
	struct meta_copy *v;
	size_t n;
	uint32_t size; /* of each */
};

/* 0 or -ENOMEM. */
int meta_pages_init(struct meta_pages *m, struct img_file *file, uint32_t size);
void meta_pages_fini(struct meta_pages *m);

/* The page that holds byte `off` of the file; valid as long as the lock is held. */
int meta_page_get(struct meta_pages *m, uint64_t off, struct meta_page **out);
void meta_page_dirty(struct meta_pages *m, struct meta_page *p);
/* Is there so much to be written that it should happen now? */
bool meta_pages_pressed(const struct meta_pages *m);
/* What the file has at [off, off + len) is not what pages say any more: drops them. */
void meta_pages_forget(struct meta_pages *m, uint64_t off, uint64_t len);

/* Reads at most a page; the range lies within one. */
int meta_read(struct meta_pages *m, uint64_t off, void *buf, uint32_t len);
/* Changes it in memory. */
int meta_write(struct meta_pages *m, uint64_t off, const void *buf, uint32_t len);

/* Takes copies of all that is to be written; 0 or -ENOMEM. Ends with meta_list_done(). */
int meta_list_take(struct meta_pages *m, struct meta_list *l);
/* Writes them where they belong. */
int meta_list_write(struct img_file *f, const struct meta_list *l);
/* They are in the file, or (failed) must be written again. */
void meta_list_done(struct meta_pages *m, const struct meta_list *l, bool failed);
void meta_list_free(struct meta_list *l);

#endif
