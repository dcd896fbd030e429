/*
 * dev/acpi_pm.c - the ACPI power management block.
 *
 * Specification: ACPI 6.4 chapter 4.8; layout: ICH9 data sheet 13.8.3. There is no SMM: SMI_EN says
 * that its handler is there already (so firmware installs none), and what it would do for SMI_CMD is
 * done here. Threads: machine lock held, but for reads of the timer, which take no lock.
 */
#include "dev/acpi_pm.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"

#define PM_TIMER_HZ   3579545u
#define PM_TIMER_BITS 24

enum {
	PM1_STS = 0,
	PM1_EN = 2,
	PM1_CNT = 4,
	GPE0 = 0x20,
	SMI_EN = 0x30,
	SMI_STS = 0x34
};

enum {
	STS_TIMER = 1 << 0,
	STS_GLOBAL = 1 << 5,
	STS_POWER_BUTTON = 1 << 8,
	STS_SLEEP_BUTTON = 1 << 9,
	STS_RTC = 1 << 10,
	STS_WAKE = 1 << 15,
	/* those with an enable bit */
	EN_MASK =
		STS_TIMER | STS_GLOBAL | STS_POWER_BUTTON | STS_SLEEP_BUTTON | STS_RTC,
};

enum {
	CNT_SCI_EN = 1 << 0,
	CNT_BM_RLD = 1 << 1,
	CNT_SLP_TYPE_SHIFT = 10,
	CNT_SLP_EN = 1 << 13, /* write-only */
	CNT_KEPT = CNT_SCI_EN | CNT_BM_RLD | 7 << CNT_SLP_TYPE_SHIFT,
};

enum { SMI_GLOBAL = 1 << 0, SMI_APMC = 1 << 5 };

struct acpi_pm {
	uint16_t sts, en, cnt;
	uint32_t smi_en, smi_sts;
	uint64_t gpe_sts, gpe_en;
	uint64_t wraps; /* half turns of the timer that STS_TIMER was set for */
	uint8_t apm[2]; /* ports B2h, B3h */
	struct irq sci;
	struct acpi_pm_user user;
	struct timer half; /* the timer's top bit changes */
	struct loop *loop; /* borrowed */
	struct bus *pio;   /* borrowed */
	struct io_range io, io_timer, io_apm;
};

static uint64_t half_turns(const struct acpi_pm *pm)
{
	return clock_ticks(pm->loop, PM_TIMER_HZ) >> (PM_TIMER_BITS - 1);
}

/* Waits for the end of the half turn after `pm->wraps`, if it interrupts. */
static void arm_timer(struct acpi_pm *pm)
{
	unsigned __int128 at = (unsigned __int128)(pm->wraps + 1)
			       << (PM_TIMER_BITS - 1);

	if (pm->en & STS_TIMER)
		timer_set(&pm->half, (uint64_t)(at * NS_PER_SEC / PM_TIMER_HZ) + 1);
	else
		timer_cancel(&pm->half);
}

/* Sets STS_TIMER when the top bit has changed. */
static void check_timer(struct acpi_pm *pm)
{
	uint64_t n = half_turns(pm);

	if (n > pm->wraps)
		pm->sts |= STS_TIMER;
	pm->wraps = n;
	arm_timer(pm);
}

static void update(struct acpi_pm *pm)
{
	bool on = (pm->sts & pm->en & EN_MASK) || (pm->gpe_sts & pm->gpe_en);

	irq_set(&pm->sci, on && (pm->cnt & CNT_SCI_EN));
}

static void on_half(void *ctx)
{
	struct acpi_pm *pm = ctx;

	check_timer(pm);
	update(pm);
}

static void cnt_write(struct acpi_pm *pm, uint16_t val)
{
	pm->cnt = val & CNT_KEPT;
	update(pm);
	if ((val & CNT_SLP_EN) && pm->user.sleep)
		pm->user.sleep(pm->user.ctx, val >> CNT_SLP_TYPE_SHIFT & 7);
}

/* ---- registers: byte by byte, as the blocks may be read in any size ---- */

static uint8_t byte_of(uint64_t v, uint64_t at)
{
	return (uint8_t)(v >> 8 * at);
}

static uint8_t byte_read(struct acpi_pm *pm, uint64_t off)
{
	switch (off) {
	case PM1_STS:
	case PM1_STS + 1: check_timer(pm); return byte_of(pm->sts, off - PM1_STS);
	case PM1_EN:
	case PM1_EN + 1: return byte_of(pm->en, off - PM1_EN);
	case PM1_CNT:
	case PM1_CNT + 1: return byte_of(pm->cnt, off - PM1_CNT);
	case GPE0 ... GPE0 + 7: return byte_of(pm->gpe_sts, off - GPE0);
	case GPE0 + 8 ... GPE0 + 15: return byte_of(pm->gpe_en, off - GPE0 - 8);
	case SMI_EN ... SMI_EN + 3: return byte_of(pm->smi_en, off - SMI_EN);
	case SMI_STS ... SMI_STS + 3: return byte_of(pm->smi_sts, off - SMI_STS);
	default: return 0;
	}
}

static uint64_t put_byte(uint64_t old, uint64_t at, uint8_t val)
{
	return (old & ~(0xffull << 8 * at)) | (uint64_t)val << 8 * at;
}

static void byte_write(struct acpi_pm *pm, uint64_t off, uint8_t val)
{
	switch (off) {
	case PM1_STS:
	case PM1_STS + 1:
		check_timer(pm);
		pm->sts &= ~((uint16_t)val << 8 * off); /* ones clear */
		break;
	case PM1_EN:
	case PM1_EN + 1:
		pm->en = (uint16_t)put_byte(pm->en, off - PM1_EN, val) & EN_MASK;
		check_timer(pm);
		break;
	case PM1_CNT:
	case PM1_CNT + 1:
		cnt_write(pm, (uint16_t)put_byte(pm->cnt, off - PM1_CNT, val));
		return;
	case GPE0 ... GPE0 + 7:
		pm->gpe_sts &= ~((uint64_t)val << 8 * (off - GPE0));
		break;
	case GPE0 + 8 ... GPE0 + 15:
		pm->gpe_en = put_byte(pm->gpe_en, off - GPE0 - 8, val);
		break;
	case SMI_EN ... SMI_EN + 3:
		pm->smi_en =
			(uint32_t)put_byte(pm->smi_en, off - SMI_EN, val) | SMI_APMC;
		break;
	case SMI_STS ... SMI_STS + 3:
		pm->smi_sts &= ~((uint32_t)val << 8 * (off - SMI_STS));
		break;
	default: break;
	}
	update(pm);
}

static uint64_t pm_read(void *dev, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)byte_read(dev, off + i) << 8 * i;
	return v;
}

static void pm_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	/* The control register's halves belong together: SLP_TYP and SLP_EN are one write. */
	if (off == PM1_CNT && size >= 2) {
		cnt_write(dev, (uint16_t)val);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		byte_write(dev, off + i, (uint8_t)(val >> 8 * i));
}

static uint64_t timer_read(void *dev, uint64_t off, unsigned size)
{
	const struct acpi_pm *pm = dev;

	(void)off;
	(void)size;
	return clock_ticks(pm->loop, PM_TIMER_HZ) & (BIT(PM_TIMER_BITS) - 1);
}

static uint64_t apm_read(void *dev, uint64_t off, unsigned size)
{
	const struct acpi_pm *pm = dev;

	(void)size;
	return pm->apm[off];
}

static void apm_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct acpi_pm *pm = dev;

	(void)size;
	pm->apm[off] = (uint8_t)val;
	if (off != 0)
		return;
	if (val == ACPI_ENABLE)
		acpi_pm_set_sci_en(pm, true);
	else if (val == ACPI_DISABLE)
		acpi_pm_set_sci_en(pm, false);
}

static const struct io_ops pm_ops = {
	.read = pm_read, .write = pm_write, .min = 1, .max = 4};
static const struct io_ops timer_ops = {
	.read = timer_read, .min = 4, .max = 4, .unlocked = true};
static const struct io_ops apm_ops = {
	.read = apm_read, .write = apm_write, .min = 1, .max = 1};

/* ---- state ---- */

static const struct state_field fields[] = {
	STATE(struct acpi_pm, sts),     STATE(struct acpi_pm, en),
	STATE(struct acpi_pm, cnt),     STATE(struct acpi_pm, smi_en),
	STATE(struct acpi_pm, smi_sts), STATE(struct acpi_pm, gpe_sts),
	STATE(struct acpi_pm, gpe_en),  STATE(struct acpi_pm, wraps),
	STATE(struct acpi_pm, apm),     {0},
};

static int loaded(void *dev)
{
	struct acpi_pm *pm = dev;

	pm->en &= EN_MASK;
	pm->cnt &= CNT_KEPT;
	pm->wraps &= UINT64_MAX >> PM_TIMER_BITS;
	arm_timer(pm);
	update(pm);
	return 0;
}

/* ---- public ---- */

int acpi_pm_set_base(struct acpi_pm *pm, uint16_t base)
{
	int rc;

	if (pm->io.mapped && pm->io.base == base)
		return 0;
	bus_unmap(pm->pio, &pm->io);
	bus_unmap(pm->pio, &pm->io_timer);
	if (!base)
		return 0;
	rc = bus_map(pm->pio, &pm->io, base, ACPI_PM_LEN);
	if (!rc)
		rc = bus_map(pm->pio, &pm->io_timer, base + ACPI_PM_TIMER, 4);
	if (rc)
		bus_unmap(pm->pio, &pm->io);
	return rc;
}

void acpi_pm_set_sci_en(struct acpi_pm *pm, bool on)
{
	pm->cnt = on ? pm->cnt | CNT_SCI_EN : pm->cnt & ~CNT_SCI_EN;
	update(pm);
}

bool acpi_pm_power_button(struct acpi_pm *pm)
{
	pm->sts |= STS_POWER_BUTTON;
	update(pm);
	return (pm->en & STS_POWER_BUTTON) && (pm->cnt & CNT_SCI_EN);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
	if (n >= ACPI_PM_GPES)
		return;
	pm->gpe_sts |= BIT(n);
	update(pm);
}

void acpi_pm_wake(struct acpi_pm *pm, bool button)
{
	pm->sts |= STS_WAKE | (button ? STS_POWER_BUTTON : 0);
	update(pm);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pm->sts = 0;
	pm->en = 0;
	pm->cnt = 0;
	pm->smi_en = SMI_GLOBAL | SMI_APMC;
	pm->smi_sts = 0;
	pm->gpe_sts = 0;
	pm->gpe_en = 0;
	pm->apm[0] = 0;
	pm->apm[1] = 0;
	pm->wraps = half_turns(pm);
	timer_cancel(&pm->half);
	update(pm);
}

void acpi_pm_free(struct acpi_pm *pm)
{
	if (!pm)
		return;
	timer_cancel(&pm->half);
	bus_unmap(pm->pio, &pm->io);
	bus_unmap(pm->pio, &pm->io_timer);
	bus_unmap(pm->pio, &pm->io_apm);
	free(pm);
}

struct acpi_pm *acpi_pm_new(const struct vm_env *env, uint16_t base,
			    const struct irq *sci, const struct acpi_pm_user *user,
			    struct err *err)
{
	struct acpi_pm *pm = NEW(struct acpi_pm);

	if (!pm) {
		err_set(err, ENOMEM, "no memory for power management");
		return NULL;
	}
	pm->pio = env->pio;
	pm->loop = env->loop;
	pm->sci = *sci;
	if (user)
		pm->user = *user;
	pm->io = (struct io_range){.ops = &pm_ops, .dev = pm, .name = "acpi_pm"};
	pm->io_timer = (struct io_range){
		.ops = &timer_ops, .dev = pm, .name = "pm_timer", .priority = 1};
	pm->io_apm = (struct io_range){.ops = &apm_ops, .dev = pm, .name = "apm"};
	timer_init(&pm->half, env->loop, on_half, pm);
	acpi_pm_reset(pm);
	if (acpi_pm_set_base(pm, base) || bus_map(env->pio, &pm->io_apm, 0xb2, 2)) {
		err_set(err, EEXIST, "power management's ports are taken");
		acpi_pm_free(pm);
		return NULL;
	}
	state_add(env->state, "acpi_pm", -1, pm, fields, NULL, loaded);
	return pm;
}
