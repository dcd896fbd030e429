/* dev/virtio_console.h - virtio console device (virtio 1.2, 5.3), one port. */
#ifndef DEV_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_CONSOLE_H

#include "dev/pci.h"
#include "vm/chr.h"

struct virtio_console;

/* A console (hvc0 of Linux) over `chr`, which is borrowed; sets chr->peer. NULL with *err. */
struct virtio_console *virtio_console_new(const struct vm_env *env, struct pci_bus *pci,
					  unsigned devfn, struct chr *chr,
					  struct err *err);
void virtio_console_free(struct virtio_console *c);

/* The terminal's size in characters, 0 = unknown. Machine lock held. */
void virtio_console_set_size(struct virtio_console *c, uint16_t cols, uint16_t rows);

#endif
