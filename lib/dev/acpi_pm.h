/*
 * dev/acpi_pm.h - the ACPI power management block: PM timer, power button, sleep, general-purpose
 * events, SCI; laid out as in the ICH9 (q35).
 */
#ifndef DEV_ACPI_PM_H
#define DEV_ACPI_PM_H

#include "vm/env.h"

#define ACPI_PM_BASE \
	0x600 /* PM1 events 0, PM1 control 4, timer 8, GPE0 20h, SMI_EN 30h */
#define ACPI_PM_LEN   0x40
#define ACPI_PM_TIMER 8 /* offset of the timer */
#define ACPI_PM_GPE0 \
	0x20 /* offset of GPE0: ACPI_PM_GPES/8 status bytes, as many enable bytes */
#define ACPI_PM_GPES 64
#define ACPI_SMI_CMD 0xb2 /* port: these values turn ACPI mode (SCI_EN) on and off */
#define ACPI_ENABLE  0x02
#define ACPI_DISABLE 0x03

struct acpi_pm;

struct acpi_pm_user {
	/* The guest set SLP_EN with this SLP_TYP (0-7). Machine lock held; may be any thread. */
	void (*sleep)(void *ctx, unsigned type);
	void *ctx; /* borrowed */
};

/*
 * At port `base` (0: nowhere yet), and ports B2h, B3h. `sci` and `user` are copied; SCI is
 * level-triggered. NULL with *err. Machine lock held for all functions.
 */
struct acpi_pm *acpi_pm_new(const struct vm_env *env, uint16_t base,
			    const struct irq *sci, const struct acpi_pm_user *user,
			    struct err *err);
void acpi_pm_free(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);

/* Where the registers are: the chipset's PMBASE; 0 takes them away. 0 or -errno. */
int acpi_pm_set_base(struct acpi_pm *pm, uint16_t base);
/* ACPI mode without asking through SMI_CMD, for guests that are started without firmware. */
void acpi_pm_set_sci_en(struct acpi_pm *pm, bool on);

/* The power button was pressed. false: the guest does not listen to it. */
bool acpi_pm_power_button(struct acpi_pm *pm);
/* General-purpose event n happened. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);
/* The machine wakes up from sleep: sets WAK_STS, and PWRBTN_STS when the button did it. */
void acpi_pm_wake(struct acpi_pm *pm, bool button);

#endif
