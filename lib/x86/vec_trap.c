/*
 * x86/vec_trap.c - runs one SIMD instruction with unmasked exceptions on the host.
 *
 * The trap arrives as SIGFPE. The handler is ours only while the instruction runs, under a
 * lock; it notes MXCSR, masks everything in the interrupted context and lets the instruction
 * finish, whose result the caller throws away. SIGFPE need not be unblocked before. vCPU thread.
 */
#include "x86/vec.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

struct trap {
	bool seen;
	uint32_t mxcsr;
};

static pthread_mutex_t trap_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct trap *trap_cur;

static void trap_handler(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	struct trap *t = trap_cur;

	(void)si;
	if (!t || t->seen || !uc->uc_mcontext.fpregs) {
		signal(sig, SIG_DFL); /* not from here: as without this handler */
		return;
	}
	t->seen = true;
	t->mxcsr = uc->uc_mcontext.fpregs->mxcsr;
	uc->uc_mcontext.fpregs->mxcsr |= MXCSR_MASKS;
}

bool vec_trap_run(struct x86_cpu *c, const struct vec_call *k, uint32_t *mxcsr)
{
	struct sigaction sa = {.sa_sigaction = trap_handler, .sa_flags = SA_SIGINFO},
			 old;
	struct trap t = {.seen = false};
	sigset_t fpe, mask;

	sigemptyset(&fpe);
	sigaddset(&fpe, SIGFPE);
	pthread_mutex_lock(&trap_lock);
	sigaction(SIGFPE, &sa, &old);
	pthread_sigmask(SIG_UNBLOCK, &fpe, &mask);
	trap_cur = &t;
	host_ldmxcsr(*mxcsr);
	k->code->fn(k->r, k->m, k->v, k->l, c);
	*mxcsr = t.seen ? t.mxcsr : host_stmxcsr();
	host_ldmxcsr(MXCSR_HOST);
	trap_cur = NULL;
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	sigaction(SIGFPE, &old, NULL);
	pthread_mutex_unlock(&trap_lock);
	return t.seen;
}
