/*
 * tests/unit/test_fw_kernel.c - kernels made here, whole and damaged in each number that counts: what
 * they are, where their parts go, the state they are entered with.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "codec/codec.h"
#include "fw/kernel.h"
#include "vm/dma.h"

#define MIB      (1ull << 20)
#define RAM_SIZE (64 * MIB)
#define LOAD     (16 * MIB) /* where the kernels are linked */
#define CODE_LEN 5000
#define BSS_LEN  3000

/* ---- a machine ---- */

static struct ram ram;
static struct e820 map;
static struct cpu_state cpu;
static struct boot_info info;
static struct err err;
static uint8_t initrd[10000];

static int setup(void **state)
{
	(void)state;
	map.n = 0;
	memset(&cpu, 0xee, sizeof(cpu));
	memset(&err, 0, sizeof(err));
	for (unsigned i = 0; i < sizeof(initrd); i++)
		initrd[i] = (uint8_t)(i * 7);
	assert_int_equal(ram_init(&ram, RAM_SIZE, &err), 0);
	assert_int_equal(ram_add(&ram, 0, 0xa0000, &err), 0);
	assert_int_equal(ram_add(&ram, MIB, RAM_SIZE - MIB, &err), 0);
	/* What was there before a reset must not be seen by the kernel. */
	memset(ram.base, 0xa5, ram.used);
	assert_int_equal(e820_add_ram(&map, &ram, &err), 0);
	return e820_add(&map, 0x9fc00, 0x400, E820_RESERVED, &err);
}

static int teardown(void **state)
{
	(void)state;
	ram_fini(&ram);
	return 0;
}

static int load(const void *p, size_t len)
{
	const struct boot_params_in in = {.name = "test",
					  .kernel = p,
					  .kernel_len = len,
					  .initrd = initrd,
					  .initrd_len = sizeof(initrd),
					  .cmdline = "console=ttyS0",
					  .e820 = &map,
					  .rsdp = 0xe0000};

	err.msg[0] = 0;
	return boot_load(&ram, &in, &cpu, &info, &err);
}

static const void *at(uint64_t gpa, size_t len)
{
	const void *p = ram_ptr(&ram, gpa, len, false);

	assert_non_null(p);
	return p;
}

/* Nothing overlaps, everything is RAM. */
static void check_ranges(void)
{
	for (unsigned i = 0; i < info.n_ranges; i++) {
		const struct boot_range *r = &info.range[i];

		assert_true(e820_all(&map, r->gpa, r->len, E820_RAM));
		for (unsigned k = 0; k < i; k++)
			assert_false(range_overlap(r->gpa, r->len, info.range[k].gpa,
						   info.range[k].len));
	}
}

/* ---- kernels ---- */

struct file {
	uint8_t b[32768];
	size_t len;
};

static uint8_t code_byte(size_t i)
{
	return (uint8_t)(i * 13 + (i >> 8));
}

static size_t add(struct file *f, const void *p, size_t len)
{
	size_t off = f->len;

	assert_true(len <= sizeof(f->b) - off);
	memcpy(f->b + off, p, len);
	f->len += len;
	return off;
}

/* vmlinux: one segment of code and bss, a note, Linux' banner. */
static void make_elf64(struct file *f, bool note)
{
	static const char banner[] = "Linux version 9.9 (test)";
	Elf64_Ehdr h = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = 1,
		.e_entry = LOAD + 0x100,
		.e_phoff = sizeof(h),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 2,
	};
	Elf64_Phdr ph[2] = {
		{.p_type = PT_LOAD,
		 .p_offset = sizeof(h) + sizeof(ph),
		 .p_vaddr = 0xffffffff80000000ull + LOAD,
		 .p_paddr = LOAD,
		 .p_filesz = CODE_LEN,
		 .p_memsz = CODE_LEN + BSS_LEN},
		{.p_type = PT_NOTE,
		 .p_offset = sizeof(h) + sizeof(ph) + CODE_LEN,
		 .p_filesz = 24,
		 .p_align = 4},
	};
	struct {
		Elf64_Nhdr h;
		char name[4];
		le64 entry;
	} n = {{4, 8, note ? 18 : 17}, "Xen", le64_make(LOAD + 0x200)};

	f->len = 0;
	add(f, &h, sizeof(h));
	add(f, ph, sizeof(ph));
	for (size_t i = 0; i < CODE_LEN; i++) {
		uint8_t c = code_byte(i);

		add(f, &c, 1);
	}
	add(f, &n, sizeof(n));
	memcpy(f->b + sizeof(h) + sizeof(ph) + 1000, banner, sizeof(banner));
}

static void make_elf32(struct file *f)
{
	Elf32_Ehdr h = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1},
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_version = 1,
		.e_entry = 0xc0000000u + LOAD + 0x40, /* virtual: to be translated */
		.e_phoff = sizeof(h),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 1,
	};
	Elf32_Phdr ph = {
		.p_type = PT_LOAD,
		.p_offset = sizeof(h) + sizeof(ph),
		.p_vaddr = 0xc0000000u + LOAD,
		.p_paddr = LOAD,
		.p_filesz = CODE_LEN,
		.p_memsz = CODE_LEN,
	};

	f->len = 0;
	add(f, &h, sizeof(h));
	add(f, &ph, sizeof(ph));
	for (size_t i = 0; i < CODE_LEN; i++) {
		uint8_t c = code_byte(i);

		add(f, &c, 1);
	}
}

/* Offsets in a bzImage. */
enum {
	BZ_SECTS = 0x1f1,
	BZ_VERSION = 0x206,
	BZ_LOADFLAGS = 0x211,
	BZ_CODE32 = 0x214,
	BZ_CMDLINE_SIZE = 0x238,
	BZ_PAYLOAD = 0x248,
	BZ_PAYLOAD_LEN = 0x24c,
};

static void set32(struct file *f, size_t off, uint32_t v)
{
	memcpy(f->b + off, &v, sizeof(v));
}

/* A bzImage of two set-up sectors around `payload`; NULL: with 4 KiB of code and no payload. */
static void make_bzimage(struct file *f, const void *payload, size_t len)
{
	static const uint8_t code[4096] = {0x90};
	const size_t setup_len = 3 * 512;

	memset(f, 0, sizeof(*f));
	f->len = setup_len;
	f->b[BZ_SECTS] = 2;
	f->b[0x1fe] = 0x55;
	f->b[0x1ff] = 0xaa;
	f->b[0x200] = 0xeb;
	f->b[0x201] = 0x6a;
	memcpy(f->b + 0x202, "HdrS\x0f\x02", 6);
	f->b[0x20e] = 0x00; /* the version text is at 200h + 100h */
	f->b[0x20f] = 0x01;
	strcpy((char *)f->b + 0x300, "9.9 (test)");
	f->b[BZ_LOADFLAGS] = 1;
	set32(f, BZ_CODE32, 0x100000);
	set32(f, 0x22c, 0x7fffffff); /* initrd_addr_max */
	set32(f, 0x230, 0x200000);
	f->b[0x234] = 1; /* relocatable */
	f->b[0x236] = 3; /* 64-bit entry, above 4 GiB */
	set32(f, BZ_CMDLINE_SIZE, 2047);
	set32(f, 0x258, LOAD);
	set32(f, 0x260, 2 * MIB);
	add(f, code, payload ? 64 : sizeof(code));
	if (!payload)
		return;
	set32(f, BZ_PAYLOAD, 64);
	set32(f, BZ_PAYLOAD_LEN, (uint32_t)len);
	add(f, payload, len);
}

/* What program `cmd` makes of the file. */
static void compress(const struct file *in, const char *cmd, struct file *out)
{
	char name[] = "/tmp/fwXXXXXX", line[128];
	int fd = mkstemp(name);
	FILE *p;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, in->b, in->len), in->len);
	close(fd);
	snprintf(line, sizeof(line), "%s <%s", cmd, name);
	p = popen(line, "r");
	assert_non_null(p);
	out->len = fread(out->b, 1, sizeof(out->b), p);
	assert_int_equal(pclose(p), 0);
	unlink(name);
}

static void make_bzimage_of(struct file *f, const struct file *vmlinux)
{
	struct file packed;

	compress(vmlinux, "gzip -9c", &packed);
	make_bzimage(f, packed.b, packed.len);
}

/* ---- what is checked ---- */

static void check_code(bool has_bss, size_t skip_banner)
{
	const uint8_t *p = at(LOAD, CODE_LEN + BSS_LEN);

	for (size_t i = 0; i < CODE_LEN; i++)
		if (i < skip_banner || i >= skip_banner + 32)
			assert_int_equal(p[i], code_byte(i));
	for (size_t i = CODE_LEN; has_bss && i < CODE_LEN + BSS_LEN; i++)
		assert_int_equal(p[i], 0);
}

static void check_initrd(uint64_t gpa, uint64_t len)
{
	assert_int_equal(len, sizeof(initrd));
	assert_int_equal(gpa % 4096, 0);
	assert_memory_equal(at(gpa, len), initrd, len);
}

static void check_zero_page(void)
{
	const uint8_t *zp = at(cpu.gpr[6], 4096);

	assert_int_equal(zp[0x1ef], 0); /* sentinel */
	assert_memory_equal(zp + 0x202, "HdrS", 4);
	assert_int_equal(zp[0x210], 0xff);
	assert_int_equal(load_u64(zp + 0x70), 0xe0000);
	assert_int_equal(zp[0x1e8], map.n);
	assert_int_equal(load_u64(zp + 0x2d0 + 20), 0x9fc00);
	assert_int_equal(load_u32(zp + 0x2d0 + 36), 2);
	assert_string_equal(at(load_u32(zp + 0x228), 32), "console=ttyS0");
	check_initrd(load_u32(zp + 0x218), load_u32(zp + 0x21c));
	assert_int_equal(zp[6], 0); /* no screen */
}

/* Reads through the page tables. */
static void check_mapped(uint64_t va)
{
	uint64_t e = cpu.cr3;

	for (int shift = 39; shift >= 21; shift -= 9) {
		e = load_u64(at((e & ~0xfffull) + (va >> shift & 511) * 8, 8));
		assert_int_equal(e & 3, 3);
	}
	assert_int_equal(e & 0x80, 0x80);
	assert_int_equal((e & ~0x1fffffull) | (va & 0x1fffff), va);
}

static void check_long64(uint64_t rip)
{
	static const uint64_t probe[] = {0, 0x1234, MIB, LOAD, 0xfee00000, 0xffffffff};

	assert_int_equal(cpu.rip, rip);
	assert_int_equal(info.entry, rip);
	assert_int_equal(cpu.cr0, 0x80000011);
	assert_int_equal(cpu.cr4, 0x20);
	assert_int_equal(cpu.efer, 0x500);
	assert_int_equal(cpu.rflags, 2);
	assert_int_equal(cpu.seg[SEG_CS].sel, 0x10);
	assert_int_equal(cpu.seg[SEG_CS].attr, 0xa09b);
	assert_int_equal(cpu.seg[SEG_SS].sel, 0x18);
	assert_int_equal(cpu.seg[SEG_TR].attr, 0x8b);
	assert_int_equal(load_u64(at(cpu.gdtr.base + 0x10, 8)), 0x00af9b000000ffff);
	for (unsigned i = 0; i < ARRAY_LEN(probe); i++)
		check_mapped(probe[i]);
}

static void check_flat32(uint64_t rip)
{
	assert_int_equal(cpu.rip, rip);
	assert_int_equal(cpu.cr0, 0x11);
	assert_int_equal(cpu.cr4, 0);
	assert_int_equal(cpu.efer, 0);
	assert_int_equal(load_u32(cpu.lapic + 0xf0), 0x1ff);
	assert_int_equal(load_u32(cpu.lapic + 0x350), 0x700);
	assert_int_equal(cpu.rflags, 2);
	assert_int_equal(cpu.seg[SEG_CS].attr, 0xc09b);
	assert_int_equal(cpu.seg[SEG_DS].attr, 0xc093);
	assert_int_equal(cpu.seg[SEG_DS].limit, UINT32_MAX);
	assert_int_equal(load_u64(at(cpu.gdtr.base + 0x10, 8)), 0x00cf9b000000ffff);
	assert_int_equal(load_u64(at(cpu.gdtr.base + 0x18, 8)), 0x00cf93000000ffff);
}

/* ---- Linux ---- */

static void test_bzimage64(void **state)
{
	struct file v, f;

	(void)state;
	make_elf64(&v, false);
	make_bzimage_of(&f, &v);
	assert_int_equal(kernel_identify(f.b, f.len), KERNEL_BZIMAGE);
	assert_int_equal(load(f.b, f.len), 0);
	assert_string_equal(info.protocol, "Linux 64-bit");
	assert_string_equal(info.version, "9.9 (test)");
	assert_int_equal(load_u16(at(0x40e, 2)), 0x9fc0);
	assert_int_equal(load_u16(at(0x413, 2)), 639);
	assert_int_equal(load_u32(at(0x10 * 4, 4)), 0x500); /* INT 10h */
	assert_int_equal(*(const uint8_t *)at(0x508, 1), 0xcf);
	check_ranges();
	check_code(true, 1000);
	check_zero_page();
	check_long64(LOAD + 0x100);
}

static void test_bzimage32(void **state)
{
	struct file v, f;

	(void)state;
	make_elf32(&v);
	make_bzimage_of(&f, &v);
	assert_int_equal(load(f.b, f.len), 0);
	assert_string_equal(info.protocol, "Linux 32-bit");
	check_ranges();
	check_code(false, CODE_LEN);
	check_zero_page();
	check_flat32(LOAD + 0x40);
}

/* No payload, or one of an unknown kind: the image unpacks itself. */
static void test_bzimage_itself(void **state)
{
	static const uint8_t odd[100] = {1, 2, 3};
	struct file f;

	(void)state;
	for (int i = 0; i < 2; i++) {
		make_bzimage(&f, i ? odd : NULL, sizeof(odd));
		assert_int_equal(load(f.b, f.len), 0);
		assert_string_equal(info.protocol, "Linux 32-bit");
		check_ranges();
		check_zero_page();
		check_flat32(0x100000);
		assert_memory_equal(at(0x100000, f.len - 1536), f.b + 1536,
				    f.len - 1536);
		/* Its room to work: up to the preferred address and what it needs there. */
		assert_int_equal(info.range[0].gpa, 0x100000);
		assert_int_equal(info.range[0].len, LOAD + 2 * MIB - 0x100000);
	}
}

static void test_needs_bios(void **state)
{
	struct file f;

	(void)state;
	make_bzimage(&f, NULL, 0);
	f.b[BZ_LOADFLAGS] = 0;
	assert_int_equal(load(f.b, f.len), -ENOEXEC);
	assert_non_null(strstr(err.msg, "BIOS"));
	make_bzimage(&f, NULL, 0);
	set32(&f, BZ_CODE32, 0);
	assert_int_equal(load(f.b, f.len), -ENOEXEC);
	make_bzimage(&f, NULL, 0);
	strcpy((char *)f.b + 0x300, "MEMDISK 6.04");
	assert_int_equal(load(f.b, f.len), -ENOEXEC);
	make_bzimage(&f, NULL, 0);
	f.b[BZ_VERSION] = 1;
	assert_int_equal(load(f.b, f.len), -ENOEXEC);
	assert_non_null(strstr(err.msg, "2.01"));
}

/* Every length of a cut-off file: an error or a start, nothing else. */
static void test_bzimage_cut(void **state)
{
	struct file v, f;
	uint8_t *p;

	(void)state;
	make_elf64(&v, false);
	make_bzimage_of(&f, &v);
	for (size_t n = 0; n < f.len; n++) {
		p = malloc(
			n ? n
			  : 1); /* exactly as long: the sanitizer sees what goes past */
		assert_non_null(p);
		memcpy(p, f.b, n);
		assert_true(load(p, n) < 0);
		assert_true(strlen(err.msg) > 10);
		free(p);
	}
	assert_int_equal(load(f.b, f.len), 0);
}

static void test_vmlinux(void **state)
{
	struct file v, gz;

	(void)state;
	make_elf64(&v, false);
	assert_int_equal(kernel_identify(v.b, v.len), KERNEL_ELF_LINUX);
	assert_int_equal(load(v.b, v.len), 0);
	check_zero_page();
	check_long64(LOAD + 0x100);
	compress(&v, "gzip -c", &gz);
	assert_int_equal(kernel_identify(gz.b, gz.len), KERNEL_ELF_LINUX);
	memset(ram.base, 0, ram.used);
	assert_int_equal(load(gz.b, gz.len), 0);
	check_code(true, 1000);
	gz.b[gz.len / 2] ^= 0x55;
	assert_int_equal(kernel_identify(gz.b, gz.len), KERNEL_UNKNOWN);
	assert_int_equal(load(gz.b, gz.len), -ENOEXEC);
	assert_non_null(strstr(err.msg, "gzip"));
}

static void test_limits(void **state)
{
	struct boot_params_in in = {.name = "test", .e820 = &map};
	char *line = calloc(1, 3000);
	struct boot_module module = {"m", initrd, 1, NULL};
	struct file v, f;

	(void)state;
	assert_non_null(line);
	make_elf64(&v, false);
	make_bzimage_of(&f, &v);
	in.kernel = f.b;
	in.kernel_len = f.len;
	memset(line, 'a', 2047);
	in.cmdline = line;
	assert_int_equal(boot_load(&ram, &in, &cpu, &info, &err), 0);
	line[2047] = 'a';
	assert_int_equal(boot_load(&ram, &in, &cpu, &info, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "2048"));
	in.cmdline = NULL;
	/* An initrd that does not fit beside the kernel. */
	in.initrd = ram.base;
	in.initrd_len = RAM_SIZE - 4 * MIB;
	assert_int_equal(boot_load(&ram, &in, &cpu, &info, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "initrd"));
	in.initrd = NULL;
	in.modules = &module;
	in.n_modules = 1;
	assert_int_equal(boot_load(&ram, &in, &cpu, &info, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "modules"));
	free(line);
}

/* Each number of the segment table set to what must be refused. */
static void test_elf_damage(void **state)
{
	static const struct {
		size_t off; /* in the first program header */
		uint64_t val;
	} bad[] = {
		{offsetof(Elf64_Phdr, p_offset), 1 << 20},
		{offsetof(Elf64_Phdr, p_offset), UINT64_MAX},
		{offsetof(Elf64_Phdr, p_filesz), 1 << 20},
		{offsetof(Elf64_Phdr, p_filesz), UINT64_MAX},
		{offsetof(Elf64_Phdr, p_memsz), CODE_LEN - 1},
		{offsetof(Elf64_Phdr, p_memsz), RAM_SIZE},
		{offsetof(Elf64_Phdr, p_memsz), UINT64_MAX},
		{offsetof(Elf64_Phdr, p_paddr), UINT64_MAX - 10},
		{offsetof(Elf64_Phdr, p_paddr),
		 0x9f000}, /* over the edge of low memory */
		{offsetof(Elf64_Phdr, p_paddr), RAM_SIZE - 100},
		{offsetof(Elf64_Phdr, p_paddr), 1ull << 40},
	};
	struct file v;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		make_elf64(&v, false);
		memcpy(v.b + sizeof(Elf64_Ehdr) + bad[i].off, &bad[i].val, 8);
		assert_true(load(v.b, v.len) < 0);
		assert_true(strlen(err.msg) > 10);
	}
	make_elf64(&v, false);
	v.b[offsetof(Elf64_Ehdr, e_phnum)] =
		3; /* goes past the table, into code: junk */
	assert_int_not_equal(load(v.b, v.len), -ENOMEM);
	make_elf64(&v, false);
	memset(v.b + offsetof(Elf64_Ehdr, e_phoff), 0xff, 8);
	assert_int_equal(load(v.b, v.len), -ENOEXEC);
	/* Two segments in one place. */
	make_elf64(&v, false);
	memcpy(v.b + sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), v.b + sizeof(Elf64_Ehdr),
	       sizeof(Elf64_Phdr));
	assert_int_equal(load(v.b, v.len), -ENOSPC);
	assert_non_null(strstr(err.msg, "the kernel is at"));
}

/* ---- PVH ---- */

static void test_pvh(void **state)
{
	static const char text[] = "module text";
	const struct boot_module module = {"m", text, sizeof(text), "args"};
	struct file v;
	struct boot_params_in in = {.name = "test",
				    .kernel = v.b,
				    .initrd = initrd,
				    .initrd_len = sizeof(initrd),
				    .cmdline = "x=y",
				    .modules = &module,
				    .n_modules = 1,
				    .e820 = &map,
				    .rsdp = 0xe0000};
	const uint8_t *si, *mod, *mm;

	(void)state;
	make_elf64(&v, true);
	in.kernel_len = v.len;
	assert_int_equal(kernel_identify(v.b, v.len), KERNEL_ELF_PVH);
	assert_int_equal(boot_load(&ram, &in, &cpu, &info, &err), 0);
	assert_string_equal(info.protocol, "PVH");
	check_ranges();
	check_code(true, 1000);
	check_flat32(LOAD + 0x200);
	si = at(cpu.gpr[3], 56);
	assert_int_equal(load_u32(si), 0x336ec578);
	assert_int_equal(load_u32(si + 4), 1);
	assert_int_equal(load_u32(si + 12), 2);
	assert_string_equal(at(load_u64(si + 24), 4), "x=y");
	assert_int_equal(load_u64(si + 32), 0xe0000);
	mod = at(load_u64(si + 16), 64);
	check_initrd(load_u64(mod), load_u64(mod + 8));
	assert_int_equal(load_u64(mod + 16), 0);
	assert_memory_equal(at(load_u64(mod + 32), sizeof(text)), text, sizeof(text));
	assert_string_equal(at(load_u64(mod + 48), 5), "args");
	assert_int_equal(load_u32(si + 48), map.n);
	mm = at(load_u64(si + 40), 24 * map.n);
	assert_int_equal(load_u64(mm + 24), 0x9fc00);
	assert_int_equal(load_u32(mm + 24 + 16), 2);
}

/* ---- multiboot ---- */

#define MB_FLAGS 0x10003 /* modules aligned, memory, addresses */

static void make_multiboot(struct file *f, uint32_t flags, uint32_t load_end,
			   uint32_t bss_end)
{
	const uint32_t h[] = {0x1badb002,   flags,       -(0x1badb002 + flags),
			      LOAD + 0x100, LOAD,        load_end,
			      bss_end,      LOAD + 0x130};
	size_t i = 0;

	f->len = 0;
	for (; i < CODE_LEN; i++) {
		uint8_t c = code_byte(i);

		add(f, &c, 1);
	}
	memcpy(f->b + 0x100, h, sizeof(h));
}

static void test_multiboot(void **state)
{
	static const char text[] = "module text";
	const struct boot_module module = {"dir/mod", text, sizeof(text), "args"};
	struct file v;
	struct boot_params_in in = {.name = "dir/kernel",
				    .kernel = v.b,
				    .initrd = initrd,
				    .initrd_len = sizeof(initrd),
				    .cmdline = "x=y",
				    .modules = &module,
				    .n_modules = 1,
				    .e820 = &map,
				    .vga_text = true};
	const uint8_t *mbi, *mod, *mm;

	(void)state;
	make_multiboot(&v, MB_FLAGS, LOAD + CODE_LEN - 100, LOAD + CODE_LEN + BSS_LEN);
	in.kernel_len = v.len;
	assert_int_equal(kernel_identify(v.b, v.len), KERNEL_MULTIBOOT);
	assert_int_equal(boot_load(&ram, &in, &cpu, &info, &err), 0);
	assert_string_equal(info.protocol, "multiboot");
	check_ranges();
	check_flat32(LOAD + 0x130);
	assert_memory_equal(at(LOAD, CODE_LEN - 100), v.b, CODE_LEN - 100);
	assert_int_equal(*(const uint8_t *)at(LOAD + CODE_LEN - 100, 1), 0);
	assert_int_equal(*(const uint8_t *)at(LOAD + CODE_LEN + BSS_LEN - 1, 1), 0);
	assert_int_equal(cpu.gpr[0], 0x2badb002);
	mbi = at(cpu.gpr[3], 116);
	assert_int_equal(load_u32(mbi), 0x124d);
	assert_int_equal(load_u32(mbi + 4), 0x9fc00 / 1024);
	assert_int_equal(load_u32(mbi + 8), (RAM_SIZE - MIB) / 1024);
	assert_string_equal(at(load_u32(mbi + 16), 16), "kernel x=y");
	assert_int_equal(load_u32(mbi + 20), 2);
	mod = at(load_u32(mbi + 24), 32);
	check_initrd(load_u32(mod), load_u32(mod + 4) - load_u32(mod));
	assert_int_equal(load_u32(mod + 20) - load_u32(mod + 16), sizeof(text));
	assert_string_equal(at(load_u32(mod + 24), 9), "mod args");
	assert_int_equal(load_u32(mbi + 44), 24 * map.n);
	mm = at(load_u32(mbi + 48), 24 * map.n);
	assert_int_equal(load_u32(mm + 24), 20);
	assert_int_equal(load_u64(mm + 28), 0x9fc00);
	assert_int_equal(load_u64(mbi + 88), 0xb8000);
}

static void test_multiboot_elf(void **state)
{
	const uint32_t h[] = {0x1badb002, 3, -(0x1badb002u + 3)};
	struct file v;

	(void)state;
	make_elf32(&v);
	memcpy(v.b + 0x400, h, sizeof(h));
	assert_int_equal(kernel_identify(v.b, v.len), KERNEL_MULTIBOOT);
	assert_int_equal(load(v.b, v.len), 0);
	check_flat32(LOAD + 0x40);
	/* Behind the first 8 KiB there is no header. */
	make_multiboot(&v, 3, 0, 0);
	memset(v.b + v.len, 0, sizeof(v.b) - v.len);
	memmove(v.b + 8192 - 0x100, v.b, v.len);
	memset(v.b, 0, 8192 - 0x100);
	assert_int_equal(kernel_identify(v.b, sizeof(v.b)), KERNEL_UNKNOWN);
}

static void test_multiboot_damage(void **state)
{
	struct file v;

	(void)state;
	make_multiboot(&v, MB_FLAGS | 8, 0, 0);
	assert_int_equal(load(v.b, v.len), -ENOEXEC);
	make_multiboot(&v, 3, 0, 0); /* without addresses, and no ELF file */
	assert_int_equal(load(v.b, v.len), -EINVAL);
	make_multiboot(&v, MB_FLAGS, LOAD - 1, 0);
	assert_int_equal(load(v.b, v.len), -EINVAL);
	make_multiboot(&v, MB_FLAGS, LOAD + CODE_LEN + 1, 0);
	assert_int_equal(load(v.b, v.len), -EINVAL);
	make_multiboot(&v, MB_FLAGS, LOAD + CODE_LEN, LOAD + 100);
	assert_int_equal(load(v.b, v.len), -EINVAL);
	make_multiboot(&v, MB_FLAGS, 0, UINT32_MAX);
	assert_int_equal(load(v.b, v.len), -ENOSPC);
	make_multiboot(&v, MB_FLAGS, 0, 0);
	set32(&v, 0x110, LOAD + 0x101); /* begins behind its header */
	assert_int_equal(load(v.b, v.len), -EINVAL);
	make_multiboot(&v, MB_FLAGS, 0, 0);
	set32(&v, 0x110, LOAD - 0x1000); /* begins before the file */
	assert_int_equal(load(v.b, v.len), -EINVAL);
	make_multiboot(&v, MB_FLAGS, 0, 0); /* all of the file */
	assert_int_equal(load(v.b, v.len), 0);
}

static void test_no_kernel(void **state)
{
	static const char text[] = "just a text file, longer than any magic";
	struct file v;

	(void)state;
	assert_int_equal(load(text, sizeof(text)), -ENOEXEC);
	assert_int_equal(load(text, 0), -ENOEXEC);
	make_elf32(&v);
	assert_int_equal(load(v.b, v.len), -ENOEXEC);
	assert_non_null(strstr(err.msg, "ELF"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_bzimage64),  T(test_bzimage32),     T(test_bzimage_itself),
		T(test_needs_bios), T(test_bzimage_cut),   T(test_vmlinux),
		T(test_limits),     T(test_elf_damage),    T(test_pvh),
		T(test_multiboot),  T(test_multiboot_elf), T(test_multiboot_damage),
		T(test_no_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
