/*
 * x86fuzz/main.c - compares lib/x86 with this computer's processor on random instructions.
 *
 * See x86fuzz/fuzz.h for how. Ends with "N forms, M runs, K differences"; exit status 0 when K is 0,
 * 1 when it is not, 2 on wrong usage.
 */
#include "fuzz.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct totals {
	uint64_t runs, differences;
	unsigned reports;
	unsigned forms; /* forms that did something */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: x86fuzz [options]\n"
		"  --seconds N    run for N seconds (10)\n"
		"  --runs N       or for N cases\n"
		"  --seed N       start of the random numbers (the time)\n"
		"  --form NAME    only forms whose name contains NAME: "
		"64.vex.66.l1.0f38.98\n"
		"  --reports N    print at most N differences, one a form (1)\n"
		"  --all          do not prefer forms that are defined\n"
		"  --translate    compare the translator, not the interpreter\n"
		"  --lockstep     ... which compares itself with the interpreter, too\n"
		"  --blocks       blocks of instructions, not single ones\n"
		"  --kernel       blocks at CPL 0, only --lockstep\n"
		"  --check        with --blocks --translate: look through the host "
		"code\n"
		"  --hostile      guests that try to break out, with --translate or "
		"not\n"
		"  --list         list the forms, with an example each, and exit\n"
		"  --excluded     list what is not compared and why, and exit\n");
}

static bool parse(int argc, char **argv, struct fz_options *o)
{
	static const struct option opts[] = {
		{"seconds", 1, NULL, 's'},   {"runs", 1, NULL, 'r'},
		{"seed", 1, NULL, 'S'},      {"form", 1, NULL, 'f'},
		{"reports", 1, NULL, 'R'},   {"list", 0, NULL, 'l'},
		{"excluded", 0, NULL, 'x'},  {"all", 0, NULL, 'a'},
		{"translate", 0, NULL, 't'}, {"lockstep", 0, NULL, 'L'},
		{"blocks", 0, NULL, 'b'},    {"kernel", 0, NULL, 'k'},
		{"check", 0, NULL, 'c'},     {"hostile", 0, NULL, 'H'},
		{"help", 0, NULL, 'h'},      {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case 's': o->seconds = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'r': o->runs = strtoull(optarg, NULL, 0); break;
		case 'S': o->seed = strtoull(optarg, NULL, 0); break;
		case 'f': o->form = optarg; break;
		case 'R': o->max_reports = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'l': o->list = true; break;
		case 'x': o->excluded = true; break;
		case 'a': o->all = true; break;
		case 't': o->translate = true; break;
		case 'L': o->lockstep = o->translate = true; break;
		case 'b': o->blocks = true; break;
		case 'c': o->check = true; break;
		case 'H': o->hostile = true; break;
		case 'k':
			fz_kernel = o->kernel = o->lockstep = o->translate = true;
			break;
		case 'h': usage(stdout); exit(0);
		default: return false;
		}
	}
	return optind == argc;
}

/* The forms that --form asks for, in front; returns how many. */
static unsigned select_forms(struct fz_form *f, unsigned n, const char *name)
{
	unsigned m = 0;
	char buf[64];

	for (unsigned k = 0; k < n; k++) {
		fz_form_name(&f[k], buf, sizeof(buf));
		if (!name || strstr(buf, name))
			f[m++] = f[k];
	}
	return m;
}

static void list_forms(struct fz_form *f, unsigned n)
{
	static struct fz_case k;
	char name[64], text[128];

	for (unsigned x = 0; x < n; x++) {
		unsigned tries = 0;

		while (!fz_make_case(&f[x], &k) && ++tries < 32)
			continue;
		fz_form_name(&f[x], name, sizeof(name));
		fz_disassemble(&k, text, sizeof(text));
		printf("%-24s %s\n", name, tries == 32 ? "(excluded)" : text);
	}
}

/* A form that keeps being undefined is tried less often. */
static struct fz_form *pick_form(struct fz_form *f, unsigned n, uint64_t run, bool all)
{
	for (;;) {
		struct fz_form *p = run < n ? &f[run] : &f[fz_below(n)];

		if (all || p->alive || p->dull < 4 || fz_one_in(64))
			return p;
	}
}

/* New contents around where the case's memory operand will be. */
static void seed_memory(const struct fz_case *k, bool everything)
{
	for (unsigned r = 1; r < FZ_N_MEM; r++) {
		unsigned len = fz_regions[r].pages * FZ_PAGE;
		uint64_t at = k->target - fz_regions[r].va;
		uint8_t *n = fz_native_mem(r), *e = fz_emu_mem(r);

		if (everything) {
			for (unsigned b = 0; b < len; b += 32)
				fz_vector(n + b, 32);
			memcpy(e, n, len);
			fz_emu_touched(r);
		} else if (k->target && at < len - (k->xsave ? 576 : 64)) {
			if (k->xsave)
				fz_xsave_area(n + at);
			else
				fz_vector(n + at, 32);
			memcpy(e + at, n + at, k->xsave ? 576 : 32);
			fz_emu_touched(r);
		}
	}
}

/* Places the code, in INT3s. */
static void place(const struct fz_case *k)
{
	uint64_t at = k->in.rip - fz_regions[0].va;
	unsigned room = fz_regions[0].pages * (unsigned)FZ_PAGE, len = k->len;
	uint8_t *n = fz_native_mem(0), *e = fz_emu_mem(0);
	static unsigned last_at, last_len;

	memset(n + last_at, 0xcc, last_len);
	memset(e + last_at, 0xcc, last_len);
	if (at + len > room)
		len = room - (unsigned)at;
	memcpy(n + at, k->code, len);
	memcpy(e + at, k->code, len);
	last_at = (unsigned)at;
	last_len = len;
	fz_emu_touched(0);
}

static void memory_agree(void)
{
	for (unsigned r = 0; r < FZ_N_MEM; r++) {
		memcpy(fz_emu_mem(r), fz_native_mem(r), fz_regions[r].pages * FZ_PAGE);
		fz_emu_touched(r);
	}
}

/* Memory as it was before a case. */
static uint8_t before[FZ_N_MEM][4 * FZ_PAGE];

static void memory_keep(void)
{
	for (unsigned r = 0; r < FZ_N_MEM; r++)
		memcpy(before[r], fz_native_mem(r), fz_regions[r].pages * FZ_PAGE);
}

static void memory_restore(void)
{
	for (unsigned r = 0; r < FZ_N_MEM; r++)
		memcpy(fz_native_mem(r), before[r], fz_regions[r].pages * FZ_PAGE);
	memory_agree();
}

/*
 * Is it still different when run again? A context switch between the loading of the state and the
 * instruction loses the x87 pointers on AMD's processors; that does not come twice.
 */
static bool differs_again(const struct fz_case *k, struct fz_result *native,
			  struct fz_result *emu)
{
	memory_restore();
	fz_native_run(k, native);
	fz_emu_run(k, emu);
	return !fz_equal(k, native, emu);
}

static void run_one(struct fz_form *f, const struct fz_options *o, struct totals *t)
{
	static struct fz_case k;
	static struct fz_result native, emu;

	if (!fz_make_case(f, &k))
		return;
	seed_memory(&k, t->runs % 256 == 0);
	place(&k);
	memory_keep();
	fz_native_run(&k, &native);
	t->runs++;
	if (native.vec == FZ_HANG) { /* a long loop: nothing to compare */
		memory_agree();
		return;
	}
	fz_emu_run(&k, &emu);
	if (native.vec != 6 || emu.vec != 6) {
		t->forms += !f->alive;
		f->alive = true;
	} else if (f->dull < 255) {
		f->dull++;
	}
	if (fz_equal(&k, &native, &emu) || !differs_again(&k, &native, &emu))
		return;
	t->differences++;
	if (!f->reported && t->reports < o->max_reports) {
		f->reported = true;
		t->reports++;
		fz_report(&k, &native, &emu);
	}
	memory_agree();
}

int main(int argc, char **argv)
{
	struct fz_options o = {
		.seconds = 10, .seed = (uint64_t)time(NULL), .max_reports = 1};
	struct totals t = {0};
	struct fz_form *forms;
	unsigned n;
	double end;

	if (!parse(argc, argv, &o)) {
		usage(stderr);
		return 2;
	}
	if (o.excluded) {
		fz_list_excluded();
		return 0;
	}
	fz_seed(o.seed);
	forms = fz_forms(&n);
	n = select_forms(forms, n, o.form);
	if (!n) {
		fprintf(stderr, "x86fuzz: no form has '%s' in its name\n", o.form);
		return 2;
	}
	if (o.list) {
		list_forms(forms, n);
		return 0;
	}
	if (o.hostile) {
		printf("seed %llu\n", (unsigned long long)o.seed);
		return fz_hostile(&o, forms, n);
	}
	fz_regions[0].write = o.blocks || o.kernel;
	if (!fz_native_init() || !fz_emu_init(o.translate, o.lockstep))
		return 1;
	printf("seed %llu\n", (unsigned long long)o.seed);
	memset(fz_native_mem(0), 0xcc, fz_regions[0].pages * FZ_PAGE);
	memory_agree();
	if (o.kernel)
		return fz_kernel_blocks(&o, forms, n);
	if (o.blocks)
		return fz_blocks(&o, forms, n);
	end = now() + o.seconds;
	for (uint64_t run = 0; o.runs ? t.runs < o.runs : now() < end; run++)
		run_one(pick_form(forms, n, run, o.all), &o, &t);
	printf("%u forms, %llu runs, %llu differences\n", t.forms,
	       (unsigned long long)t.runs, (unsigned long long)t.differences);
	return t.differences ? 1 : 0;
}
