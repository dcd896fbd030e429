/* dev/uart16550.h - a 16550A serial port. */
#ifndef DEV_UART16550_H
#define DEV_UART16550_H

#include "vm/chr.h"
#include "vm/env.h"

struct uart16550;

/*
 * At I/O ports `base` to base + 7. `irq` is copied; `chr` (borrowed) is the line's other end, NULL:
 * nothing is connected. `index` numbers the machine's ports from 0. NULL with *err. Machine lock held.
 */
struct uart16550 *uart16550_new(const struct vm_env *env, unsigned index, uint16_t base,
				const struct irq *irq, struct chr *chr,
				struct err *err);
void uart16550_free(struct uart16550 *u);
void uart16550_reset(struct uart16550 *u);

#endif
