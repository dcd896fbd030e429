/*
 * fw/entry.c - the processor state a kernel is entered with, and the tables it needs in memory.
 *
 * Linux: Documentation/arch/x86/boot.rst, "32-bit boot protocol" and "64-bit boot protocol".
 * Descriptors and paging: SDM 3A 3.4.5, 4.5. One thread, before the processors run.
 */
#include <inttypes.h>

#include "fw/kernel_int.h"

#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS  0x20

/* Segment attributes: descriptor bits 40-47 and 52-55 << 8. */
enum {
	ATTR_CODE32 =
		0xc09b, /* present, 4 KiB units, 32-bit, execute, read, accessed */
	ATTR_CODE64 = 0xa09b,
	ATTR_DATA = 0xc093, /* read, write, accessed */
	ATTR_TSS = 0x008b,  /* busy; 32- and 64-bit are the same type */
	ATTR_LDT = 0x0082,
};

enum {
	CR0_PE = 1,
	CR0_ET = 1 << 4,
	CR4_PAE = 1 << 5,
	EFER_LME = 1 << 8,
	EFER_LMA = 1 << 10,
};

#define CR0_PG 0x80000000ull

enum { PTE_P = 1, PTE_W = 2, PTE_PS = 1 << 7 };

#define ENTRIES  512 /* of a page table */
#define MAPPED_G 4   /* GiB that are mapped */

/* A descriptor with base 0 of the whole address space. */
static le64 flat_descriptor(uint64_t attr)
{
	return le64_make(0xffff | (attr & 0xf0ff) << 40 | 0xfull << 48);
}

static void set_seg(struct cpu_state *c, unsigned id, uint16_t sel, uint16_t attr,
		    uint32_t limit)
{
	c->seg[id] = (struct cpu_seg){.sel = sel, .attr = attr, .limit = limit};
}

/*
 * Virtual wire mode (MultiProcessor Specification 1.4, 3.6.2.2): firmware leaves the local APIC such that
 * the 8259's interrupts come through it, for kernels that know no APIC.
 */
static void set_virtual_wire(struct cpu_state *c)
{
	enum { SVR = 0xf0, LINT0 = 0x350, LINT1 = 0x360 };
	const le32 on = le32_make(0x1ff), extint = le32_make(0x700);
	const le32 nmi = le32_make(0x400);

	memcpy(c->lapic + SVR, &on, sizeof(on));
	memcpy(c->lapic + LINT0, &extint, sizeof(extint));
	memcpy(c->lapic + LINT1, &nmi, sizeof(nmi));
}

/* What both modes share: segments, descriptor tables, cleared registers. */
static int set_common(struct boot *b, uint16_t code, uint64_t rip, struct err *err)
{
	struct cpu_state *c = b->cpu;
	le64 gdt[5] = {{{0}}};
	uint64_t gpa;
	int rc;

	if (!e820_all(b->in->e820, rip, 1, E820_RAM))
		return err_set(err, ENOEXEC,
			       "'%s' starts at 0x%" PRIx64 ", where there is no memory",
			       b->in->name, rip);
	gdt[SEL_CODE / 8] = flat_descriptor(code);
	gdt[SEL_DATA / 8] = flat_descriptor(ATTR_DATA);
	/* A TSS of 68h bytes at 0 that nobody reads: VMX wants the register to hold one. */
	gdt[SEL_TSS / 8] = le64_make(0x67 | (uint64_t)ATTR_TSS << 40);
	rc = place_low(b, gdt, sizeof(gdt), 8, "descriptor table", &gpa, err);
	if (rc)
		return rc;
	memset(c->gpr, 0, sizeof(c->gpr));
	c->rip = rip;
	c->rflags = 2;
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		set_seg(c, i, SEL_DATA, ATTR_DATA, UINT32_MAX);
	set_seg(c, SEG_CS, SEL_CODE, code, UINT32_MAX);
	set_seg(c, SEG_TR, SEL_TSS, ATTR_TSS, 0x67);
	set_seg(c, SEG_LDTR, 0, ATTR_LDT, 0xffff);
	c->gdtr = (struct cpu_dtable){gpa, sizeof(gdt) - 1};
	c->idtr = (struct cpu_dtable){0, 0};
	c->cr2 = c->cr3 = c->cr4 = 0;
	c->cr0 = CR0_PE | CR0_ET;
	c->efer = 0;
	c->mp = CPU_RUNNING;
	set_virtual_wire(c);
	b->info->entry = rip;
	return 0;
}

int entry_flat32(struct boot *b, uint64_t rip, struct err *err)
{
	return set_common(b, ATTR_CODE32, rip, err);
}

/* PML4, PDPT and a page directory a GiB of 2 MiB pages. */
static int put_page_tables(struct boot *b, uint64_t *gpa, struct err *err)
{
	le64 t[2 + MAPPED_G][ENTRIES];
	int rc = place_low(b, NULL, sizeof(t), PAGE, "page tables", gpa, err);

	if (rc)
		return rc;
	memset(t, 0, sizeof(t));
	t[0][0] = le64_make((*gpa + PAGE) | PTE_P | PTE_W);
	for (uint64_t g = 0; g < MAPPED_G; g++) {
		t[1][g] = le64_make((*gpa + (2 + g) * PAGE) | PTE_P | PTE_W);
		for (uint64_t i = 0; i < ENTRIES; i++)
			t[2 + g][i] =
				le64_make(g << 30 | i << 21 | PTE_P | PTE_W | PTE_PS);
	}
	return place_copy(b, *gpa, t, sizeof(t), err);
}

int entry_long64(struct boot *b, uint64_t rip, struct err *err)
{
	struct cpu_state *c = b->cpu;
	uint64_t cr3;
	int rc;

	if (rip >= (uint64_t)MAPPED_G << 30)
		return err_set(err, ENOEXEC,
			       "'%s' starts above 4 GiB, at 0x%" PRIx64
			       ": not supported",
			       b->in->name, rip);
	rc = put_page_tables(b, &cr3, err);
	if (!rc)
		rc = set_common(b, ATTR_CODE64, rip, err);
	if (rc)
		return rc;
	c->cr3 = cr3;
	c->cr4 = CR4_PAE;
	c->efer = EFER_LME | EFER_LMA;
	c->cr0 = CR0_PG | CR0_PE | CR0_ET;
	return 0;
}
