/*
 * tests/unit/test_count.c - running for an exact number of instructions: whatever the engine and however the run is
 * cut into pieces, the same happens at the same count.
 */
#include "x86_guest.h"

__asm__(".section .rodata\n"
	"guest_begin:\n"
	".code32\n"
	"	mov $0x40000000, %ebx\n"
	"	sti\n"
	"	mov $40, %edi\n"
	"1:	mov $10, %ecx\n"
	"2:	lea (%eax,%ecx,2), %eax\n"
	"	xor %ecx, %eax\n"
	"	test $4, %al\n"
	"	jz 3f\n"
	"	inc %ebp\n"
	"3:	dec %ecx\n"
	"	jnz 2b\n"
	"	call 5f\n"
	"	mov %eax, (%ebx)\n" /* brings an interrupt */
	"	inc %ebp\n"
	"	mov 8(%ebx), %edx\n" /* reading brings one, too */
	"	add %edx, %ebp\n"
	"	inc %ebp\n"
	"	rdtsc\n"
	"	mov %eax, 4(%ebx)\n"
	"	ud2\n"
	"	in $0x80, %eax\n"
	"	inc %ebp\n"
	"	cli\n"
	"	mov %ebp, (%ebx)\n" /* waits for sti */
	"	inc %ebp\n"
	"	inc %ebp\n"
	"	sti\n"
	"	inc %ebp\n"
	"	inc %ebp\n"
	"	dec %edi\n"
	"	jnz 1b\n"
	"	mov $7, %al\n"
	"	out %al, $0xf4\n"
	"	hlt\n"
	"5:	push %edi\n"
	"	mov $0x5000, %edi\n"
	"	mov $0x6000, %esi\n"
	"	mov $300, %ecx\n"
	"	rep movsb\n"
	"	call 7f\n"
	"7:	addl $6f - 7b, (%esp)\n"
	"	ret\n"
	"	ud2\n"
	"6:	pop %edi\n"
	"	ret\n"
	".balign 16\n"
	"guest_irq:\n"
	"	mov %ebp, 12(%ebx)\n"
	"	iret\n"
	"guest_ud:\n"
	"	addl $2, (%esp)\n"
	"	iret\n"
	"guest_end:\n"
	".code64\n"
	".text\n");

extern const uint8_t guest_begin[], guest_irq[], guest_ud[], guest_end[];

#define CODE 0x10000
#define IDT  0x1000
#define GDT  0x2000
#define IRQ  0x40

struct entry {
	uint64_t count, what, value;
};

struct trace {
	struct entry e[4096];
	unsigned n;
};

static struct guest g;
static struct trace *now; /* where callbacks write */

static void note(uint64_t what, uint64_t value)
{
	assert_true(now->n < ARRAY_LEN(now->e));
	now->e[now->n++] = (struct entry){x86_count(g.cpu), what, value};
}

static uint64_t on_tsc(void *ctx)
{
	(void)ctx;
	note(1, 0);
	return x86_count(g.cpu);
}

static void on_write(void *ctx, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)ctx;
	(void)size;
	note(gpa, v);
	if (gpa == GUEST_MMIO) {
		g.irq = IRQ;
		x86_irq_notify(g.cpu);
	}
}

static uint64_t on_read(void *ctx, uint64_t gpa, unsigned size)
{
	(void)ctx;
	(void)size;
	note(gpa, 0);
	g.irq = IRQ;
	x86_irq_notify(g.cpu);
	return 5;
}

static uint32_t on_in(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	(void)size;
	note(2, port);
	x86_kick(g.cpu);
	return (uint32_t)x86_count(g.cpu);
}

static void gate(unsigned vec, const uint8_t *handler)
{
	uint32_t at = CODE + (uint32_t)(handler - guest_begin);
	const uint16_t words[4] = {(uint16_t)at, 8, 0x8e00, (uint16_t)(at >> 16)};

	memcpy(g.ram + IDT + vec * 8, words, 8);
}

/* 32-bit flat code at ring 0 without paging. */
static void make(bool translate)
{
	static const uint64_t gdt[3] = {0, 0x00cf9b000000ffffull,
					0x00cf93000000ffffull};
	struct x86_cpuid leaf[128];
	size_t n = x86_cpuid_supported(leaf, 128);
	struct x86_regs r;
	struct err err;

	guest_new(&g);
	g.ops.tsc = on_tsc;
	g.ops.mmio_write = on_write;
	g.ops.mmio_read = on_read;
	g.ops.pio_in = on_in;
	x86_cpu_free(g.cpu);
	x86_system_free(g.sys);
	g.sys = x86_system_new(&g.ops, &g, NULL);
	assert_non_null(g.sys);
	if (translate)
		assert_int_equal(x86_system_translate(g.sys, 1 << 20, 2), 0);
	assert_int_equal(x86_system_count(g.sys), 0);
	g.cpu = x86_cpu_new(g.sys, 0, &g, leaf, n, &err);
	assert_non_null(g.cpu);
	guest_load(&g, CODE, guest_begin, (size_t)(guest_end - guest_begin));
	memcpy(g.ram + GDT, gdt, sizeof(gdt));
	gate(6, guest_ud);
	gate(IRQ, guest_irq);
	x86_get_regs(g.cpu, &r);
	r.cr0 = 0x11;
	r.gdtr = (struct x86_dtable){GDT, sizeof(gdt) - 1};
	r.idtr = (struct x86_dtable){IDT, 0x7ff};
	for (unsigned s = X86_ES; s <= X86_GS; s++)
		r.seg[s] =
			(struct x86_seg){s == X86_CS ? 8 : 16,
					 s == X86_CS ? 0xc09b : 0xc093, 0xffffffff, 0};
	assert_int_equal(x86_set_regs(g.cpu, &r), 0);
}

static void run(struct trace *t, bool translate, uint64_t slice)
{
	struct x86_stats st;
	unsigned rounds = 0;

	make(translate);
	now = t;
	t->n = 0;
	while (!g.ended) {
		uint64_t before = x86_count(g.cpu);
		enum x86_exit why = x86_run_for(g.cpu, slice);

		assert_true(why == X86_EXIT_COUNT || why == X86_EXIT_KICK);
		/* the delivery of an interrupt may itself fault: not here */
		if (why == X86_EXIT_COUNT)
			assert_int_equal(x86_count(g.cpu) - before, slice);
		assert_true(++rounds < 100000);
	}
	note(3, g.result);
	x86_get_stats(g.cpu, &st);
	assert_int_equal(st.insns, x86_count(g.cpu));
	if (translate && slice > 100)
		assert_true(st.translated > 3 && st.single < st.insns);
	guest_free(&g);
}

static void compare(const struct trace *a, const struct trace *b)
{
	for (unsigned n = 0; n < a->n && n < b->n; n++) {
		assert_int_equal(a->e[n].what, b->e[n].what);
		assert_int_equal(a->e[n].value, b->e[n].value);
		assert_int_equal(a->e[n].count, b->e[n].count);
	}
	assert_int_equal(a->n, b->n);
}

static void test_all_alike(void **state)
{
	static const uint64_t slices[] = {1, 2, 7, 50, 333, 1u << 30};
	static struct trace first, t;

	(void)state;
	run(&first, false, 1);
	assert_true(first.n > 40 * 8);
	for (unsigned n = 0; n < 2 * ARRAY_LEN(slices); n++) {
		run(&t, n & 1, slices[n / 2]);
		compare(&first, &t);
	}
}

/* The interrupt comes behind the instruction that brought it. */
static void test_at_once(void **state)
{
	static struct trace t;
	unsigned seen = 0;

	(void)state;
	run(&t, true, 1u << 30);
	for (unsigned n = 0; n + 1 < t.n; n++) {
		if (t.e[n].what != GUEST_MMIO + 8)
			continue;
		assert_int_equal(t.e[n + 1].what, GUEST_MMIO + 12);
		assert_int_equal(t.e[n + 1].count, t.e[n].count + 1);
		seen++;
	}
	assert_int_equal(seen, 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_alike),
		cmocka_unit_test(test_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
