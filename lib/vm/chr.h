/* vm/chr.h - a byte stream as device models see it (serial line, console); backends: host/. */
#ifndef VM_CHR_H
#define VM_CHR_H

#include <stddef.h>
#include <stdint.h>

struct chr;

/* The device's end; called in the loop thread, machine lock held. */
struct chr_peer {
	size_t (*room)(void *dev); /* how many bytes it takes now */
	void (*receive)(void *dev, const uint8_t *p, size_t len); /* len <= room() */
	void *dev;                                                /* borrowed */
};

struct chr_ops {
	/* Output. Never blocks for long; what the other end does not take is buffered up to a
	 * bound, then dropped. Any thread. */
	void (*write)(struct chr *c, const uint8_t *p, size_t len);
	/* room() has grown. Machine lock held. */
	void (*poke)(struct chr *c);
	void (*close)(struct chr *c);
};

struct chr {
	const struct chr_ops *ops;
	struct chr_peer peer; /* set by the device before the machine runs */
};

#endif
