/*
 * emu/emu_figures.c - the profile of an emulated processor for vm/cpu.h: rows are struct x86_stats' members
 * with names. Any thread.
 */
#include "emu/emu_int.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "base/bits.h"

enum need { ALWAYS, TRANSLATES, LOCKSTEP, PROFILE, PROFILE_TRANSLATES };

struct row {
	const char *key, *text;
	uint16_t at; /* in struct x86_stats */
	uint8_t unit, need;
};

#define AT(m)   (uint16_t) offsetof(struct x86_stats, m)
#define TIME(t) AT(ticks[X86_TIME_##t])

/* clang-format off */
static const struct row rows[] = {
	{"time-translated", "time in translated code", TIME(TRANSLATED), FIGURE_NS, PROFILE_TRANSLATES},
	{"time-helpers", "  interpreting for it", TIME(HELPERS), FIGURE_NS, PROFILE_TRANSLATES},
	{"time-translator", "  translating", TIME(TRANSLATOR), FIGURE_NS, PROFILE_TRANSLATES},
	{"time-interpreter", "  in the interpreter, dispatcher", TIME(INTERPRETER), FIGURE_NS, PROFILE},
	{"time-devices", "  in devices", TIME(DEVICES), FIGURE_NS, PROFILE},
	{"time-idle", "  idle", TIME(OUTSIDE), FIGURE_NS, PROFILE},
	{"instructions-interpreted", "instructions interpreted", AT(insns), FIGURE_COUNT, ALWAYS},
	{"instructions-helped", "  of them for translated code", AT(single), FIGURE_COUNT, TRANSLATES},
	{"blocks-decoded", "blocks decoded", AT(blocks), FIGURE_COUNT, ALWAYS},
	{"blocks-translated", "blocks translated", AT(translated), FIGURE_COUNT, TRANSLATES},
	{"code-bytes", "translated code now", AT(code_bytes), FIGURE_BYTES, TRANSLATES},
	{"evictions", "code cache full", AT(forgotten), FIGURE_COUNT, TRANSLATES},
	{"eviction-longest", "  longest time to empty it", AT(forget_ticks), FIGURE_MAX_NS, ALWAYS},
	{"pages-dropped", "pages of code written", AT(dropped), FIGURE_COUNT, TRANSLATES},
	{"entries", "translated code entered", AT(entered), FIGURE_COUNT, TRANSLATES},
	{"chain-misses", "  left by an unlinked jump", AT(unlinked), FIGURE_COUNT, TRANSLATES},
	{"blocks-compared", "blocks compared in lockstep", AT(compared), FIGURE_COUNT, LOCKSTEP},
	{"blocks-unrepeatable", "  that cannot be repeated", AT(unique), FIGURE_COUNT, LOCKSTEP},
	{"tlb-misses", "TLB misses", AT(tlb_misses), FIGURE_COUNT, ALWAYS},
	{"tlb-misses-user", "  user", AT(tlb_misses_of[0]), FIGURE_COUNT, ALWAYS},
	{"tlb-misses-kernel", "  kernel", AT(tlb_misses_of[1]), FIGURE_COUNT, ALWAYS},
	{"tlb-misses-kernel-ac", "  kernel at user memory", AT(tlb_misses_of[2]), FIGURE_COUNT, ALWAYS},
	{"tlb-misses-user-ac", "  user, alignment checked", AT(tlb_misses_of[3]), FIGURE_COUNT, ALWAYS},
	{"exceptions", "exceptions", AT(exceptions), FIGURE_COUNT, ALWAYS},
	{"interrupts", "interrupts", AT(irqs), FIGURE_COUNT, ALWAYS},
	{"exits-mmio", "device memory accesses", AT(mmio), FIGURE_COUNT, ALWAYS},
	{"exits-pio", "port accesses", AT(pio), FIGURE_COUNT, ALWAYS},
};

static const struct {
	const char *key, *text;
} exits[EMU_EXITS] = {
	[X86_EXIT_KICK] = {"exits-kick", "exits: kicked"},
	[X86_EXIT_HALT] = {"exits-halt", "  halted"},
	[X86_EXIT_SHUTDOWN] = {"exits-shutdown", "  triple faults"},
	[X86_EXIT_INIT] = {"exits-init", "  waiting to be started"},
	[X86_EXIT_COUNT] = {"exits-count", "  at the end of their turn"},
	[X86_EXIT_DIFFERENCE] = {"exits-difference", "  differences in lockstep"},
};
/* clang-format on */

static_assert(ARRAY_LEN(rows) + EMU_EXITS <= FIGURES_MAX, "all fit");
static_assert(X86_TLBS == 4, "a row for each");

static bool has(const struct engine_env *env, uint8_t need)
{
	bool translate = env->translate, lockstep = translate && env->lockstep;

	switch (need) {
	case TRANSLATES: return translate;
	case LOCKSTEP: return lockstep;
	case PROFILE: return env->profile;
	case PROFILE_TRANSLATES: return env->profile && translate;
	default: return true;
	}
}

static uint64_t ns(const struct emu *e, uint64_t ticks)
{
	return (uint64_t)((unsigned __int128)ticks * 1000000 / e->tsc_khz);
}

unsigned emu_figures(struct engine *en, unsigned index, struct figure out[FIGURES_MAX])
{
	const struct emu *e = emu_of(en);
	const struct emu_cpu *c = &e->cpu[index];
	struct x86_stats st = {0};
	unsigned n = 0;

	if (c->x)
		x86_get_stats(c->x, &st);
	for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
		uint64_t v;

		if (!has(&e->env, rows[r].need))
			continue;
		memcpy(&v, (const char *)&st + rows[r].at, sizeof(v));
		if (rows[r].unit == FIGURE_NS || rows[r].unit == FIGURE_MAX_NS)
			v = ns(e, v);
		out[n++] = (struct figure){rows[r].key, rows[r].text,
					   (enum figure_unit)rows[r].unit, v};
	}
	for (unsigned x = 0; x < EMU_EXITS; x++)
		out[n++] = (struct figure){exits[x].key, exits[x].text, FIGURE_COUNT,
					   c->exits[x]};
	return n;
}
