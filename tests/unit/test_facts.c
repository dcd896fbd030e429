/* tests/unit/test_facts.c - lib/facts: the forms of /proc and /sys, places, facts, problems, verdicts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "facts/collect.h"
#include "facts/facts.h"
#include "facts/facts_int.h"
#include "facts/guard.h"

#define INTEL                                                                      \
	"=== proc/cpuinfo\nprocessor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: " \
	"158\n"                                                                    \
	"model name\t: Intel(R) Core(TM) i7-8700 CPU\nflags\t\t: fpu lm vmx ept "  \
	"vpid\n"                                                                   \
	"vmx flags\t: vnmi unrestricted_guest\n"
#define PC "=== vm-check/user\nmachine x86_64\nroot 0\ngid 1000\n"
#define KVM                                                              \
	"=== dev/kvm\nc 0660 0 104 10 232 ok\n=== sys/module/kvm/\n=== " \
	"sys/module/kvm_intel/\n"
#define WORKS                                                                          \
	"=== vm-check/proof\nverdict works\napi 12\nmode long ok 1100 40\nguest-mips " \
	"8000\nnative-mips 8100\n"

static struct snap snap;
static struct facts facts;

static void load(const char *text)
{
	struct err err = {0};

	snap_fini(&snap);
	if (snap_parse(&snap, text, strlen(text), &err))
		fail_msg("%s", err.msg);
	facts_judge(&facts, &snap);
}

static int unload(void **state)
{
	(void)state;
	snap_fini(&snap);
	return 0;
}

static const struct fact_value *value(const char *id)
{
	int i = fact_find(id);

	if (i < 0)
		fail_msg("no fact '%s'", id);
	return &facts.values[i];
}

static bool has_problem(const char *id)
{
	for (unsigned i = 0; i < facts.n_problems; i++)
		if (!strcmp(facts.problems[i].id, id))
			return true;
	return false;
}

/* ---- forms ---- */

static void test_key(void **state)
{
	static const char text[] =
		"model\t\t: 17\nmodel name\t: A  B \r\nempty:\nodd\x01key: a\x1b[2Jb\n";
	char buf[8];

	(void)state;
	assert_true(parse_key(text, "model name", buf, sizeof(buf)));
	assert_string_equal(buf, "A  B");
	assert_true(parse_key(text, "model", buf, sizeof(buf)));
	assert_string_equal(buf, "17");
	assert_false(parse_key(text, "mod", buf, sizeof(buf)));
	assert_string_equal(buf, "");
	assert_false(parse_key(NULL, "model", buf, sizeof(buf)));
	assert_true(parse_key("k: 0123456789\n", "k", buf, sizeof(buf)));
	assert_string_equal(buf, "0123456"); /* cut, ended */
	assert_true(parse_key("k: a\x1b"
			      "b\n",
			      "k", buf, sizeof(buf)));
	assert_string_equal(buf, "a?b");
}

static void test_words(void **state)
{
	(void)state;
	assert_true(parse_has_word("a bc d", "bc"));
	assert_false(parse_has_word("a bcd", "bc"));
	assert_false(parse_has_word(NULL, "bc"));
	assert_true(parse_has_word("x\ny bc\n", "bc"));
}

static void test_cpu_lists(void **state)
{
	static const struct {
		const char *list;
		unsigned n;
	} rows[] = {
		{"0", 1},
		{"0-3", 4},
		{"0-3,8", 5},
		{"0-1,4-7\n", 6},
		{"", 0},
		{"x", 0},
		{"3-1", 0},
		{"0-4294967295", 0},
		{"0-", 1},
		{"0,,2", 1},
		{"99999999999999999999", 0},
		{"0-1048575,0-1048575", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (parse_cpu_list(rows[i].list) != rows[i].n)
			fail_msg("'%s': %u", rows[i].list,
				 parse_cpu_list(rows[i].list));
}

static void test_registers(void **state)
{
	struct cpuid c;
	uint64_t v;

	(void)state;
	load("=== vm-check/cpuid\n00000007 1 1 2 3 4\nrubbish\n00000007 0 a b c d\n"
	     "=== vm-check/msr\n0 3a 5\n1 3a 1\n");
	assert_true(parse_cpuid(&snap, 7, 0, &c));
	assert_int_equal(c.a, 0xa);
	assert_int_equal(c.d, 0xd);
	assert_false(parse_cpuid(&snap, 8, 0, &c));
	assert_int_equal(c.a, 0);
	assert_true(parse_msr(&snap, 1, 0x3a, &v));
	assert_int_equal(v, 1);
	assert_false(parse_msr(&snap, 2, 0x3a, &v));
}

static void test_numbers(void **state)
{
	uint64_t v;

	(void)state;
	load("=== a\n42\n=== b\n-1\n=== c\n99999999999999999999\n=== d\n4x\n"
	     "=== proc/meminfo\nMemTotal:  2048 kB\nMemFree: 99999999999999999 kB\n");
	assert_true(parse_number(&snap, "a", &v));
	assert_int_equal(v, 42);
	assert_false(parse_number(&snap, "b", &v));
	assert_false(parse_number(&snap, "c", &v));
	assert_false(parse_number(&snap, "d", &v));
	assert_false(parse_number(&snap, "e", &v));
	assert_true(parse_meminfo(&snap, "MemTotal", &v));
	assert_int_equal(v, 2048 * 1024);
	assert_false(parse_meminfo(&snap, "MemFree", &v)); /* overflows */
}

static void test_nodes(void **state)
{
	struct node n;

	(void)state;
	load("=== dev/kvm\nc 0660 0 104 10 232 EACCES\n=== dev/x\nrubbish\n");
	assert_true(parse_node(&snap, "dev/kvm", &n));
	assert_int_equal(n.type, 'c');
	assert_int_equal(n.mode, 0660);
	assert_int_equal(n.gid, 104);
	assert_int_equal(n.minor, 232);
	assert_string_equal(n.access, "EACCES");
	assert_false(parse_node(&snap, "dev/x", &n));
}

static void test_params(void **state)
{
	(void)state;
	load("=== sys/module/kvm_intel/parameters/ept\nN\n=== "
	     "sys/module/kvm_intel/parameters/nested\n1\n");
	assert_int_equal(parse_param(&snap, "kvm_intel", "ept"), NO);
	assert_int_equal(parse_param(&snap, "kvm_intel", "nested"), YES);
	assert_int_equal(parse_param(&snap, "kvm_intel", "vpid"), MAYBE);
}

static void test_proof(void **state)
{
	struct proof p;

	(void)state;
	load("=== vm-check/proof\nverdict slow\nerror ENOTSUP\napi 12\nmode long ok "
	     "7500 38\nmode pae failed 0 0\n"
	     "mode x ok 1 1\nmode real ok -5 3\nguest-mips 1e999\nnative-mips nan\ncap "
	     "max-vcpus 288\ncap x -5\n");
	parse_proof(&snap, &p);
	assert_true(p.there && p.ok[3] && p.ok[0] && !p.ok[2] && !p.ok[1]);
	assert_int_equal(p.exits[3], 38);
	assert_true(p.exit_ns[0] == 0 && p.guest_mips == 0 && p.native_mips == 0);
	assert_int_equal(proof_cap(&facts, "max-vcpus"), 288);
	assert_int_equal(proof_cap(&facts, "x"), -1);
	assert_int_equal(proof_cap(&facts, "smm"), -1);
}

static void test_flag_list(void **state)
{
	char name[8];
	size_t pos = 0;

	(void)state;
	load("=== proc/cpuinfo\nflags\t: fpu  lm much_too_long_a_name\nvmx flags\t: "
	     "vnmi\n");
	assert_true(cpu_next_flag(&facts, &pos, name, sizeof(name)));
	assert_string_equal(name, "fpu");
	assert_true(cpu_next_flag(&facts, &pos, name, sizeof(name)));
	assert_string_equal(name, "lm");
	assert_true(cpu_next_flag(&facts, &pos, name, sizeof(name)));
	assert_string_equal(name, "much_to");
	assert_false(cpu_next_flag(&facts, &pos, name, sizeof(name)));
	assert_true(vmx_flag(&facts, "vnmi") && !cpu_flag(&facts, "vnmi"));
}

/* ---- the list of files ---- */

static void test_snap(void **state)
{
	struct err err = {0};
	struct snap s = {0};
	char name[16];
	size_t pos = 0;

	(void)state;
	load("=== sys/m/a/x\n1\n=== sys/m/a/y\n1\n=== sys/m/b/\n=== sys/mm/c\n=== e "
	     "!EACCES\n=== h hex\n06 0a\n");
	assert_int_equal(snap_count(&snap, "sys/m/"), 2);
	assert_true(snap_next(&snap, "sys/m/", &pos, name, sizeof(name)));
	assert_string_equal(name, "a");
	assert_non_null(snap_find(&snap, "sys/m/b"));
	assert_null(snap_text(&snap, "e"));
	assert_int_equal(snap_find(&snap, "e")->error, EACCES);
	assert_int_equal(snap_find(&snap, "h")->len, 2);
	assert_int_equal(snap_parse(&s, "=== ../x\n1\n", 11, &err), -EINVAL);
	snap_fini(&s);
	assert_int_equal(snap_parse(&s, "=== x hex\n0\n", 12, &err), -EINVAL);
	snap_fini(&s);
	assert_int_equal(snap_parse(&s, "nothing\n", 8, &err), -EINVAL);
	snap_fini(&s);
}

/* ---- places, facts, problems, verdicts ---- */

static void test_places(void **state)
{
	static const struct {
		const char *text, *vm, *container;
	} rows[] = {
		{"=== sys/class/dmi/id/product_name\nVirtualBox\n", "virtualbox", NULL},
		{"=== sys/class/dmi/id/sys_vendor\nAmazon EC2\n", "amazon", NULL},
		{"=== vm-check/cpuid\n40000000 0 40000010 61774d56 4d566572 65726177\n",
		 "vmware", NULL},
		{"=== .dockerenv\n", "vm", "docker"},
		{"=== proc/1/cgroup\n0::/kubepods/pod1\n", "vm", "kubernetes"},
		{"=== run/systemd/container\nlxc\n", "vm", "lxc"},
	};
	char text[400];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(text, sizeof(text),
			 "=== proc/cpuinfo\nvendor_id : AuthenticAMD\nflags : lm "
			 "hypervisor\n%s" PC,
			 rows[i].text);
		load(text);
		assert_non_null(facts.vm);
		assert_string_equal(facts.vm->id, rows[i].vm);
		if (rows[i].container)
			assert_string_equal(facts.container->id, rows[i].container);
		else
			assert_null(facts.container);
	}
	load(INTEL PC "=== sys/class/dmi/id/sys_vendor\nAmazon EC2\n");
	assert_null(facts.vm); /* metal of a cloud: no hypervisor flag */
}

static void test_flaws(void **state)
{
	(void)state;
	load(INTEL PC
	     "=== sys/devices/system/cpu/vulnerabilities/mds\nNot affected\n"
	     "=== sys/devices/system/cpu/vulnerabilities/l1tf\nMitigation: PTE "
	     "Inversion\n"
	     "=== sys/devices/system/cpu/vulnerabilities/tsa\nVulnerable\n"
	     "=== sys/devices/system/cpu/vulnerabilities/zz_new\nVulnerable\n");
	assert_int_equal(value("flaw-mds")->state, FACT_OK);
	assert_int_equal(value("flaw-l1tf")->state, FACT_OK);
	assert_int_equal(value("flaw-tsa")->state, FACT_WARN);
	assert_int_equal(value("flaw-srso")->state, FACT_UNKNOWN);
	assert_int_equal(value("flaw-others")->state, FACT_WARN);
	assert_non_null(strstr(value("flaw-others")->text, "zz_new"));
}

static void test_peers(void **state)
{
	(void)state;
	load(INTEL PC KVM WORKS); /* all agree */
	assert_int_equal(value("says-kvm-ok")->state, FACT_INFO);
	assert_string_equal(value("says-grep")->text, "finds vmx");
	load(INTEL PC KVM "=== vm-check/proof\nverdict forbidden\nerror EACCES\n");
	assert_int_equal(value("says-kvm-ok")->state,
			 FACT_WARN); /* "can be used": no */
	assert_non_null(strstr(value("says-kvm-ok")->text, "wrong"));
	load("=== proc/cpuinfo\nvendor_id : GenuineIntel\nflags : lm\n=== dev/kvm\nc "
	     "0666 0 0 10 232 ok\n" PC WORKS);
	assert_int_equal(value("says-kvm-ok")->state,
			 FACT_WARN); /* "can NOT be used": it is */
	assert_non_null(strstr(value("says-virt-host-validate")->text, "FAIL: wrong"));
}

static void test_verdicts(void **state)
{
	static const struct {
		const char *text;
		enum verdict verdict;
		const char *problem;
	} rows[] = {
		{INTEL PC KVM WORKS, VERDICT_FULL, NULL},
		{INTEL PC KVM, VERDICT_UNKNOWN, NULL},
		{INTEL PC KVM "=== vm-check/proof\nverdict forbidden\nerror EACCES\n",
		 VERDICT_PROBLEMS, "no-permission"},
		{INTEL PC KVM "=== vm-check/proof\nverdict busy\n", VERDICT_PROBLEMS,
		 "busy"},
		{INTEL PC KVM "=== vm-check/proof\nverdict hangs\nreason x\n",
		 VERDICT_UNKNOWN, "no-answer"},
		{INTEL PC KVM
		 "=== vm-check/proof\nverdict slow\nguest-mips 1\nnative-mips 4000\n",
		 VERDICT_PROBLEMS, "interpreted"},
		{INTEL PC "=== vm-check/proof\nverdict missing\n", VERDICT_PROBLEMS,
		 "no-module"},
		{INTEL PC
		 "=== vm-check/msr\n0 3a 1\n=== vm-check/proof\nverdict missing\n",
		 VERDICT_EMULATION, "firmware-off"},
		{"=== vm-check/user\nmachine aarch64\nroot 0\n", VERDICT_EMULATION,
		 "not-x86"},
		{"=== proc/cpuinfo\nvendor_id : GenuineIntel\nflags : fpu\n=== "
		 "vm-check/user\nmachine i686\n",
		 VERDICT_EMULATION, "32-bit-processor"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		load(rows[i].text);
		if (facts.verdict != rows[i].verdict)
			fail_msg("row %zu: verdict %u: %s", i, facts.verdict,
				 facts.because);
		if (rows[i].problem && !has_problem(rows[i].problem))
			fail_msg("row %zu: no problem '%s'", i, rows[i].problem);
	}
}

static void test_tables(void **state)
{
	const struct fact *a, *b;
	const char *id;
	unsigned n = 0;

	(void)state;
	for (; (a = fact_at(n)); n++) {
		assert_true(a->id[0] && a->group[0] && a->title[0] && a->explain[0]);
		assert_true(!a->read != !a->read_arg);
		for (unsigned k = 0; k < n; k++) {
			b = fact_at(k);
			assert_string_not_equal(a->id, b->id);
		}
	}
	assert_in_range(n, 90, FACTS_MAX);
	for (unsigned i = 0; (id = problem_id(i)); i++)
		assert_non_null(problem_explain(id));
	assert_true(fact_find("warp-drive") < 0);
	assert_null(problem_explain("warp-drive"));
}

/* ---- the child that reads ---- */

static void test_guard(void **state)
{
	char path[] = "/tmp/test_facts.XXXXXX", none[] = "/nowhere/at/all";
	struct err err = {0};
	struct snap s = {0};
	struct guard g;
	int fd = mkstemp(path);
	static const char text[] = INTEL PC "=== x !EIO\n";

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	assert_int_equal(guard_start(&g, path, &err), 0);
	assert_int_equal(guard_finish(&g, &s, 5000, &err), 0);
	assert_int_equal(s.n, 3);
	assert_int_equal(snap_find(&s, "x")->error, EIO);
	snap_fini(&s);
	unlink(path);
	assert_int_equal(guard_start(&g, none, &err), 0);
	assert_int_equal(guard_finish(&g, &s, 5000, &err), -ENOENT);
	assert_non_null(strstr(err.msg, none));
	assert_int_equal(guard_start(&g, NULL, &err), 0); /* no time at all */
	assert_int_equal(guard_finish(&g, &s, 0, &err), -ETIMEDOUT);
	snap_fini(&s);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key),       cmocka_unit_test(test_words),
		cmocka_unit_test(test_cpu_lists), cmocka_unit_test(test_registers),
		cmocka_unit_test(test_numbers),   cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_params),    cmocka_unit_test(test_proof),
		cmocka_unit_test(test_flag_list), cmocka_unit_test(test_snap),
		cmocka_unit_test(test_places),    cmocka_unit_test(test_flaws),
		cmocka_unit_test(test_peers),     cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_tables),    cmocka_unit_test(test_guard),
	};

	return cmocka_run_group_tests(tests, NULL, unload);
}
