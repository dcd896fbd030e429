/*
 * facts/facts_lscpu.c - what people ask lscpu for: numbers of the processor, caches, memory nodes, and each flaw
 * with what the kernel does about it (Documentation/ABI/testing/sysfs-devices-system-cpu). Any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

#define CPUS  "sys/devices/system/cpu/"
#define FLAWS CPUS "vulnerabilities/"
#define NODES "sys/devices/system/node/"

static unsigned count_of(const struct facts *f, const char *path)
{
	char line[512];

	return parse_cpu_list(snap_line(f->snap, path, line, sizeof(line)));
}

static bool info_key(const struct facts *f, const char *key, char *buf, size_t len)
{
	return parse_key(snap_text(f->snap, "proc/cpuinfo"), key, buf, len);
}

/* ---- the processor ---- */

static void read_modes(const struct facts *f, struct fact_value *v)
{
	if (f->x86)
		fact_set(v, FACT_INFO, "32-bit%s", f->long_mode ? ", 64-bit" : "");
	else
		fact_set(v, FACT_UNKNOWN, "not told");
}

static void read_order(const struct facts *f, struct fact_value *v)
{
	static const char *const big[] = {"s390", "s390x", "ppc",     "ppc64",
					  "mips", "sparc", "sparc64", "aarch64_be"};

	for (size_t i = 0; i < ARRAY_LEN(big); i++)
		if (!strcmp(f->machine, big[i])) {
			fact_set(v, FACT_INFO, "big endian");
			return;
		}
	fact_set(v, f->machine[0] ? FACT_INFO : FACT_UNKNOWN, "%s",
		 f->machine[0] ? "little endian" : "not told");
}

static void read_list(const struct facts *f, struct fact_value *v)
{
	char on[100], off[50];

	snap_line(f->snap, CPUS "online", on, sizeof(on));
	snap_line(f->snap, CPUS "offline", off, sizeof(off));
	if (!on[0])
		fact_set(v, FACT_UNKNOWN, "not told");
	else
		fact_set(v, FACT_INFO, "%s%s%s", on, off[0] ? ", off: " : "", off);
}

static void read_family(const struct facts *f, struct fact_value *v)
{
	char family[16], model[16], step[16], micro[24];

	if (!info_key(f, "cpu family", family, sizeof(family))) {
		fact_set(v, FACT_UNKNOWN, "not told");
		return;
	}
	info_key(f, "model\t", model, sizeof(model));
	info_key(f, "stepping", step, sizeof(step));
	info_key(f, "microcode", micro, sizeof(micro));
	fact_set(v, FACT_INFO, "family %s%s%s%s%s%s%s", family,
		 model[0] ? ", model " : "", model, step[0] ? ", stepping " : "", step,
		 micro[0] ? ", microcode " : "", micro);
}

/* Threads of a core, cores of a socket: processor 0's, as far as sysfs or cpuinfo tells. */
static void read_topology(const struct facts *f, struct fact_value *v)
{
	unsigned online = count_of(f, CPUS "online");
	unsigned threads = count_of(f, CPUS "cpu0/topology/thread_siblings_list");
	unsigned package = count_of(f, CPUS "cpu0/topology/core_siblings_list");
	char cores[16], siblings[16];
	unsigned n_cores = 0;

	if (info_key(f, "cpu cores", cores, sizeof(cores)))
		n_cores = (unsigned)min_u64(strtoul(cores, NULL, 10), 4096);
	if (!package && info_key(f, "siblings", siblings, sizeof(siblings)))
		package = (unsigned)min_u64(strtoul(siblings, NULL, 10), 4096);
	if (!threads && n_cores && package >= n_cores)
		threads = package / n_cores;
	if (!n_cores && threads && package)
		n_cores = package / threads;
	if (!threads || !package || !n_cores || !online) {
		fact_set(v, FACT_UNKNOWN, "not told");
		return;
	}
	fact_set(v, FACT_INFO,
		 "%u thread%s per core, %u core%s per socket, %u socket%s", threads,
		 threads > 1 ? "s" : "", n_cores, n_cores > 1 ? "s" : "",
		 (online + package - 1) / package, online > package ? "s" : "");
}

static void read_bogomips(const struct facts *f, struct fact_value *v)
{
	char text[32];

	if (info_key(f, "bogomips", text, sizeof(text)) ||
	    info_key(f, "BogoMIPS", text, sizeof(text)))
		fact_set(v, FACT_INFO, "%s", text);
	else
		fact_set(v, FACT_UNKNOWN, "not told");
}

static void read_flags(const struct facts *f, struct fact_value *v)
{
	unsigned n = 0;
	char name[32];
	size_t pos = 0;

	while (cpu_next_flag(f, &pos, name, sizeof(name)))
		n++;
	if (n)
		fact_set(v, FACT_INFO, "%u (--json lists them)", n);
	else
		fact_set(v, FACT_UNKNOWN, "not told");
}

/* `arg`: level and first letter of the type, "1D". */
static void read_cache(const struct facts *f, const char *arg, struct fact_value *v)
{
	static const char dir[] = CPUS "cpu0/cache/";
	char name[32], path[120], level[8], type[16], size[16];
	unsigned online = count_of(f, CPUS "online");
	size_t pos = 0;

	while (snap_next(f->snap, dir, &pos, name, sizeof(name))) {
		unsigned shared;

		snprintf(path, sizeof(path), "%s%s/level", dir, name);
		snap_line(f->snap, path, level, sizeof(level));
		snprintf(path, sizeof(path), "%s%s/type", dir, name);
		snap_line(f->snap, path, type, sizeof(type));
		if (level[0] != arg[0] || level[1] || type[0] != arg[1])
			continue;
		snprintf(path, sizeof(path), "%s%s/size", dir, name);
		snap_line(f->snap, path, size, sizeof(size));
		snprintf(path, sizeof(path), "%s%s/shared_cpu_list", dir, name);
		shared = count_of(f, path);
		if (shared && online >= shared)
			fact_set(v, FACT_INFO, "%s, %u of them", size, online / shared);
		else
			fact_set(v, FACT_INFO, "%s", size[0] ? size : "not told");
		return;
	}
	fact_set(v, FACT_UNKNOWN, "not told");
}

static void read_nodes(const struct facts *f, struct fact_value *v)
{
	char name[32], path[120], list[60], text[200] = "";
	size_t pos = 0, at = 0;

	while (snap_next(f->snap, NODES, &pos, name, sizeof(name)) && at < 120) {
		snprintf(path, sizeof(path), NODES "%s/cpulist", name);
		snap_line(f->snap, path, list, sizeof(list));
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s: %s",
				       at ? "; " : "", name, list[0] ? list : "none");
	}
	fact_set(v, at ? FACT_INFO : FACT_UNKNOWN, "%s", at ? text : "not told");
}

/* ---- flaws ---- */

static enum fact_state flaw_state(const char *line)
{
	static const struct {
		const char *begin;
		enum fact_state state;
	} known[] = {
		{"Not affected", FACT_OK},      {"Mitigation", FACT_OK},
		{"KVM: Mitigation", FACT_OK},   {"Vulnerable", FACT_WARN},
		{"KVM: Vulnerable", FACT_WARN},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (!strncmp(line, known[i].begin, strlen(known[i].begin)))
			return known[i].state;
	return FACT_INFO;
}

static void read_flaw(const struct facts *f, const char *arg, struct fact_value *v)
{
	char path[100], line[200];

	snprintf(path, sizeof(path), FLAWS "%s", arg);
	if (!snap_text(f->snap, path)) {
		fact_set(v, FACT_UNKNOWN, "this kernel does not tell");
		return;
	}
	snap_line(f->snap, path, line, sizeof(line));
	fact_set(v, line[0] ? flaw_state(line) : FACT_UNKNOWN, "%s",
		 line[0] ? line : "not told");
}

/* Flaws that newer kernels tell of and the table does not have. */
static void read_more_flaws(const struct facts *f, struct fact_value *v)
{
	char name[40], path[120], line[80], text[200] = "";
	size_t pos = 0, at = 0;
	bool open = false;

	while (snap_next(f->snap, FLAWS, &pos, name, sizeof(name)) && at < 90) {
		bool known = false;

		for (const struct fact *r = facts_flaws; r->id && !known; r++)
			known = r->arg && !strcmp(r->arg, name);
		if (known)
			continue;
		snprintf(path, sizeof(path), FLAWS "%s", name);
		snap_line(f->snap, path, line, sizeof(line));
		open |= flaw_state(line) == FACT_WARN;
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s: %.30s",
				       at ? "; " : "", name, line);
	}
	fact_set(v,
		 open ? FACT_WARN
		 : at ? FACT_INFO
		      : FACT_OK,
		 "%s", at ? text : "none");
}

/* clang-format off */
const struct fact facts_lscpu[] = {
	FACT("cpu-modes", "Processor", "operation modes", read_modes, "What the processor runs: 32-bit and 64-bit code."),
	FACT("byte-order", "Processor", "byte order", read_order, "PCs are little endian."),
	FACT("cpu-list", "Processor", "online list", read_list, "Processors by number, and those that are switched off."),
	FACT("cpu-family", "Processor", "family and model", read_family, "By these numbers manuals, errata and microcode name a processor."),
	FACT("topology", "Processor", "topology", read_topology, "Threads per core, cores per socket, sockets: of processor 0, where they differ."),
	FACT("bogomips", "Processor", "BogoMIPS", read_bogomips, "The kernel's delay loop, twice the clock rate as a rule; no measure of speed."),
	FACT("cpu-flags", "Processor", "flags", read_flags, "The flags line of /proc/cpuinfo: what the kernel uses of the processor."),
	FACT_ARG("cache-l1d", "Processor", "L1 data cache", "First level, data; of processor 0.", read_cache, "1D"),
	FACT_ARG("cache-l1i", "Processor", "L1 code cache", "First level, instructions; of processor 0.", read_cache, "1I"),
	FACT_ARG("cache-l2", "Processor", "L2 cache", "Second level; of processor 0.", read_cache, "2U"),
	FACT_ARG("cache-l3", "Processor", "L3 cache", "Third level; of processor 0.", read_cache, "3U"),
	FACT("numa", "Processor", "memory nodes", read_nodes, "Which processors are near which part of the memory: a guest is best kept within one node."),
	{0},
};

#define FLAW(id, name, text) FACT_ARG("flaw-" id, "Processor flaws", id, text, read_flaw, name)

const struct fact facts_flaws[] = {
	FLAW("gds", "gather_data_sampling", "Gather data sampling (Downfall): a vector load may show another's data."),
	FLAW("ghostwrite", "ghostwrite", "GhostWrite: RISC-V only."),
	FLAW("its", "indirect_target_selection", "Indirect target selection: branches in the lower half of a cache line are predicted wrongly."),
	FLAW("itlb-multihit", "itlb_multihit", "A guest may stop the processor by changing page sizes; KVM splits huge pages against it."),
	FLAW("l1tf", "l1tf", "L1 terminal fault: a guest may read what is in the first-level cache; KVM flushes it when it enters a guest."),
	FLAW("mds", "mds", "Microarchitectural data sampling: buffers are cleared when a guest is entered."),
	FLAW("meltdown", "meltdown", "Meltdown: page-table isolation makes each system call and exit dearer."),
	FLAW("mmio-stale-data", "mmio_stale_data", "Stale data from device registers, for guests that have a device of their own."),
	FLAW("old-microcode", "old_microcode", "The microcode is older than the newest that the kernel knows of."),
	FLAW("rfds", "reg_file_data_sampling", "Register file data sampling (Atom): buffers are cleared when a guest is entered."),
	FLAW("retbleed", "retbleed", "RETBleed: returns are predicted as branches are."),
	FLAW("srso", "spec_rstack_overflow", "Speculative return stack overflow (AMD, Inception): 'Safe RET', or a barrier at each exit."),
	FLAW("ssb", "spec_store_bypass", "Speculative store bypass: a load may see what was there before a store."),
	FLAW("spectre-v1", "spectre_v1", "Spectre variant 1: bounds checks are run past."),
	FLAW("spectre-v2", "spectre_v2", "Spectre variant 2: a guest may train the host's branch predictor."),
	FLAW("srbds", "srbds", "Special register buffer data sampling: RDRAND may leak and is made slow."),
	FLAW("tsa", "tsa", "Transient scheduler attacks (AMD): buffers are cleared at guest entry."),
	FLAW("taa", "tsx_async_abort", "TSX asynchronous abort: a transaction that fails may show another's data."),
	FLAW("vmscape", "vmscape", "VMScape: a guest may train the predictor for the virtual machine monitor; a barrier follows each exit to it."),
	FACT("flaw-others", "Processor flaws", "others", read_more_flaws, "Flaws that this kernel tells of and vm-check has no line for."),
	{0},
};
/* clang-format on */
