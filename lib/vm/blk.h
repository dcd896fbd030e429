/* vm/blk.h - a block device as device models see it; backends implement it (host/). */
#ifndef VM_BLK_H
#define VM_BLK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };

/* A request; the device model owns it until done() was called. */
struct blk_req {
	enum blk_op op;
	bool unmap;   /* write zeroes may deallocate */
	uint64_t off; /* bytes */
	uint64_t len; /* bytes; read, write: the sum of iov */
	struct iovec *iov;
	unsigned n_iov;
	/* rc: 0 or -errno. Called once, in a worker thread, no lock held. */
	void (*done)(struct blk_req *r, int rc);
	struct blk_req *next; /* the backend's own */
};

struct blk {
	const struct blk_ops *ops;
	uint64_t size; /* bytes */
	bool read_only;
	bool can_discard;
	uint32_t block_size; /* logical: 512 or 4096 */
	char serial[21];     /* ASCII, may be empty */
};

struct blk_ops {
	/* Any thread. Off and len were checked by the caller against size; checked again here. */
	void (*submit)(struct blk *b, struct blk_req *r);
	/* Returns when no request is under way. Not from done(). */
	void (*drain)(struct blk *b);
	void (*close)(struct blk *b); /* drains, flushes, frees */
};

#endif
