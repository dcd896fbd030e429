/*
 * tests/progs/x86guest.c - x86guest KERNEL.elf [RUNS]: a 32-bit multiboot guest on lib/x86 alone: memory, a
 * debug port, an exit port. RUNS: code is translated when it has been interpreted so often. Prints
 * what the guest prints; the status is what it wrote to port 0xf4.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "x86/x86.h"

#define RAM_SIZE (64u << 20)

static uint8_t *ram;
static struct x86_cpu *cpu;
static int status = -1;

static void *page(void *ctx, uint64_t gpa, bool *writable)
{
	(void)ctx;
	*writable = true;
	return gpa < RAM_SIZE ? ram + gpa : NULL;
}

static uint64_t mmio_read(void *ctx, uint64_t gpa, unsigned size)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	return ~0ull;
}

static void mmio_write(void *ctx, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	(void)v;
}

static uint32_t port_in(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	(void)port;
	(void)size;
	return 0xffffffff;
}

static void port_out(void *ctx, uint16_t port, unsigned size, uint32_t v)
{
	(void)ctx;
	(void)size;
	if (port == 0xe9)
		putchar((int)(v & 0xff));
	if (port == 0xf4) {
		status = (int)v;
		x86_kick(cpu);
	}
}

static int irq_take(void *ctx)
{
	(void)ctx;
	return -1;
}

static bool irq_ready(void *ctx)
{
	(void)ctx;
	return false;
}

static uint64_t cr8;

static uint64_t cr8_get(void *ctx)
{
	(void)ctx;
	return cr8;
}

static void cr8_set(void *ctx, uint64_t v)
{
	(void)ctx;
	cr8 = v;
}

static const struct x86_ops ops = {.page = page,
				   .mmio_read = mmio_read,
				   .mmio_write = mmio_write,
				   .pio_in = port_in,
				   .pio_out = port_out,
				   .irq_take = irq_take,
				   .irq_ready = irq_ready,
				   .cr8_get = cr8_get,
				   .cr8_set = cr8_set};

/* Copies the segments; the entry point, 0: not such a file. */
static uint32_t load(const uint8_t *p, size_t len)
{
	const Elf32_Ehdr *e = (const Elf32_Ehdr *)p;

	if (len < sizeof(*e) || memcmp(e->e_ident, ELFMAG, SELFMAG) ||
	    e->e_machine != EM_386 ||
	    !range_ok(e->e_phoff, e->e_phnum * sizeof(Elf32_Phdr), len))
		return 0;
	for (unsigned n = 0; n < e->e_phnum; n++) {
		const Elf32_Phdr *h = (const Elf32_Phdr *)(p + e->e_phoff) + n;

		if (h->p_type != PT_LOAD)
			continue;
		if (!range_ok(h->p_offset, h->p_filesz, len) ||
		    !range_ok(h->p_paddr, h->p_filesz, RAM_SIZE))
			return 0;
		memcpy(ram + h->p_paddr, p + h->p_offset, h->p_filesz);
	}
	return e->e_entry;
}

/* The state that a multiboot loader leaves. */
static void start(uint32_t entry)
{
	struct x86_regs r;

	x86_get_regs(cpu, &r);
	for (unsigned n = 0; n < 6; n++)
		r.seg[n] = (struct x86_seg){
			.sel = 0x18, .attr = 0xc093, .limit = 0xffffffff};
	r.seg[X86_CS] =
		(struct x86_seg){.sel = 0x10, .attr = 0xc09b, .limit = 0xffffffff};
	r.cr0 = 0x11;
	r.rip = entry;
	r.gpr[X86_RAX] = 0x2badb002;
	if (x86_set_regs(cpu, &r))
		abort();
}

static uint8_t *read_file(const char *name, size_t *len)
{
	FILE *f = fopen(name, "rb");
	uint8_t *p = malloc(RAM_SIZE);

	if (!f || !p) {
		perror(name);
		exit(1);
	}
	*len = fread(p, 1, RAM_SIZE, f);
	fclose(f);
	return p;
}

static void emit(void *ctx, enum log_level level, const char *msg)
{
	(void)ctx;
	(void)level;
	printf("# %s\n", msg);
}

int main(int argc, char **argv)
{
	static const struct log log = {.emit = emit, .level = LOG_DEBUG};
	struct x86_cpuid leaf[128];
	struct x86_system *sys;
	struct err err = {0};
	enum x86_exit exit_why;
	uint32_t entry;
	uint8_t *file;
	size_t len;

	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: x86guest KERNEL.elf [RUNS]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	file = read_file(argv[1], &len);
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	entry = ram == MAP_FAILED ? 0 : load(file, len);
	sys = x86_system_new(&ops, NULL, &log);
	if (!entry || !sys) {
		fprintf(stderr, "x86guest: cannot load '%s'\n", argv[1]);
		return 1;
	}
	if (argc == 3 && x86_system_translate(sys, 8u << 20, (unsigned)atoi(argv[2])))
		return 1;
	cpu = x86_cpu_new(sys, 0, NULL, leaf,
			  x86_cpuid_supported(leaf, ARRAY_LEN(leaf)), &err);
	if (!cpu) {
		fprintf(stderr, "x86guest: %s\n", err.msg);
		return 1;
	}
	start(entry);
	do
		exit_why = x86_run(cpu);
	while (exit_why == X86_EXIT_KICK && status < 0);
	if (status < 0)
		printf("Bail out! the processor stopped (%d)\n", (int)exit_why);
	x86_cpu_free(cpu);
	x86_system_free(sys);
	free(file);
	return status < 0 ? 1 : status;
}
