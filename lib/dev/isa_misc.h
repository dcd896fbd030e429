/*
 * dev/isa_misc.h - the small ports of a PC and of virtual machines: one register each.
 *
 * Constructors: NULL with *err when the port is taken; callbacks run in the vCPU's thread, machine lock
 * held. Machine lock held for all functions.
 */
#ifndef DEV_ISA_MISC_H
#define DEV_ISA_MISC_H

#include "vm/chr.h"
#include "vm/env.h"

/* ---- port92.c: system control port A: A20 gate and fast reset ---- */

struct port92;
struct port92_user {
	void (*reset)(void *ctx);
	void (*a20)(void *ctx, bool on);
	void *ctx; /* borrowed */
};
struct port92 *port92_new(const struct vm_env *env, const struct port92_user *user,
			  struct err *err);
void port92_free(struct port92 *p);
void port92_reset(struct port92 *p);

/* ---- cf9.c: the reset control register of Intel chipsets, port CF9h ---- */

struct cf9;
/* hard: the whole machine, not the processors alone. */
struct cf9 *cf9_new(const struct vm_env *env, void (*reset)(void *ctx, bool hard),
		    void *ctx, struct err *err);
void cf9_free(struct cf9 *c);
void cf9_reset(struct cf9 *c);

/* ---- debugcon.c: a port that prints (402h SeaBIOS and OVMF, E9h Bochs) ---- */

struct debugcon;
/* Reading gives E9h: "I am here". chr (borrowed) may be NULL: bytes are dropped. */
struct debugcon *debugcon_new(const struct vm_env *env, uint16_t port, struct chr *chr,
			      struct err *err);
void debugcon_free(struct debugcon *d);

/* ---- debug_exit.c: a write ends the machine (F4h: QEMU's isa-debug-exit) ---- */

struct debug_exit;
/* `exit` gets the value written. */
struct debug_exit *debug_exit_new(const struct vm_env *env, uint16_t port,
				  void (*exit)(void *ctx, uint32_t value), void *ctx,
				  struct err *err);
void debug_exit_free(struct debug_exit *d);

/* ---- pvpanic.c: the guest says that it panicked (505h) ---- */

#define PVPANIC_PORT     0x505
#define PVPANIC_PANICKED 1
#define PVPANIC_CRASHED  2 /* a crash kernel was started and goes on */

struct pvpanic;
struct pvpanic *pvpanic_new(const struct vm_env *env,
			    void (*event)(void *ctx, unsigned events), void *ctx,
			    struct err *err);
void pvpanic_free(struct pvpanic *p);

#endif
