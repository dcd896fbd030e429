/*
 * pc/pc.h - a personal computer: processors, memory, devices on a board, and its running.
 *
 * The thread that calls pc_run() is the loop thread; each processor has a thread of its own, made
 * by pc_new(), so that a sandbox can be entered between the two.
 */
#ifndef PC_PC_H
#define PC_PC_H

#include "base/err.h"
#include "base/log.h"
#include "vm/blk.h"
#include "vm/chr.h"
#include "vm/cpu.h"
#include "vm/loop.h"
#include "vm/net.h"

#define PC_MAX_CPUS    64
#define PC_MAX_DISKS   16
#define PC_MAX_NETS    4
#define PC_MAX_SERIAL  2
#define PC_MAX_MODULES 16

/* Why a machine stopped. */
enum pc_stop {
	PC_POWEROFF, /* ACPI S5 */
	PC_RESET,    /* reset, and the machine was told not to do it */
	PC_PANIC,    /* the guest said so through pvpanic */
	PC_TRIPLE_FAULT,
	PC_DEBUG_EXIT, /* isa-debug-exit: pc_result.value is what was written */
	PC_QUIT,       /* pc_stop() from outside */
	PC_TIMEOUT,
	PC_SAVED,  /* the state is in the file */
	PC_FAILED, /* the engine: pc_result.err */
};

struct pc_result {
	enum pc_stop why;
	uint32_t value;
	struct err err;
};

/* A file the guest is loaded from, read again at each reset; the descriptor stays the caller's. */
struct pc_file {
	const char *path; /* for messages; NULL: there is none */
	int fd;
	const char *cmdline; /* multiboot modules: their command line */
};

struct pc_config {
	const struct log *log;
	const struct engine_ops *engine;
	uint64_t memory; /* bytes, a multiple of 1 MiB */
	unsigned cpus;
	struct pc_file kernel, initrd;
	struct pc_file modules[PC_MAX_MODULES];
	unsigned n_modules;
	const char *cmdline;             /* may be NULL */
	struct blk *disks[PC_MAX_DISKS]; /* the machine closes all these */
	unsigned n_disks;
	struct net *nets[PC_MAX_NETS];
	unsigned n_nets;
	struct chr *serial[PC_MAX_SERIAL];
	struct chr *console; /* virtio console; may be NULL */
	struct chr *debug;   /* ports e9 and 402; may be NULL */
	bool translate;      /* the emulator translates instead of interpreting */
	bool lockstep;       /* and compares it with the interpreter: for debugging */
	uint64_t code_cache; /* bytes of translated code for each processor, at most */
	bool profile; /* processors note what their time goes to, for pc_figures() */
	bool no_reboot;
	uint64_t timeout_ns; /* 0: none */
	/* Saving: an open file and the names to give it when it is whole; save_path NULL: cannot. */
	int save_fd;
	const char *save_tmp, *save_path;
	int restore_fd;              /* -1: starts from reset */
	void (*on_stats)(void *ctx); /* pc_ask_stats(); may be NULL */
	void *stats_ctx;
};

struct pc;

/*
 * The loop comes first: backends (struct blk, net, chr) are made on it and handed over in the
 * configuration. pc_lock(): the machine lock it runs under.
 */
struct pc *pc_new(struct err *err);
struct loop *pc_loop(struct pc *pc);

/* Builds the board, loads the guest, makes the processors' threads. Once. 0 or -errno. */
int pc_build(struct pc *pc, const struct pc_config *cfg, struct err *err);

/* Closes the backends of a configuration that pc_build() never got. */
void pc_config_close(struct pc_config *cfg);

/* Runs until the machine stops. */
void pc_run(struct pc *pc, struct pc_result *res);

/* Stops and frees everything, the backends of the configuration included. */
void pc_free(struct pc *pc);

/* From any thread, and from signal handlers: presses the power button; saves (then PC_SAVED); stops. */
void pc_power_button(struct pc *pc);
void pc_save(struct pc *pc);
void pc_quit(struct pc *pc);

/* What a saved machine in `fd` was: its memory, processors and engine. 0 or -errno. */
struct pc_saved {
	uint64_t memory;
	unsigned cpus;
	char engine[16];
};

int pc_saved_read(int fd, struct pc_saved *s, struct err *err);

/* Writes each ACPI table as DIR/NAME.aml. After pc_build(). 0 or -errno. */
int pc_dump_acpi(struct pc *pc, const char *dir, struct err *err);

/* A processor's profile so far, as engine_ops.figures; loop thread, or after pc_run(). */
unsigned pc_figures(struct pc *pc, unsigned index, struct figure out[FIGURES_MAX]);
/* Calls cfg->on_stats in the loop thread. From any thread, and from signal handlers. */
void pc_ask_stats(struct pc *pc);

#endif
