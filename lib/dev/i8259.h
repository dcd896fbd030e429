/* dev/i8259.h - the pair of 8259A interrupt controllers of a PC, with the ELCR. */
#ifndef DEV_I8259_H
#define DEV_I8259_H

#include "vm/env.h"

struct i8259;

/*
 * At ports 20h, A0h and 4D0h. `intr` (copied): the master's INT output, for engine_ops.extint. NULL
 * with *err. All functions: machine lock held, unless they say otherwise.
 */
struct i8259 *i8259_new(const struct vm_env *env, const struct irq *intr,
			struct err *err);
void i8259_free(struct i8259 *pic);
void i8259_reset(struct i8259 *pic);

/* The line into input `n`, 0-15; valid as long as the device. */
struct irq i8259_line(struct i8259 *pic, unsigned n);

/* Acknowledges: the vector, or -1 when no interrupt waits any more. */
int i8259_take(struct i8259 *pic);
/* Is INT asserted? Any thread, no lock. */
bool i8259_ready(const struct i8259 *pic);

#endif
