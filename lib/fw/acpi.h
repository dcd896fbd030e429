/*
 * fw/acpi.h - the ACPI tables of a board (ACPI 6.3), made of what the board says it has.
 *
 * One thread, before the processors start.
 */
#ifndef FW_ACPI_H
#define FW_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vm/ram.h"

#define ACPI_MAX_CPUS    255
#define ACPI_MAX_WINDOWS 4
#define ACPI_PCI_SLOTS   32

/* A range of addresses; len 0: absent. */
struct acpi_range {
	uint64_t base, len;
};

/*
 * Everything about the board. Zero means absent, save where a default is named; start from
 * acpi_config_q35().
 */
struct acpi_config {
	unsigned n_cpus; /* APIC ids 0 .. n_cpus - 1 */

	/* Power management: FADT and its I/O ports. */
	uint16_t pm_base;   /* PM1a event block; control at +4, timer at +8 */
	uint16_t gpe0_base; /* 0: no general-purpose events */
	uint8_t gpe0_len;   /* bytes, status and enable together */
	bool pm_timer_32;   /* the timer counts 32 bits, else 24 */
	uint8_t sci;        /* ISA interrupt 1-15 of the SCI, level, active high */
	uint8_t s5_type;    /* SLP_TYP of soft-off */
	uint16_t smi_port;  /* 0: ACPI mode is always on */
	uint8_t acpi_enable, acpi_disable;
	bool reset_cf9; /* port CF9h resets with 6 */

	/* Interrupts. */
	uint32_t ioapic_base; /* 0: no I/O APIC, PIC mode only */
	bool pic;             /* an 8259 pair is there */
	/* Where pin A-D of a device in slot s of bus 0 goes: PIRQ 0-7 (A-H). */
	uint8_t pirq[ACPI_PCI_SLOTS][4];
	unsigned n_pirqs;     /* 4 or 8; 0: no link devices */
	uint8_t pirq_gsi;     /* PIRQ A's I/O APIC input; the others follow */
	bool pirq_apic_links; /* in APIC mode, too, PIRQs go to ISA interrupts (PIIX) */
	uint8_t pirq_dev,
		pirq_fn; /* the PCI function on bus 0 with the PIRQ registers at 60h, 68h */

	/* PCI. */
	bool pcie;              /* root bus is PCI Express (PNP0A08) */
	struct acpi_range ecam; /* 1 MiB a bus */
	uint8_t last_bus;       /* buses 0 .. last_bus */
	struct acpi_range
		io[ACPI_MAX_WINDOWS]; /* I/O ports the host bridge passes on */
	struct acpi_range mmio[ACPI_MAX_WINDOWS]; /* memory below 4 GiB */
	struct acpi_range mmio64;                 /* above */

	/* Devices at their usual places. */
	uint32_t hpet_base; /* fed00000h */
	unsigned n_serial;  /* COM1-COM4 */
	bool i8042, rtc, pit, dma, speaker, vga;
	uint16_t pvpanic_port; /* 505h */
	uint16_t debug_port;   /* 0402h: reserved, so that nothing is put there */

	/* For XP-era systems: RSDT only, FADT revision 1, Processor objects. */
	bool acpi1;
};

/* The q35 board: everything of it that is fixed; CPUs and memory windows are the caller's. */
void acpi_config_q35(struct acpi_config *cfg);

#define ACPI_MAX_TABLES 12

struct acpi_table {
	char name[8];    /* "FACP", "DSDT", "RSDP" */
	size_t off, len; /* within the blob */
};

/* Zero-initialise. */
struct acpi_tables {
	uint8_t *blob; /* owned */
	size_t len;
	uint64_t base; /* its guest address */
	uint64_t rsdp; /* guest address of the RSDP: the blob's start */
	struct acpi_table table[ACPI_MAX_TABLES];
	unsigned n_tables;
};

/*
 * Builds all tables for guest address `base` (a multiple of 64; e0000h-fffffh, so that the RSDP is also found by
 * search). 0; -EINVAL (a configuration that makes no sense), -ENOMEM. `out` is the caller's
 * to acpi_tables_fini().
 */
int acpi_build(const struct acpi_config *cfg, uint64_t base, struct acpi_tables *out,
	       struct err *err);

/* Copies them to their place in guest memory. 0, -ENOSPC (no RAM there). */
int acpi_place(const struct acpi_tables *t, struct ram *ram, struct err *err);

void acpi_tables_fini(struct acpi_tables *t);

#endif
