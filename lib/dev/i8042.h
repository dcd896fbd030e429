/* dev/i8042.h - the keyboard controller of a PC with an AT keyboard and a PS/2 mouse. */
#ifndef DEV_I8042_H
#define DEV_I8042_H

#include "dev/ps2.h"

struct i8042;

/* Machine lock held, perhaps in a vCPU's thread. Either may be NULL. */
struct i8042_user {
	void (*reset)(void *ctx); /* the guest pulled the processor's reset line */
	void (*a20)(void *ctx, bool on); /* the A20 gate changed */
	void *ctx;                       /* borrowed */
};

/*
 * At ports 60h and 64h. `kbd_irq` (line 1), `mouse_irq` (line 12) and `user` are copied. NULL with
 * *err. Machine lock held for all functions.
 */
struct i8042 *i8042_new(const struct vm_env *env, const struct irq *kbd_irq,
			const struct irq *mouse_irq, const struct i8042_user *user,
			struct err *err);
void i8042_free(struct i8042 *k);
void i8042_reset(struct i8042 *k);

/* A key, as ps2_kbd_key(): code of set 1, + PS2_EXT for grey keys. */
void i8042_key(struct i8042 *k, unsigned key, bool down);
/* The mouse, as ps2_mouse_move(). */
void i8042_mouse(struct i8042 *k, int dx, int dy, int dz, unsigned buttons);
/* The keyboard's lights: bit 0 scroll, 1 num, 2 caps lock. */
unsigned i8042_leds(const struct i8042 *k);

#endif
