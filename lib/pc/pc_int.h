/* pc/pc_int.h - inside the boards: one machine's parts. Private to lib/pc. */
#ifndef PC_INT_H
#define PC_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "pc/pc.h"
#include "vm/env.h"

struct board; /* of q35.c */

/* What the outside asked for; handled in the loop thread. */
enum {
	PC_ASK_POWER = 1,
	PC_ASK_SAVE = 2,
	PC_ASK_QUIT = 4,
	PC_ASK_RESET = 8,
	PC_ASK_STOP = 16,
	PC_ASK_STATS = 32
};

struct pc_cpu {
	struct pc *pc;
	unsigned index;
	pthread_t thread;
	bool has_thread;
	struct cpu_state state; /* while saving and restoring */
};

struct pc {
	struct pc_config cfg;
	pthread_mutex_t lock; /* the machine lock, recursive */
	struct loop *loop;
	struct bus pio, mmio;
	struct ram ram;
	struct state state;
	struct vm_env env;
	struct engine *engine;
	struct board *board;
	uint64_t clock; /* saved: the guest's clock, ns */

	struct pc_cpu *cpus;       /* cfg.cpus of them */
	pthread_mutex_t park_lock; /* guards the four below */
	pthread_cond_t park_cond;
	bool paused, quit;
	unsigned parked;

	int ask_fd; /* eventfd: `asked` changed */
	_Atomic unsigned asked;
	struct timer timeout;
	struct pc_result result;
	bool stopping;
};

/* run.c */
int pc_start_threads(struct pc *pc, struct err *err);
void pc_stop_threads(struct pc *pc);
/* All processors leave guest code, the clock stops. Loop thread, lock held once (it is released
 * while waiting). */
void pc_pause(struct pc *pc);
void pc_resume(struct pc *pc);
/* The machine is to stop for this reason; the first one counts. Any thread. */
void pc_stop(struct pc *pc, enum pc_stop why, uint32_t value);
/* A device or the guest asked for a reset. Any thread. */
void pc_ask(struct pc *pc, unsigned what);

/* save.c */
void pc_save_clock(struct pc *pc);
void pc_save_cpus(struct pc *pc);
int pc_save_write(struct pc *pc, struct err *err);
int pc_restore_read(struct pc *pc, struct err *err);

/* q35.c: the board */
int board_new(struct pc *pc, struct err *err);
void board_free(struct pc *pc);
/* Loads the guest into memory and sets processor 0's entry state; all others are reset. */
int board_boot(struct pc *pc, struct err *err);
/* Every device as after power-on; before board_boot(). */
void board_reset(struct pc *pc);
void board_power_button(struct pc *pc);
/* No request of a device is under way when this returns. */
void board_quiesce(struct pc *pc);

#endif
