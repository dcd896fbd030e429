/*
 * x86/count.c - running for an exact number of instructions, so that a run can be repeated.
 *
 * c->stats.insns counts up to 0, where the run ends; c->count_base + c->stats.insns is the number of
 * instructions executed. It is right where a block begins; within it, the running instruction's place in the
 * block is to be added. Translations add what they executed on each way out, and are entered only if the whole block
 * fits in (jit/trans_branch.c); a last part of a block is interpreted one by one. So the count does not depend on
 * how code is cut into blocks, nor on who executes it.
 *
 * What a callback brings about has to be seen behind the instruction that called. The interpreter looks at
 * requests only between blocks; so an instruction of a block that is about to call is left, and
 * executed alone.
 */
#include "x86/sys.h"

int x86_system_count(struct x86_system *sys)
{
	if (sys->n_cpus)
		return -EBUSY;
	if (sys->lockstep)
		return -EINVAL;
	sys->counts = true;
	return 0;
}

uint64_t x86_count(const struct x86_cpu *c)
{
	return c->count_base + c->stats.insns + (c->cur ? c->cur->idx : 0);
}

enum x86_exit x86_run_for(struct x86_cpu *c, uint64_t n)
{
	uint64_t count = c->count_base + c->stats.insns;

	n = min_u64(n, INT64_MAX / 2);
	c->count_base = count + n;
	c->stats.insns = 0 - n;
	return x86_run(c);
}

void x86_retry_alone(struct x86_cpu *c)
{
	longjmp(c->jmp, JMP_ALONE);
}
