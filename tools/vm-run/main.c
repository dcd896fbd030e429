/*
 * vm-run/main.c - boots a guest: chooses the engine, opens what the guest needs, enters the sandbox, runs,
 * and tells by its exit status why the guest stopped.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emu/emu.h"
#include "host/disk.h"
#include "host/leftovers.h"
#include "host/sandbox.h"
#include "kvm/kvm.h"
#include "vm-run.h"

/* clang-format off */
const struct cli_page page = {
	.name = "vm-run",
	.usage = "[OPTION...] GUEST",
	.summary = "Boots GUEST (a Linux kernel, an ELF kernel with a PVH note, a multiboot kernel) on KVM\n"
		   "where that works, on the built-in emulator everywhere else.",
	.examples =
		"  vm-run vmlinuz --initrd initrd.img --append console=ttyS0\n"
		"  vm-run vmlinuz -i initrd.img -a 'root=/dev/vda1 console=ttyS0' -d disk.qcow2 -s\n"
		"  vm-run vmlinuz -i initrd.img -a console=ttyS0 -f tcp:2222:22 -m 1G -c 2\n"
		"  vm-run xen --module 'vmlinuz console=hvc0' --module initrd.img -m 1G\n",
};
/* clang-format on */

/* Exit statuses that say why the guest stopped (vm-run(1)). */
enum {
	EXIT_RESET = 10,
	EXIT_PANIC = 11,
	EXIT_TRIPLE_FAULT = 12,
	EXIT_TIMEOUT = 13,
	EXIT_QUIT = 14,
	EXIT_DEBUG = 64, /* + the value's low 6 bits */
};

static int open_guest(const char *path, struct pc_file *f, struct err *err)
{
	f->path = path;
	f->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (f->fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	return 0;
}

/* "FILE ARGUMENTS": the file, and what a multiboot kernel sees as the module's command line. */
static int open_module(const char *spec, struct pc_file *f, struct err *err)
{
	size_t n = strcspn(spec, " ");
	char *path = strndup(spec, n);
	int rc;

	if (!path)
		return err_set(err, ENOMEM, "no memory");
	rc = open_guest(path, f, err); /* the path lives on in f */
	f->cmdline = spec;
	return rc;
}

static int open_guests(const struct options *o, struct pc_config *cfg, struct err *err)
{
	int rc = 0;

	if (o->guest && !o->restore)
		rc = open_guest(o->guest, &cfg->kernel, err);
	if (!rc && o->initrd)
		rc = open_guest(o->initrd, &cfg->initrd, err);
	for (unsigned i = 0; i < o->n_modules && !rc; i++) {
		rc = open_module(o->modules[i], &cfg->modules[i], err);
		cfg->n_modules++;
	}
	return rc;
}

/* ---- the engine ---- */

static int choose_engine(const struct options *o, const char *saved,
			 struct pc_config *cfg, struct err *err)
{
	const char *want = saved ? saved : o->engine ? o->engine : "auto";
	struct kvm_probe_result probe;

	if (saved && o->engine && strcmp(o->engine, "auto") && strcmp(o->engine, saved))
		return err_set(err, EINVAL,
			       "the machine was saved under engine '%s', not '%s'",
			       saved, o->engine);
	cfg->engine = &engine_emulator;
	if (!strcmp(want, "emulator"))
		return 0;
	if (kvm_probe(NULL, &probe, err) == 0) {
		cfg->engine = &engine_kvm;
		log_msg(cfg->log, LOG_INFO, "engine kvm: %s", probe.reason);
		return 0;
	}
	if (!strcmp(want, "kvm")) {
		if (probe.verdict != KVM_SLOW)
			return err_prefix(err, "engine kvm");
		cfg->engine = &engine_kvm; /* asked for, and it works */
		log_msg(cfg->log, LOG_WARN, "engine kvm: %s", err->msg);
		return 0;
	}
	log_msg(cfg->log, LOG_INFO, "engine emulator: %s", err->msg);
	return 0;
}

/* ---- saving and restoring ---- */

static int open_save(const struct options *o, struct pc_config *cfg, struct err *err)
{
	char *tmp;

	if (!o->save)
		return 0;
	if (asprintf(&tmp, "%s.part-%d", o->save, (int)getpid()) < 0)
		return err_set(err, ENOMEM, "no memory");
	cfg->save_path = o->save;
	cfg->save_tmp = tmp;
	cfg->save_fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (cfg->save_fd < 0)
		return err_sys(err, errno, "cannot write '%s'", tmp);
	return leftovers_add(tmp, err); /* is gone when it was renamed */
}

static int open_restore(const struct options *o, struct pc_config *cfg,
			struct pc_saved *saved, struct err *err)
{
	int rc;

	cfg->restore_fd = open(o->restore, O_RDONLY | O_CLOEXEC);
	if (cfg->restore_fd < 0)
		return err_sys(err, errno, "cannot open '%s'", o->restore);
	rc = pc_saved_read(cfg->restore_fd, saved, err);
	if (rc)
		return err_prefix(err, "cannot restore '%s'", o->restore);
	cfg->memory = saved->memory;
	cfg->cpus = saved->cpus;
	return 0;
}

/* ---- the run ---- */

static int enter_sandbox(const struct options *o, const struct pc_config *cfg,
			 struct err *err)
{
	struct sandbox_config box = {
		.network = backends_use_network(o),
		.sockets = backends_use_listeners(o),
		.kvm = cfg->engine == &engine_kvm,
		.rename = o->save != NULL,
	};

	for (unsigned i = 0; i < cfg->n_disks; i++)
		box.remote |= disk_is_remote(cfg->disks[i]);
	return o->no_sandbox ? 0 : sandbox_enter(&box, err);
}

static int status_of(const struct pc_result *res, const struct pc_config *cfg)
{
	switch (res->why) {
	case PC_POWEROFF: return CLI_DONE;
	case PC_SAVED:
		log_msg(cfg->log, LOG_INFO, "saved to '%s'", cfg->save_path);
		return CLI_DONE;
	case PC_RESET:
		log_msg(cfg->log, LOG_INFO, "the guest reset (--no-reboot)");
		return EXIT_RESET;
	case PC_PANIC:
		log_msg(cfg->log, LOG_ERROR, "the guest panicked");
		return EXIT_PANIC;
	case PC_TRIPLE_FAULT:
		log_msg(cfg->log, LOG_ERROR,
			"triple fault on processor %u: the guest cannot go on",
			res->value);
		return EXIT_TRIPLE_FAULT;
	case PC_DEBUG_EXIT: return EXIT_DEBUG + (int)(res->value & 63);
	case PC_QUIT: return EXIT_QUIT;
	case PC_TIMEOUT:
		log_msg(cfg->log, LOG_ERROR,
			"the guest still ran when the time was over");
		return EXIT_TIMEOUT;
	case PC_FAILED:
		log_msg(cfg->log, LOG_ERROR, "%s", res->err.msg);
		return CLI_FAILED;
	}
	return CLI_FAILED;
}

static bool serial_is_stdio(const struct options *o)
{
	bool stdio = !o->n_serials || (o->console && !strcmp(o->console, "stdio"));

	for (unsigned i = 0; i < o->n_serials; i++)
		stdio |= !strcmp(o->serials[i], "stdio");
	return stdio;
}

/* Builds and runs the machine. Returns an exit status; *err is set when it is CLI_FAILED. */
static int run(const struct options *o, struct pc *pc, struct pc_config *cfg,
	       struct console *console, struct stats *stats, struct err *err)
{
	struct pc_result res;

	if (pc_build(pc, cfg, err) < 0)
		return CLI_FAILED;
	if (o->dump_acpi)
		return pc_dump_acpi(pc, o->dump_acpi, err) < 0 ? CLI_FAILED : CLI_DONE;
	if (console_start(console, pc, serial_is_stdio(o), err) < 0 ||
	    leftovers_watch(err) < 0 || enter_sandbox(o, cfg, err) < 0)
		return CLI_FAILED;
	stats_start(stats, pc, cfg);
	pc_run(pc, &res);
	console_stop(console); /* what is said from here on needs a cooked terminal */
	stats_end(stats);
	err->code = res.why == PC_FAILED ? EIO : 0;
	if (res.why == PC_FAILED)
		*err = res.err;
	return res.why == PC_FAILED ? CLI_FAILED : status_of(&res, cfg);
}

/* Opens everything, then runs. As run(). */
static int start(const struct options *o, struct pc_config *cfg, struct cli_log *log,
		 struct err *err)
{
	struct console *console = console_new(log);
	struct pc_saved saved = {0};
	struct stats *stats = NULL;
	struct pc *pc = NULL;
	int status = CLI_FAILED;

	if (console && stats_open(&stats, o, log, err) == 0 &&
	    open_guests(o, cfg, err) == 0 &&
	    (!o->restore || open_restore(o, cfg, &saved, err) == 0) &&
	    choose_engine(o, o->restore ? saved.engine : NULL, cfg, err) == 0)
		pc = pc_new(err);
	cfg->on_stats = stats_print;
	cfg->stats_ctx = stats;
	if (pc) {
		if (backends_open(o, pc, cfg, console_filter(console), &log->log, err) <
			    0 ||
		    open_save(o, cfg, err) < 0)
			pc_config_close(cfg);
		else
			status = run(o, pc, cfg, console, stats, err);
		console_stop(console);
	}
	if (status == CLI_FAILED)
		cli_fail(&page, err);
	pc_free(pc);
	stats_close(stats);
	return status;
}

int main(int argc, const char **argv)
{
	struct pc_config cfg = {.save_fd = -1, .restore_fd = -1};
	struct options o = {0};
	struct err err = {0};
	struct cli_log log;
	int status;

	cli_start();
	status = options_parse(&o, argc, argv);
	if (!status) {
		cli_log_init(&log, page.name, o.verbose);
		cfg.log = &log.log;
		cfg.memory = o.memory;
		cfg.cpus = o.cpus;
		cfg.cmdline = o.append;
		cfg.no_reboot = o.no_reboot;
		cfg.profile = o.stats;
		cfg.lockstep = o.emulator && !strcmp(o.emulator, "lockstep");
		cfg.translate = !o.emulator || strcmp(o.emulator, "interpreter") != 0;
		cfg.code_cache = o.code_cache;
		cfg.timeout_ns = (uint64_t)(o.timeout * 1e9);
		status = cli_finish(&page, start(&o, &cfg, &log, &err));
	}
	leftovers_remove();
	for (unsigned i = 0; i < cfg.n_modules; i++)
		free((char *)cfg.modules[i].path);
	free((char *)cfg.save_tmp);
	options_free(&o);
	return status;
}
