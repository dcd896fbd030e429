/*
 * x86/run.c - the processor's loop: requests and interrupts between blocks, blocks, exceptions.
 * SDM 3A 6.7 to 6.9 (priorities), 3A 8.4 (INIT, SIPI). vCPU thread.
 *
 * Handlers of a block call each other (op_tmpl.h), and branches go from block to block as long as
 * c->request is 0. What comes back here is looked at, and goes on by block_get(). An exception
 * comes back by longjmp to x86_run().
 */
#include "x86/block.h"
#include "x86/jit/jit.h"
#include "x86/jit/lockstep.h"
#include "x86/op_tmpl.h"

static uint32_t requests(const struct x86_cpu *c)
{
	return atomic_load_explicit(&c->request, memory_order_acquire);
}

static void request_clear(struct x86_cpu *c, uint32_t bits)
{
	atomic_fetch_and_explicit(&c->request, ~bits, memory_order_acq_rel);
}

/* ---- executing --------------------------------------------------------------------------------------- */

/* Runs instructions from `i` on, which lies at c->rip, until c->end. */
static inline void execute(struct x86_cpu *c, const struct insn *i,
			   const struct insn *end)
{
	c->block_rip = c->rip;
	c->end = end;
	do {
		c->cur = i;
		i->fn(c, i);
		i = c->cur + 1;
	} while (i != c->end);
	i--;
	c->stats.insns += i->idx + 1u;
	if (!(i->flags & I_END))
		c->rip = next_rip(c, i);
	c->cur = NULL;
}

/* One instruction, not from the cache. */
static void execute_one(struct x86_cpu *c)
{
	const struct insn *i = block_one(c);

	execute(c, i, i + 1);
	c->blocks->link = NULL;
}

/* The instruction that x86_retry_alone() left. */
static void execute_alone(struct x86_cpu *c)
{
	c->single = false;
	execute_one(c);
}

static inline void execute_block(struct x86_cpu *c, bool counts)
{
	struct insn *from = c->blocks->link;
	struct block *b = block_get(c);

	if (unlikely(!b)) {
		execute_one(c);
		return;
	}
	if (counts && (int64_t)c->stats.insns + b->n > 0) {
		execute_one(c); /* the block is longer than what is left */
		return;
	}
	if (from && c->blocks->link == from) /* else all blocks were forgotten */
		block_link(c, from, b);
	c->blocks->link = NULL;
	if (c->jit && jit_run(c, b))
		return;
	if (counts)
		c->in_block = true;
	execute(c, b->insn, b->end);
	if (counts)
		c->in_block = false;
}

/* ---- requests ---------------------------------------------------------------------------------------- */

/* Interrupt `vec` or NMI: the processor wakes up. */
static void interrupt(struct x86_cpu *c, unsigned vec)
{
	c->ev.halted = false;
	c->stats.irqs++;
	x86_deliver_interrupt(c, vec);
}

/* INIT# and SIPI. A bootstrap processor starts anew after INIT, others wait for a SIPI. */
static void init_and_sipi(struct x86_cpu *c, uint32_t req)
{
	if (req & REQ_INIT) {
		request_clear(c, REQ_INIT);
		cpu_init_signal(c);
	}
	if (req & REQ_SIPI) {
		request_clear(c, REQ_SIPI);
		if (c->ev.wait_sipi)
			cpu_startup(c, c->sipi_vector);
	}
}

/*
 * The interrupt controller's interrupt, if one can be delivered. While interrupts are off the request
 * becomes c->irq_waits, so that blocks run at full speed: whatever sets EFLAGS.IF ends its
 * block (A_STOP, A_END) and comes by loop().
 */
static void external_interrupt(struct x86_cpu *c)
{
	enum x86_time was;
	int vec;

	request_clear(c, REQ_IRQ);
	c->irq_waits = !(c->rflags & FL_IF);
	if (c->irq_waits)
		return;
	x86_leave_guest(c);
	was = time_is(c, X86_TIME_DEVICES);
	vec = c->ops->irq_take(c->ctx);
	time_is(c, was);
	x86_enter_guest(c);
	if (vec < 0)
		return;
	c->irq_waits = true; /* there may be more */
	interrupt(c, (unsigned)vec);
}

/* Why the processor is stopped for good. */
static enum x86_exit shutdown_exit(const struct x86_cpu *c)
{
	return c->lockstep && lockstep_differs(c->lockstep) ? X86_EXIT_DIFFERENCE
							    : X86_EXIT_SHUTDOWN;
}

/*
 * One round of what is requested, in order of priority; at a block boundary. True: x86_run()
 * returns *why.
 */
static bool serve(struct x86_cpu *c, uint32_t req, enum x86_exit *why)
{
	bool shadow = c->ev.int_shadow;

	if (req & REQ_SAFEPOINT)
		x86_safepoint(c);
	if (req & REQ_CODE) {
		request_clear(c, REQ_CODE);
		if (c->jit)
			jit_revalidate(c->jit);
	}
	if (req & (REQ_INIT | REQ_SIPI))
		init_and_sipi(c, req);
	if (c->shutdown) {
		*why = shutdown_exit(c);
		return true;
	}
	if (!shadow && !c->ev.wait_sipi) {
		if (req & REQ_NMI && !c->ev.nmi_blocked) {
			request_clear(c, REQ_NMI);
			interrupt(c, EX_NMI);
		} else if (req & REQ_IRQ) {
			external_interrupt(c);
		}
	}
	if (req & REQ_KICK) {
		request_clear(c, REQ_KICK);
		*why = X86_EXIT_KICK;
		return true;
	}
	return false;
}

/* One instruction while an interrupt shadow or debugging asks for single ones. */
static void step(struct x86_cpu *c, uint32_t req)
{
	c->single = false;
	if (req & REQ_SHADOW) {
		request_clear(c, REQ_SHADOW);
		c->ev.int_shadow = false;
	}
	if (req & REQ_TRAP)
		x86_check_break(c);
	execute_one(c);
	if (req & REQ_TRAP)
		x86_check_traps(c);
}

/* What keeps the processor from executing, if anything. */
static bool is_stopped(struct x86_cpu *c, enum x86_exit *why)
{
	if (c->shutdown)
		*why = shutdown_exit(c);
	else if (c->ev.wait_sipi)
		*why = X86_EXIT_INIT;
	else if (c->ev.halted)
		*why = X86_EXIT_HALT;
	else
		return false;
	return true;
}

/* counts: a constant, c->counts. */
static inline __attribute__((always_inline)) enum x86_exit loop(struct x86_cpu *c,
								bool counts)
{
	enum x86_exit why;

	for (;;) {
		uint32_t req = requests(c) & ~(uint32_t)REQ_JIT;
		uint64_t irqs = c->stats.irqs;

		if (unlikely(c->irq_waits) && c->rflags & FL_IF)
			req |= REQ_IRQ;
		if (unlikely(req)) {
			if (serve(c, req, &why))
				return why;
			c->blocks->link = NULL;
			if (counts && c->stats.irqs != irqs)
				continue; /* another one may come at once */
		}
		if (unlikely(c->ev.halted | c->ev.wait_sipi | c->shutdown) &&
		    is_stopped(c, &why))
			return why;
		if (counts && (int64_t)c->stats.insns >= 0)
			return X86_EXIT_COUNT;
		if (unlikely(req & (REQ_SHADOW | REQ_TRAP)))
			step(c, req);
		else if (counts && c->single)
			execute_alone(c);
		else
			execute_block(c, counts);
	}
}

void x86_abandon(struct x86_cpu *c)
{
	if (c->cur) {
		c->stats.insns += c->cur->idx;
		if (!c->exc.soft)
			c->rip = insn_rip(c, c->cur);
		c->cur = NULL;
	}
	c->blocks->link = NULL;
	rmw_leave(c);
}

/* alone: by x86_retry_alone(). */
static void land(struct x86_cpu *c, bool alone)
{
	time_is(c, X86_TIME_INTERPRETER);
	x86_abandon(c);
	c->in_block = false;
	if (unlikely(alone)) {
		c->single = true;
		return;
	}
	c->stats.insns += c->counts;
	x86_deliver_exception(c);
}

enum x86_exit x86_run(struct x86_cpu *c)
{
	enum x86_exit why;

	if (!c->blocks && !(c->blocks = block_cache_new()))
		return X86_EXIT_SHUTDOWN;
	if (c->jit || c->counts)
		atomic_fetch_or(&c->request, REQ_JIT);
	x86_enter_guest(c);
	time_is(c, X86_TIME_INTERPRETER);
	switch (setjmp(c->jmp)) { /* may come here again */
	case 0: break;
	case JMP_ALONE: land(c, true); break;
	default: land(c, false); break;
	}
	why = c->counts ? loop(c, true) : loop(c, false);
	x86_fp_sync(c);
	time_is(c, X86_TIME_OUTSIDE);
	x86_leave_guest(c);
	return why;
}

/* ---- handlers of what cannot be executed -------------------------------------------------------------- */

void op_ud(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x86_raise(c, EX_UD);
}

void op_gp(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x86_raise_code(c, EX_GP, 0);
}
