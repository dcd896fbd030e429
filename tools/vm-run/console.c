/*
 * vm-run/console.c - the terminal as the guest's serial line, its escape key, and the signals.
 *
 * Escape: ctrl-a, then x quits, p presses the power button, s saves, i prints --stats, h helps, ctrl-a
 * sends ctrl-a.
 * Signals: SIGTERM and SIGHUP press the power button, the second one quits; SIGUSR1 saves, SIGUSR2
 * prints --stats; SIGINT
 * comes only from outside in raw mode and quits.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"
#include "vm-run.h"

#define CTRL_A 1

struct console {
	struct cli_log *log; /* borrowed */
	struct chr_filter filter;
	struct pc *pc; /* borrowed, NULL before console_start() */
	bool escaped, raw;
	struct termios saved;
	volatile sig_atomic_t terms; /* SIGTERMs so far */
};

/* Signal handlers and atexit() have no argument: the one console of the process. */
static struct console *the_console;

static void restore_terminal(void)
{
	struct console *t = the_console;

	if (t && t->raw) {
		t->raw = false;
		t->log->raw = false;
		tcsetattr(STDIN_FILENO, TCSANOW, &t->saved);
	}
}

static void say(struct console *t, const char *text)
{
	log_msg(&t->log->log, LOG_INFO, "%s", text);
}

static void help(struct console *t)
{
	say(t, "ctrl-a x quit (power off at once)   ctrl-a p press the power button");
	say(t,
	    "ctrl-a s save (with --save)         ctrl-a i statistics (with --stats)");
	say(t, "ctrl-a ctrl-a send ctrl-a");
}

static bool on_byte(void *ctx, uint8_t byte)
{
	struct console *t = ctx;

	if (!t->pc || !t->raw)
		return false;
	if (!t->escaped) {
		t->escaped = byte == CTRL_A;
		return t->escaped;
	}
	t->escaped = false;
	switch (byte) {
	case CTRL_A: return false;
	case 'x': pc_quit(t->pc); break;
	case 'p': pc_power_button(t->pc); break;
	case 's': pc_save(t->pc); break;
	case 'i': pc_ask_stats(t->pc); break;
	default: help(t); break;
	}
	return true;
}

static void on_signal(int sig)
{
	struct console *t = the_console;

	if (!t->pc)
		_exit(128 + sig);
	switch (sig) {
	case SIGUSR1: pc_save(t->pc); break;
	case SIGUSR2: pc_ask_stats(t->pc); break;
	case SIGINT: pc_quit(t->pc); break;
	default:
		if (t->terms++)
			pc_quit(t->pc);
		else
			pc_power_button(t->pc);
	}
}

/* A crash of ours must not leave the user with a raw terminal. */
static void on_crash(int sig)
{
	restore_terminal();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void handle(int sig, void (*fn)(int))
{
	struct sigaction sa = {.sa_handler = fn, .sa_flags = SA_RESTART};

	sigfillset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

struct console *console_new(struct cli_log *log)
{
	struct console *t = NEW(struct console);

	if (!t)
		return NULL;
	t->log = log;
	t->filter = (struct chr_filter){on_byte, t};
	the_console = t;
	return t;
}

const struct chr_filter *console_filter(struct console *t)
{
	return &t->filter;
}

int console_start(struct console *t, struct pc *pc, bool raw, struct err *err)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGSYS};
	struct termios raw_mode;

	if (raw && isatty(STDIN_FILENO)) {
		if (tcgetattr(STDIN_FILENO, &t->saved) < 0)
			return err_sys(err, errno,
				       "cannot read the terminal's settings");
		raw_mode = t->saved;
		cfmakeraw(&raw_mode);
		raw_mode.c_oflag = t->saved.c_oflag & ~(tcflag_t)OPOST;
		atexit(restore_terminal);
		for (unsigned i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
			handle(crashes[i], on_crash);
		t->raw = true;
		t->log->raw = true;
		tcsetattr(STDIN_FILENO, TCSANOW, &raw_mode);
		say(t, "the terminal is the guest's: ctrl-a x quits, ctrl-a h helps");
	}
	t->pc = pc;
	handle(SIGTERM, on_signal);
	handle(SIGHUP, on_signal);
	handle(SIGINT, on_signal);
	handle(SIGUSR1, on_signal);
	handle(SIGUSR2, on_signal);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

void console_stop(struct console *t)
{
	restore_terminal();
	t->pc = NULL;
}
