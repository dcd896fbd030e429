/*
 * vm/dma.h - how devices reach guest memory. Only RAM can be reached (never device registers),
 * every range is checked, nothing is written that lies partly outside. Any thread.
 */
#ifndef VM_DMA_H
#define VM_DMA_H

#include <sys/uio.h>

#include "vm/ram.h"

/* Copies; false (and nothing done) when [gpa, gpa + len) is not all RAM. */
bool dma_read(const struct ram *ram, uint64_t gpa, void *buf, size_t len);
bool dma_write(const struct ram *ram, uint64_t gpa, const void *buf, size_t len);

/*
 * Adds the host addresses of [gpa, gpa + len) to iov[*n ..], at most `max` in all (*n counts). Returns
 * false when the range is not all RAM or does not fit. After writing through them: dma_written().
 */
bool dma_map(const struct ram *ram, uint64_t gpa, uint64_t len, struct iovec *iov,
	     unsigned *n, unsigned max);
void dma_written(const struct ram *ram, uint64_t gpa, uint64_t len);

#endif
