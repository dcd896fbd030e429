/*
 * pc/run.c - the running of a machine: processors' threads, pausing, requests from outside.
 *
 * Lock order: machine lock, then park_lock. A processor's thread takes the machine lock only inside
 * engine->run(), so pausing waits for it with the machine lock released.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "pc/pc_int.h"

/* ---- processors ---- */

/* Waits while the machine is paused; false when it ends. */
static bool may_run(struct pc *pc)
{
	bool quit;

	pthread_mutex_lock(&pc->park_lock);
	pc->parked++;
	pthread_cond_broadcast(&pc->park_cond);
	while (pc->paused && !pc->quit)
		pthread_cond_wait(&pc->park_cond, &pc->park_lock);
	pc->parked--;
	quit = pc->quit;
	pthread_mutex_unlock(&pc->park_lock);
	return !quit;
}

/* The processor stopped for good: it waits for a reset or the end. */
static void hold(struct pc *pc)
{
	pthread_mutex_lock(&pc->park_lock);
	pc->parked++;
	pthread_cond_broadcast(&pc->park_cond);
	while (!pc->paused && !pc->quit)
		pthread_cond_wait(&pc->park_cond, &pc->park_lock);
	pc->parked--;
	pthread_mutex_unlock(&pc->park_lock);
}

static void *cpu_main(void *arg)
{
	struct pc_cpu *cpu = arg;
	struct pc *pc = cpu->pc;
	struct err err;

	while (may_run(pc)) {
		err.code = 0;
		switch (pc->engine->ops->run(pc->engine, cpu->index, &err)) {
		case VCPU_KICKED: break;
		case VCPU_SHUTDOWN:
			pc_stop(pc, PC_TRIPLE_FAULT, cpu->index);
			hold(pc);
			break;
		case VCPU_FAILED:
			pthread_mutex_lock(&pc->park_lock);
			if (!pc->result.err.code)
				pc->result.err = err;
			pthread_mutex_unlock(&pc->park_lock);
			pc_stop(pc, PC_FAILED, cpu->index);
			hold(pc);
			break;
		}
	}
	return NULL;
}

int pc_start_threads(struct pc *pc, struct err *err)
{
	sigset_t all, old;
	int rc = 0;

	pc->paused = true;
	sigfillset(
		&all); /* signals are the loop thread's; an engine unblocks its own */
	pthread_sigmask(SIG_BLOCK, &all, &old);
	for (unsigned i = 0; i < pc->cfg.cpus && !rc; i++) {
		pc->cpus[i].pc = pc;
		pc->cpus[i].index = i;
		rc = pthread_create(&pc->cpus[i].thread, NULL, cpu_main, &pc->cpus[i]);
		pc->cpus[i].has_thread = !rc;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc ? err_sys(err, rc, "cannot start the thread of a processor") : 0;
}

static void kick_all(struct pc *pc)
{
	for (unsigned i = 0; i < pc->cfg.cpus; i++)
		pc->engine->ops->kick(pc->engine, i);
}

void pc_stop_threads(struct pc *pc)
{
	if (!pc->cpus)
		return;
	pthread_mutex_lock(&pc->park_lock);
	pc->quit = true;
	pthread_cond_broadcast(&pc->park_cond);
	pthread_mutex_unlock(&pc->park_lock);
	for (unsigned i = 0; i < pc->cfg.cpus; i++)
		if (pc->cpus[i].has_thread)
			pc->engine->ops->kick(pc->engine, i);
	for (unsigned i = 0; i < pc->cfg.cpus; i++)
		if (pc->cpus[i].has_thread)
			pthread_join(pc->cpus[i].thread, NULL);
}

/* ---- pausing ---- */

void pc_pause(struct pc *pc)
{
	pthread_mutex_unlock(&pc->lock);
	pthread_mutex_lock(&pc->park_lock);
	pc->paused = true;
	pthread_cond_broadcast(&pc->park_cond);
	kick_all(pc);
	while (pc->parked < pc->cfg.cpus)
		pthread_cond_wait(&pc->park_cond, &pc->park_lock);
	pthread_mutex_unlock(&pc->park_lock);
	pthread_mutex_lock(&pc->lock);
	clock_pause(pc->loop);
	board_quiesce(pc);
}

void pc_resume(struct pc *pc)
{
	clock_resume(pc->loop);
	if (pc->engine->ops->resumed)
		pc->engine->ops->resumed(pc->engine);
	pthread_mutex_lock(&pc->park_lock);
	pc->paused = false;
	pthread_cond_broadcast(&pc->park_cond);
	pthread_mutex_unlock(&pc->park_lock);
}

/* ---- requests ---- */

void pc_ask(struct pc *pc, unsigned what)
{
	uint64_t one = 1;
	ssize_t n;

	atomic_fetch_or(&pc->asked, what);
	n = write(pc->ask_fd, &one, sizeof(one));
	(void)n; /* full: it will be looked at */
}

void pc_power_button(struct pc *pc)
{
	pc_ask(pc, PC_ASK_POWER);
}

void pc_save(struct pc *pc)
{
	pc_ask(pc, PC_ASK_SAVE);
}

void pc_quit(struct pc *pc)
{
	pc_ask(pc, PC_ASK_QUIT);
}

void pc_ask_stats(struct pc *pc)
{
	pc_ask(pc, PC_ASK_STATS);
}

void pc_stop(struct pc *pc, enum pc_stop why, uint32_t value)
{
	pthread_mutex_lock(&pc->park_lock);
	if (!pc->stopping) {
		pc->stopping = true;
		pc->result.why = why;
		pc->result.value = value;
	}
	pthread_mutex_unlock(&pc->park_lock);
	pc_ask(pc, PC_ASK_STOP);
}

static void reset(struct pc *pc)
{
	struct err err = {0};

	if (pc->cfg.no_reboot) {
		pc_stop(pc, PC_RESET, 0);
		return;
	}
	log_msg(pc->cfg.log, LOG_DEBUG, "reset");
	pc_pause(pc);
	board_reset(pc);
	if (board_boot(pc, &err) < 0) {
		pc->result.err = err;
		pc_stop(pc, PC_FAILED, 0);
		return;
	}
	pc_resume(pc);
}

static void save(struct pc *pc)
{
	struct err err = {0};

	if (!pc->cfg.save_path) {
		log_msg(pc->cfg.log, LOG_ERROR,
			"cannot save: start the machine with '--save FILE' to name the "
			"file");
		return;
	}
	pc_pause(pc);
	if (pc_save_write(pc, &err) < 0) {
		log_msg(pc->cfg.log, LOG_ERROR, "%s; the machine goes on", err.msg);
		pc_resume(pc);
		return;
	}
	pc_stop(pc, PC_SAVED, 0);
}

/* The loop thread's end of pc_ask(). */
static void on_ask(void *ctx, uint32_t events)
{
	struct pc *pc = ctx;
	uint64_t count;
	unsigned what;

	(void)events;
	if (read(pc->ask_fd, &count, sizeof(count)) < 0)
		return;
	what = atomic_exchange(&pc->asked, 0);
	if (what & PC_ASK_QUIT)
		pc_stop(pc, PC_QUIT, 0);
	if (what & PC_ASK_POWER)
		board_power_button(pc);
	if ((what & PC_ASK_RESET) && !pc->stopping)
		reset(pc);
	if ((what & PC_ASK_SAVE) && !pc->stopping)
		save(pc);
	if ((what & PC_ASK_STATS) && pc->cfg.on_stats)
		pc->cfg.on_stats(pc->cfg.stats_ctx);
	if (pc->stopping)
		loop_stop(pc->loop);
}

static void on_timeout(void *ctx)
{
	pc_stop(ctx, PC_TIMEOUT, 0);
}

/* ---- life ---- */

struct pc *pc_new(struct err *err)
{
	pthread_mutexattr_t recursive;
	struct pc *pc = NEW(struct pc);

	if (!pc) {
		err_set(err, ENOMEM, "no memory for a machine");
		return NULL;
	}
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&pc->lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	pthread_mutex_init(&pc->park_lock, NULL);
	pthread_cond_init(&pc->park_cond, NULL);
	bus_init(&pc->pio, "I/O port", 0x10000, &pc->lock);
	bus_init(&pc->mmio, "memory", 1ull << 52, &pc->lock);
	pc->ask_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pc->loop = loop_new(&pc->lock, err);
	if (!pc->loop || pc->ask_fd < 0 ||
	    loop_fd_set(pc->loop, pc->ask_fd, EPOLLIN, on_ask, pc) < 0) {
		if (pc->loop)
			err_sys(err, errno,
				"cannot make the machine's event descriptor");
		pc_free(pc);
		return NULL;
	}
	return pc;
}

struct loop *pc_loop(struct pc *pc)
{
	return pc->loop;
}

int pc_build(struct pc *pc, const struct pc_config *cfg, struct err *err)
{
	int rc;

	pc->cfg = *cfg;
	pc->cpus = mem_new(cfg->cpus, sizeof(*pc->cpus));
	if (!pc->cpus)
		return err_set(err, ENOMEM, "no memory for %u processors", cfg->cpus);
	clock_pause(pc->loop);
	clock_set(pc->loop, 0);
	/* State is loaded in this order: devices arm timers against the clock, and what they raise
	 * meanwhile is already in the processors' state. */
	pc_save_clock(pc);
	rc = board_new(pc, err);
	if (rc)
		return rc;
	pc_save_cpus(pc);
	rc = cfg->restore_fd >= 0 ? pc_restore_read(pc, err) : board_boot(pc, err);
	if (rc)
		return rc;
	timer_init(&pc->timeout, pc->loop, on_timeout, pc);
	if (cfg->timeout_ns)
		timer_set(&pc->timeout, clock_now(pc->loop) + cfg->timeout_ns);
	return pc_start_threads(pc, err);
}

void pc_run(struct pc *pc, struct pc_result *res)
{
	pc_resume(pc);
	loop_run(pc->loop);
	*res = pc->result;
}

void pc_config_close(struct pc_config *cfg)
{
	for (unsigned i = 0; i < cfg->n_disks; i++)
		cfg->disks[i]->ops->close(cfg->disks[i]);
	for (unsigned i = 0; i < cfg->n_nets; i++)
		cfg->nets[i]->ops->close(cfg->nets[i]);
	for (unsigned i = 0; i < PC_MAX_SERIAL; i++)
		if (cfg->serial[i])
			cfg->serial[i]->ops->close(cfg->serial[i]);
	if (cfg->console)
		cfg->console->ops->close(cfg->console);
	if (cfg->debug)
		cfg->debug->ops->close(cfg->debug);
}

void pc_free(struct pc *pc)
{
	if (!pc)
		return;
	pc_stop_threads(pc);
	board_free(pc);
	pc_config_close(&pc->cfg);
	if (pc->engine)
		pc->engine->ops->destroy(pc->engine);
	ram_fini(&pc->ram);
	loop_free(pc->loop);
	if (pc->ask_fd >= 0)
		close(pc->ask_fd);
	bus_fini(&pc->pio);
	bus_fini(&pc->mmio);
	pthread_cond_destroy(&pc->park_cond);
	pthread_mutex_destroy(&pc->park_lock);
	pthread_mutex_destroy(&pc->lock);
	free(pc->cpus);
	free(pc);
}

unsigned pc_figures(struct pc *pc, unsigned index, struct figure out[FIGURES_MAX])
{
	if (!pc->engine || !pc->engine->ops->figures || index >= pc->cfg.cpus)
		return 0;
	return pc->engine->ops->figures(pc->engine, index, out);
}
