/*
 * tests/unit/test_fw_tables.c - ACPI tables: structure and checksums here, the meaning by acpica's
 * own tools (disassembled and compiled again by iasl, methods run by acpiexec), and SMBIOS structures.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "fw/acpi.h"
#include "fw/aml.h"
#include "fw/smbios.h"

#define BASE 0xe0000

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* Everything there is. */
static void config_full(struct acpi_config *cfg)
{
	acpi_config_q35(cfg);
	cfg->n_cpus = 3;
	cfg->mmio[0] = (struct acpi_range){0x40000000, 0x70000000};
	cfg->mmio[1] = (struct acpi_range){0xc0000000, 0x3ec00000};
	cfg->mmio64 = (struct acpi_range){0x100000000, 0x8000000000};
	cfg->n_serial = 4;
	cfg->pvpanic_port = 0x505;
	cfg->debug_port = 0x402;
	cfg->vga = cfg->dma = cfg->speaker = true;
	cfg->smi_port = 0xb2;
	cfg->acpi_enable = 2;
	cfg->acpi_disable = 3;
}

/* The least a board can be. */
static void config_small(struct acpi_config *cfg)
{
	*cfg = (struct acpi_config){.n_cpus = 1, .sci = 9};
}

/* A machine for Windows XP. */
static void config_old(struct acpi_config *cfg)
{
	acpi_config_q35(cfg);
	cfg->acpi1 = true;
	cfg->pcie = false;
	cfg->ecam.len = 0;
	cfg->n_pirqs = 4;
	cfg->pirq_apic_links = true;
	cfg->pirq_dev = 1;
	for (unsigned i = 0; i < ACPI_PCI_SLOTS * 4; i++)
		cfg->pirq[i / 4][i % 4] = (uint8_t)((i / 4 + i % 4 + 3) % 4);
}

static const struct {
	const char *name;
	void (*make)(struct acpi_config *cfg);
	unsigned n_tables;
} configs[] = {
	{"full", config_full, 10},
	{"small", config_small, 7},
	{"old", config_old, 8},
};

static void build(unsigned i, struct acpi_tables *t)
{
	struct acpi_config cfg;
	struct err err = {0};

	configs[i].make(&cfg);
	assert_int_equal(acpi_build(&cfg, BASE, t, &err), 0);
	assert_int_equal(t->n_tables, configs[i].n_tables);
}

static const struct acpi_table *find(const struct acpi_tables *t, const char *name)
{
	for (unsigned i = 0; i < t->n_tables; i++)
		if (!strcmp(t->table[i].name, name))
			return &t->table[i];
	return NULL;
}

/* Follows the pointers as a guest does. */
static void test_structure(void **state)
{
	(void)state;
	for (unsigned k = 0; k < ARRAY_LEN(configs); k++) {
		struct acpi_tables t;
		const uint8_t *b, *root;
		unsigned step, n;
		bool old;

		build(k, &t);
		b = t.blob;
		assert_int_equal(t.rsdp, BASE);
		assert_memory_equal(b, "RSD PTR ", 8);
		assert_int_equal(sum(b, 20), 0);
		old = b[15] == 0;
		if (!old)
			assert_int_equal(sum(b, 36), 0);
		step = old ? 4 : 8;
		root = b + (old ? load_u32(b + 16) : load_u64(b + 24)) - BASE;
		assert_memory_equal(root, old ? "RSDT" : "XSDT", 4);
		n = (load_u32(root + 4) - 36) / step;
		assert_int_equal(
			n, t.n_tables - (old ? 4 : 5)); /* roots, FACS, DSDT apart */
		for (unsigned i = 0; i < n; i++) {
			const uint8_t *p = root + 36 + i * step;
			uint64_t at = (old ? load_u32(p) : load_u64(p)) - BASE;

			assert_true(range_ok(at, 36, t.len));
			assert_true(range_ok(at, load_u32(b + at + 4), t.len));
			assert_int_equal(sum(b + at, load_u32(b + at + 4)), 0);
		}
		for (unsigned i = 0; i < t.n_tables; i++) {
			const struct acpi_table *x = &t.table[i];

			assert_true(range_ok(x->off, x->len, t.len));
			if (strcmp(x->name, "RSDP") && strcmp(x->name, "FACS"))
				assert_int_equal(sum(b + x->off, x->len), 0);
		}
		b += find(&t, "FACP")->off;
		assert_memory_equal(t.blob + load_u32(b + 36) - BASE, "FACS", 4);
		assert_int_equal(load_u32(b + 36) % 64, 0);
		assert_memory_equal(t.blob + load_u32(b + 40) - BASE, "DSDT", 4);
		acpi_tables_fini(&t);
	}
}

static void write_tables(const struct acpi_tables *t, const char *dir)
{
	for (unsigned i = 0; i < t->n_tables; i++) {
		char path[128];
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s.dat", dir, t->table[i].name);
		f = fopen(path, "wb");
		assert_non_null(f);
		assert_int_equal(
			fwrite(t->blob + t->table[i].off, 1, t->table[i].len, f),
			t->table[i].len);
		assert_int_equal(fclose(f), 0);
	}
}

static int run(const char *dir, const char *cmd)
{
	char line[512];

	snprintf(line, sizeof(line), "cd %s && { %s; } >>log 2>&1", dir, cmd);
	return system(line);
}

/* The text `want` in file `name` of dir. */
static bool has_text(const char *dir, const char *name, const char *want)
{
	char path[128];
	void *p;
	size_t len;
	bool found;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (fd_load_file(path, 16 << 20, &p, &len, NULL))
		return false;
	found = memmem(p, len, want, strlen(want));
	free(p);
	return found;
}

static void remove_dir(const char *dir)
{
	char line[128];

	snprintf(line, sizeof(line), "rm -rf %s", dir);
	assert_int_equal(system(line), 0);
}

/* What we wrote is what acpica reads, and compiles to the same again. */
static void test_iasl(void **state)
{
	(void)state;
	if (system("command -v iasl >/dev/null"))
		skip();
	for (unsigned k = 0; k < ARRAY_LEN(configs); k++) {
		char dir[] = "/tmp/acpiXXXXXX";
		struct acpi_tables t;

		assert_non_null(mkdtemp(dir));
		build(k, &t);
		write_tables(&t, dir);
		assert_int_equal(run(dir, "rm RSDP.dat; iasl -d *.dat"), 0);
		assert_int_equal(
			run(dir, "for f in *.dsl; do iasl -oa $f || exit 1; done"), 0);
		/* Compiled without its optimizations, the code is byte for byte the same. */
		assert_int_equal(run(dir, "cmp -i 36 DSDT.aml DSDT.dat"), 0);
		assert_false(has_text(dir, "log", "Error  "));
		assert_false(has_text(dir, "log", "Invalid"));
		if (k == 0) {
			assert_false(has_text(dir, "log", "Warning  "));
			assert_true(has_text(dir, "FACP.dsl", "SCI Interrupt : 0009"));
			assert_true(has_text(dir, "DSDT.dsl", "Device (COM4)"));
			assert_true(has_text(dir, "DSDT.dsl",
					     "0x00000080FFFFFFFF, // Range Maximum"));
		}
		acpi_tables_fini(&t);
		remove_dir(dir);
	}
}

/* acpica's interpreter loads the namespace and runs methods. */
static void test_exec(void **state)
{
	char dir[] = "/tmp/acpiXXXXXX";
	struct acpi_tables t;

	(void)state;
	if (system("command -v acpiexec >/dev/null"))
		skip();
	assert_non_null(mkdtemp(dir));
	build(0, &t);
	write_tables(&t, dir);
	run(dir, "acpiexec -b 'evaluate \\_PIC 1;evaluate \\_SB.PCI0._PRT;"
		 "evaluate \\_SB.LNKA._STA;evaluate \\_S5;"
		 "evaluate \\_SB.LNKC._SRS (89 06 00 0D 01 0B 00 00 00 79 00);"
		 "evaluate \\_SB.LNKC._CRS;"
		 "evaluate \\_SB.PCI0._OSC (5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D "
		 "D7 66) 1 3 "
		 "(01 00 00 00 1F 01 00 00 3F 00 00 00)' FACP.dat DSDT.dat");
	assert_true(has_text(dir, "log", "Evaluation of \\_SB.PCI0._PRT returned"));
	assert_true(has_text(dir, "log", "Evaluation of \\_SB.LNKA._STA returned"));
	assert_true(has_text(dir, "log", "Evaluation of \\_SB.LNKC._CRS returned"));
	assert_true(has_text(dir, "log", "89 06 00 0D 01 0B 00 00 00 79 00"));
	/* Controls that were asked for and are not given. */
	assert_true(has_text(dir, "log", "11 00 00 00 1F 01 00 00 1D 00 00 00"));
	assert_false(has_text(dir, "log", "AE_AML"));
	assert_false(has_text(dir, "log", "AE_NOT_FOUND"));
	acpi_tables_fini(&t);
	remove_dir(dir);
}

static void test_refused(void **state)
{
	struct acpi_tables t;
	struct acpi_config c;
	struct err err;

	(void)state;
	acpi_config_q35(&c);
	assert_int_equal(acpi_build(&c, BASE + 8, &t, &err), -EINVAL);
	c.n_cpus = 0;
	assert_int_equal(acpi_build(&c, BASE, &t, &err), -EINVAL);
	c.n_cpus = 256;
	assert_int_equal(acpi_build(&c, BASE, &t, &err), -EINVAL);
	acpi_config_q35(&c);
	c.pirq[3][1] = 8;
	assert_int_equal(acpi_build(&c, BASE, &t, &err), -EINVAL);
	acpi_config_q35(&c);
	c.ecam.len = 1 << 20;
	assert_int_equal(acpi_build(&c, BASE, &t, &err), -EINVAL);
	acpi_config_q35(&c);
	c.mmio[2] = (struct acpi_range){0xf0000000, 0x20000000};
	assert_int_equal(acpi_build(&c, BASE, &t, &err), -EINVAL);
	acpi_tables_fini(&t);
}

/* Lengths at the borders of the encodings of 20.2.4. */
static void test_aml_lengths(void **state)
{
	static const size_t bodies[] = {0, 1, 62, 63, 64, 4092, 4093, 4094, 70000};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bodies); i++) {
		struct aml a = {.depth = 0};
		size_t len, bytes;
		const uint8_t *p;

		aml_if(&a);
		str_add(&a.out, NULL, bodies[i]);
		aml_end(&a);
		p = (uint8_t *)a.out.p + 1;
		bytes = (p[0] >> 6) + 1u;
		len = bytes == 1 ? p[0] : p[0] & 0xf;
		for (unsigned k = 1; k < bytes; k++)
			len |= (size_t)p[k] << (8 * k - 4);
		assert_int_equal(len, a.out.len - 1);
		assert_int_equal(len, bodies[i] + bytes);
		str_fini(&a.out);
	}
}

static void test_aml_names(void **state)
{
	static const struct {
		const char *path, *code;
		size_t len;
	} cases[] = {
		{"A", "A___", 4},
		{"\\", "\\\0", 2},
		{"\\_SB", "\\_SB_", 5},
		{"^^AB.CDEF",
		 "^^\x2e"
		 "AB__CDEF",
		 11},
		{"\\_SB.PCI0.ISA.X", "\\\x2f\x04_SB_PCI0ISA_X___", 19},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct aml a = {.depth = 0};

		aml_ref(&a, cases[i].path);
		assert_int_equal(a.out.len, cases[i].len);
		assert_memory_equal(a.out.p, cases[i].code, cases[i].len);
		str_fini(&a.out);
	}
}

/* ---- SMBIOS ---- */

/* Walks the structures; how many of `type` there are. */
static unsigned count_type(const uint8_t *p, size_t len, uint8_t type, unsigned *all)
{
	unsigned n = 0;
	size_t at = 0;

	*all = 0;
	while (at < len) {
		assert_true(range_ok(at, 4, len));
		n += p[at] == type;
		(*all)++;
		at += p[at + 1];
		while (p[at] || p[at + 1])
			at++;
		at += 2;
	}
	assert_int_equal(at, len);
	return n;
}

static void test_smbios(void **state)
{
	char long_text[200];
	struct smbios_config c = {
		.memory = 20ull << 30,
		.below_4g = 2ull << 30,
		.n_cpus = 5,
		.manufacturer = "Maker",
		.product = long_text,
		.uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	};
	struct smbios_tables t;
	const uint8_t *p;
	struct err err;
	unsigned all;

	(void)state;
	memset(long_text, 'x', sizeof(long_text));
	long_text[sizeof(long_text) - 1] = 0;
	assert_int_equal(smbios_build(&c, 0xf0000, &t, &err), 0);
	p = t.blob;
	assert_memory_equal(p, "_SM_", 4);
	assert_int_equal(sum(p, 31), 0);
	assert_int_equal(sum(p + 16, 15), 0);
	assert_int_equal(load_u32(p + 24), 0xf0020);
	assert_int_equal(load_u16(p + 22), t.len - 32);
	assert_int_equal(count_type(p + 32, t.len - 32, 4, &all), 5);
	assert_int_equal(load_u16(p + 28), all);
	assert_int_equal(count_type(p + 32, t.len - 32, 19, &all), 2);
	assert_non_null(memmem(p, t.len, "\3\2\1\0\5\4\7\6\10\11", 10));
	/* 64 characters of the long text are there, no more. */
	long_text[64] = 0;
	assert_non_null(memmem(p, t.len, long_text, 65));
	smbios_tables_fini(&t);

	c.entry_3_0 = true;
	assert_int_equal(smbios_build(&c, 0xf0000, &t, &err), 0);
	assert_memory_equal(t.blob, "_SM3_", 5);
	assert_int_equal(sum(t.blob, 24), 0);
	assert_int_equal(load_u64(t.blob + 16), 0xf0020);
	smbios_tables_fini(&t);
	c.below_4g = c.memory + 1;
	assert_int_equal(smbios_build(&c, 0xf0000, &t, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_structure),   cmocka_unit_test(test_iasl),
		cmocka_unit_test(test_exec),        cmocka_unit_test(test_refused),
		cmocka_unit_test(test_aml_lengths), cmocka_unit_test(test_aml_names),
		cmocka_unit_test(test_smbios),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
