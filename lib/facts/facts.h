/*
 * facts/facts.h - what a snapshot says: facts, where it runs, what is wrong and how to mend it, the verdict.
 * Everything is computed from the snapshot alone. Any thread, one at a time.
 */
#ifndef FACTS_FACTS_H
#define FACTS_FACTS_H

#include "facts/snap.h"

#define FACTS_MAX      128
#define FACTS_PROBLEMS 40

enum fact_state {
	FACT_INFO,    /* neither good nor bad */
	FACT_OK,      /* there, works */
	FACT_WARN,    /* costs something */
	FACT_MISSING, /* not there */
	FACT_UNKNOWN, /* could not be read */
};

struct fact_value {
	enum fact_state state;
	char text[200];
};

struct facts;

struct fact {
	const char *id, *group, *title;
	void (*read)(const struct facts *f, struct fact_value *v);
	const char *explain;
	/* In place of `read`, for rows that differ in one word. */
	void (*read_arg)(const struct facts *f, const char *arg, struct fact_value *v);
	const char *arg;
};

/* Where this computer lives: rows of the table in env.c, or NULL. */
struct env {
	const char *id, *title;
	const char *nested; /* VM: the outer host's step; @: KVM's module there */
	const char *device; /* container: how it passes /dev/kvm on */
};

enum severity {
	SEV_INFO, /* a hint */
	SEV_WARN, /* costs speed or a feature */
	SEV_STOP, /* no full speed before it is mended */
};

struct problem {
	const char *id;
	enum severity severity;
	char text[240]; /* what is wrong */
	char fix[600];  /* what to do, for people; lines separated by \n */
	char commands
		[400]; /* for a shell, as root; lines; "" when no command on this computer can do it */
};

/* Exit statuses of vm-check. */
enum verdict {
	VERDICT_FULL = 0,
	VERDICT_UNKNOWN = 1,
	VERDICT_PROBLEMS = 3,  /* this computer could, something here is in the way */
	VERDICT_EMULATION = 4, /* processor, firmware or outer host must change first */
};

enum vendor { VENDOR_OTHER, VENDOR_INTEL, VENDOR_AMD };

enum tri { NO, YES, MAYBE };

/* What "vm-check/proof" says (the tool writes it from struct kvm_probe_result). */
struct proof {
	bool there;
	char verdict
		[16]; /* works missing forbidden unfit broken slow busy hangs nonsense */
	char error[24];
	char reason[200];
	int api;
	bool ok[4]; /* real, protected, pae, long */
	unsigned exits[4];
	double exit_ns[4];
	double guest_mips, native_mips;
};

struct facts {
	const struct snap *snap; /* borrowed */
	/* What several facts need, read once. */
	char machine[16];
	bool x86, long_mode, kernel64, root;
	enum vendor vendor;
	enum tri virt_raw;     /* CPUID instruction: VMX or SVM is in the processor */
	bool virt_shown;       /* /proc/cpuinfo has the flag */
	enum tri firmware_off; /* the firmware disabled it */
	unsigned
		cpus_off; /* processors on which it is disabled, of those that could be read */
	bool hypervisor; /* CPUID: this is a virtual machine (or a Xen domain) */
	bool xen_dom0, hyperv_root;
	const struct env *vm, *container, *wsl;
	const char *module; /* "kvm_intel", "kvm_amd": what the processor needs */
	char holder
		[32]; /* module that runs KVM here: "kvm_intel", "kvm_pvm"; "" none */
	bool kvm_loaded;
	const char *distro; /* "debian", "fedora", "arch", "suse", "alpine", "other" */
	struct proof proof;

	unsigned n_values;
	struct fact_value values[FACTS_MAX];
	unsigned n_problems;
	struct problem problems[FACTS_PROBLEMS];
	enum verdict verdict;
	char answer[8];    /* "yes", "no", "only" */
	char because[320]; /* one sentence */
	char advice[200];  /* which engine vm-run takes */
};

/* The table; returns NULL past its end. */
const struct fact *fact_at(unsigned i);

/* The next of the processor's flags from position *pos (begin with 0) on, in buf. False at the end. */
bool cpu_next_flag(const struct facts *f, size_t *pos, char *buf, size_t len);

/* The row of this id, or -1. */
int fact_find(const char *id);

/* Reads all of it. The snapshot must outlive `f`. */
void facts_judge(struct facts *f, const struct snap *s);

/* What "--explain" tells of a problem's id; NULL: no such problem. */
const char *problem_explain(const char *id);
const char *problem_id(unsigned i);

/* "ok", "warning", "missing", "info", "unknown". */
const char *fact_state_name(enum fact_state s);

#endif
