/* tests/unit/test_dev_misc.c - fw_cfg and the ports of one register. */
#include "machine.h"

#include <stdio.h>

#include "base/bytes.h"
#include "dev/fw_cfg.h"
#include "dev/isa_misc.h"

struct fixture {
	struct machine m;
	struct fw_cfg *fw;
	uint8_t seen[FW_CFG_MAX_WRITTEN];
	size_t seen_len;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	machine_init(&f->m);
	assert_int_equal(ram_init(&f->m.ram, 1 << 20, NULL), 0);
	assert_int_equal(ram_add(&f->m.ram, 0, 1 << 20, NULL), 0);
	f->fw = fw_cfg_new(&f->m.env, NULL);
	assert_non_null(f->fw);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fw_cfg_free(f->fw);
	machine_fini(&f->m);
	free(f);
	return 0;
}

static void on_written(void *ctx, const uint8_t *data, size_t len)
{
	struct fixture *f = ctx;

	memcpy(f->seen, data, len);
	f->seen_len = len;
}

/* ---- fw_cfg ---- */

static void read_item(struct machine *m, unsigned key, void *buf, unsigned len)
{
	outw(m, 0x510, key);
	for (unsigned i = 0; i < len; i++)
		((uint8_t *)buf)[i] = inb(m, 0x511);
}

/* Starts a DMA; the control word that was written back. */
static uint32_t dma(struct machine *m, uint32_t control, uint32_t len, uint64_t addr)
{
	const uint64_t at = 0x1000;
	struct {
		be32 control, len;
		be64 addr;
	} d = {be32_make(control), be32_make(len), be64_make(addr)};

	dma_write(&m->ram, at, &d, sizeof(d));
	outl(m, 0x514, 0);
	outl(m, 0x518, __builtin_bswap32((uint32_t)at));
	dma_read(&m->ram, at, &d, sizeof(d));
	return be32_get(d.control);
}

static void test_items(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	uint8_t buf[8];

	read_item(m, FW_CFG_SIGNATURE, buf, 6);
	assert_memory_equal(buf, "QEMU\0", 6);
	read_item(m, FW_CFG_ID, buf, 4);
	assert_memory_equal(buf, "\3\0\0", 4);
	assert_int_equal(fw_cfg_set_u16(f->fw, FW_CFG_CPUS, 0x0102), 0);
	read_item(m, FW_CFG_CPUS, buf, 3);
	assert_memory_equal(buf, "\2\1", 3); /* zeros behind the end */
	assert_int_equal(fw_cfg_set_u32(f->fw, FW_CFG_CPUS, 7), 0);
	read_item(m, FW_CFG_CPUS, buf, 4);
	assert_memory_equal(buf, "\7\0\0", 4);
	assert_int_equal(fw_cfg_set(f->fw, FW_CFG_ID, "x", 1), -EINVAL);
	assert_int_equal(fw_cfg_set(f->fw, 0x30, "x", 1), -EINVAL);
	assert_int_equal(fw_cfg_set(f->fw, 0x8010, "x", 1), -EINVAL);
	assert_int_equal(fw_cfg_set(f->fw, 0x8003, "e820", 4), 0);
	read_item(m, 0x8003, buf, 4);
	assert_memory_equal(buf, "e820", 4);
	read_item(m, 0x7fff, buf, 2);
	assert_memory_equal(buf, "\0", 2);
	assert_int_equal(inl(m, 0x514), 0x554d4551); /* "QEMU" */
	assert_int_equal(inl(m, 0x518), 0x47464320); /* " CFG" */
}

static void test_files(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	uint8_t dir[4 + 2 * 64], buf[8];
	char name[64];

	assert_int_equal(fw_cfg_file(f->fw, "etc/e820", "1234567", 7, NULL), 0);
	assert_int_equal(fw_cfg_file(f->fw, "bootorder", "", 0, NULL), 0);
	assert_int_equal(fw_cfg_file(f->fw, "etc/e820", "abcdef", 6, NULL), 0);
	read_item(m, FW_CFG_DIR, dir, sizeof(dir));
	assert_memory_equal(dir, "\0\0\0\2", 4);
	assert_memory_equal(dir + 4, "\0\0\0\6\0\x20\0\0etc/e820", 17);
	assert_memory_equal(dir + 68, "\0\0\0\0\0\x21\0\0bootorder", 18);
	read_item(m, 0x20, buf, 7);
	assert_memory_equal(buf, "abcdef", 7);
	memset(name, 'x', sizeof(name));
	name[56] = 0;
	assert_int_equal(fw_cfg_file(f->fw, name, "", 0, NULL), -ENAMETOOLONG);
	for (unsigned i = 2; i < FW_CFG_MAX_FILES; i++) {
		snprintf(name, sizeof(name), "opt/%u", i);
		assert_int_equal(fw_cfg_file(f->fw, name, "", 0, NULL), 0);
	}
	assert_int_equal(fw_cfg_file(f->fw, "one more", "", 0, NULL), -ENOSPC);
}

static void test_dma(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	uint8_t buf[16];

	fw_cfg_file(f->fw, "f", "0123456789", 10, NULL);
	assert_int_equal(fw_cfg_writable(f->fw, "w", 8, on_written, f, NULL), 0);
	memset(m->ram.base, 0xee, 0x3000);
	assert_int_equal(dma(m, 0x20u << 16 | 8 | 2, 4, 0x2000), 0);
	assert_int_equal(dma(m, 4, 2, 0), 0); /* skip */
	assert_int_equal(dma(m, 2, 8, 0x2004), 0);
	dma_read(&m->ram, 0x2000, buf, 13);
	assert_memory_equal(buf, "01236789\0\0\0\0\xee", 13);
	/* Not memory; not writable; too much. */
	assert_int_equal(dma(m, 0x20u << 16 | 8 | 2, 4, 0xfffffffffffffffe), 1);
	assert_int_equal(dma(m, 0x20u << 16 | 8 | 2, 0xffffffff, 0x2000), 1);
	assert_int_equal(dma(m, 0x20u << 16 | 8 | 16, 1, 0x2000), 1);
	assert_int_equal(dma(m, 0x21u << 16 | 8 | 16, 9, 0x2000), 1);
	assert_int_equal(f->seen_len, 0);
	assert_int_equal(dma(m, 0x21u << 16 | 8 | 4, 2, 0), 0);
	dma_write(&m->ram, 0x2000, "ABCD", 4);
	assert_int_equal(dma(m, 16, 4, 0x2000), 0);
	assert_int_equal(f->seen_len, 8);
	assert_memory_equal(f->seen, "\0\0ABCD\0", 8);
	/* A descriptor that is nowhere does nothing. */
	outl(m, 0x514, 0xffffffff);
	outl(m, 0x518, 0xffffffff);
}

static void test_fw_save(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct str s;

	fw_cfg_file(f->fw, "f", "0123456789", 10, NULL);
	outw(m, 0x510, 0x20);
	inb(m, 0x511);
	s = machine_save(m);
	fw_cfg_reset(f->fw);
	assert_int_equal(inb(m, 0x511), 0);
	machine_load(m, &s);
	assert_int_equal(inb(m, 0x511), '1');
}

/* ---- one register each ---- */

static void count_reset(void *ctx)
{
	machine_called(ctx, 1);
}

static void count_a20(void *ctx, bool on)
{
	machine_called(ctx, on);
}

static void count_hard(void *ctx, bool hard)
{
	machine_called(ctx, hard);
}

static void count_exit(void *ctx, uint32_t value)
{
	machine_called(ctx, value);
}

static char printed;

static void print(struct chr *c, const uint8_t *p, size_t len)
{
	(void)c;
	printed = (char)p[len - 1];
}

static const struct chr_ops printer_ops = {.write = print};

static void test_port92(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct port92_user user = {count_reset, count_a20, m};
	struct port92 *p = port92_new(&m->env, &user, NULL);

	assert_int_equal(inb(m, 0x92), 2);
	outb(m, 0x92, 0);
	assert_int_equal(m->calls, 1);
	assert_int_equal(m->called, 0);
	outb(m, 0x92, 3);
	assert_int_equal(m->calls, 3); /* A20 and reset */
	outb(m, 0x92, 3);
	assert_int_equal(m->calls, 3);
	port92_free(p);
	assert_int_equal(inb(m, 0x92), 0xff);
}

static void test_cf9(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct cf9 *c = cf9_new(&m->env, count_hard, m, NULL);

	outb(m, 0xcf9, 0x02);
	assert_int_equal(m->calls, 0);
	outb(m, 0xcf9, 0x06);
	assert_int_equal(m->calls, 1);
	assert_int_equal(m->called, 1);
	outb(m, 0xcf9, 0x06);
	assert_int_equal(m->calls, 1);
	outb(m, 0xcf9, 0);
	outb(m, 0xcf9, 0x04);
	assert_int_equal(m->called, 0);
	cf9_free(c);
}

static void test_ports(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct chr chr = {.ops = &printer_ops};
	struct debugcon *d = debugcon_new(&m->env, 0x402, &chr, NULL);
	struct debug_exit *e = debug_exit_new(&m->env, 0xf4, count_exit, m, NULL);
	struct pvpanic *p = pvpanic_new(&m->env, machine_called, m, NULL);
	struct err err = {0};

	assert_int_equal(inb(m, 0x402), 0xe9);
	outb(m, 0x402, 'S');
	assert_int_equal(printed, 'S');
	outl(m, 0xf4, 0x12345);
	assert_int_equal(m->called, 0x12345);
	assert_int_equal(inb(m, 0x505), 3);
	outb(m, 0x505, 0x81);
	assert_int_equal(m->called, 1);
	outb(m, 0x505, 0x80);
	assert_int_equal(m->calls, 2);
	assert_null(debugcon_new(&m->env, 0x402, NULL, &err));
	assert_string_equal(err.msg, "port 0x402 is taken: no debug console");
	debugcon_free(d);
	debug_exit_free(e);
	pvpanic_free(p);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_items),  T(test_files), T(test_dma),   T(test_fw_save),
		T(test_port92), T(test_cf9),   T(test_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
