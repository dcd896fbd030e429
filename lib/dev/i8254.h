/* dev/i8254.h - the 8254 interval timer of a PC, with the speaker's port 61h. */
#ifndef DEV_I8254_H
#define DEV_I8254_H

#include "vm/env.h"

struct i8254;

/* At ports 40h and 61h. `irq` (copied): counter 0's output. NULL with *err. Machine lock held. */
struct i8254 *i8254_new(const struct vm_env *env, const struct irq *irq,
			struct err *err);
void i8254_free(struct i8254 *pit);
void i8254_reset(struct i8254 *pit);

/* Whether counter 0 reaches its line: not while the HPET replaces it. */
void i8254_connect(struct i8254 *pit, bool connected);

#endif
