/*
 * img/blockmap.h - what formats share that cut the disk into blocks of one size and have a table of where each of them is in
 * the file (VDI, VHD, VHDX): locks, the table's pages, mapping, giving back, writing back.
 */
#ifndef IMG_BLOCKMAP_H
#define IMG_BLOCKMAP_H

#include <pthread.h>

#include "img/img_int.h"
#include "img/meta.h"

struct blockmap {
	pthread_mutex_t flush_lock; /* before lock: one writes back */
	pthread_mutex_t lock;       /* guards all that changes, the pages too */
	struct meta_pages pages;
};

/* 0 or -ENOMEM. `page`: bytes, as meta_pages_init() has it. */
int blockmap_init(struct blockmap *m, struct img_file *file, uint32_t page);
void blockmap_fini(struct blockmap *m);

/* Is there so much in memory that it should be written back? Takes the lock. */
bool blockmap_pressed(struct blockmap *m);

/*
 * Writes the table's pages back: never before what they point to. `head` (may be NULL) is called with the lock held, before
 * anything is written. `durable`: all is on the disk at the end. Takes both locks.
 */
int blockmap_flush(struct blockmap *m, bool durable, int (*head)(void *ctx), void *ctx);

/* One block, from byte `in` of it on: fills *e for at most `len` bytes. The lock is held. */
typedef int blockmap_one(void *ctx, uint64_t block, uint64_t in, uint64_t len,
			 struct img_extent *e);

/* The map() of such a format: blocks that are alike and lie one behind the other are one extent. Takes the lock. */
int blockmap_map(struct blockmap *m, uint32_t block_size, blockmap_one *one, void *ctx,
		 uint64_t off, uint64_t len, struct img_extent *e);

/* The discard() of formats whose blocks stay where they are: their space goes back to the host. */
int blockmap_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done);

/*
 * The zero() of such a format, in front of a backing file: blocks that are nowhere get an entry that says so. `hide` makes one
 * of them read as zeros: 1 done, 0 its data is in the file, or -errno; the lock is held. -EOPNOTSUPP: to be done by data.
 */
int blockmap_zero(struct blockmap *m, struct img *img, uint64_t off, uint64_t len,
		  int (*hide)(void *ctx, uint64_t block), void *ctx, uint64_t *done);

#endif
