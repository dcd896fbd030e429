/*
 * dev/uart16550.c - a 16550A serial port.
 *
 * Specification: National Semiconductor PC16550D data sheet. Threads: machine lock held.
 *
 * Bytes leave at once; the transmitter is always empty. Bytes come as fast as the guest takes them;
 * the line rate is used for the FIFO's time-out only. As on a PC, OUT2 gates the interrupt.
 */
#include "dev/uart16550.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"

enum reg { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR, REGS };

enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8 };
/* Bits 3:0 of IIR, highest priority first. */
enum {
	IIR_LINE = 6,
	IIR_RX = 4,
	IIR_TIMEOUT = 12,
	IIR_TX = 2,
	IIR_MODEM = 0,
	IIR_NONE = 1
};
#define IIR_FIFOS 0xc0
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_DMA = 8 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_READY = 1, LSR_OVERRUN = 2, LSR_BREAK = 16, LSR_THRE = 32, LSR_TEMT = 64 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_TERI = 4 };

#define FIFO_SIZE 16
#define CLOCK_HZ  115200u /* / divisor = bits per second */

struct uart16550 {
	uint8_t fifo[FIFO_SIZE]; /* a ring */
	uint8_t head, count;
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
	uint8_t thr_event; /* the transmitter became empty: interrupt not yet seen */
	uint8_t timed_out; /* bytes below the trigger level have waited long enough */
	uint16_t divisor;
	uint64_t last; /* clock time of the last byte in or out of the FIFO */
	struct irq irq;
	struct chr *chr; /* borrowed */
	struct timer timeout;
	struct loop *loop; /* borrowed */
	struct bus *pio;   /* borrowed */
	struct io_range io;
};

/* ---- interrupts ---- */

static unsigned capacity(const struct uart16550 *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct uart16550 *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

static uint8_t identify(const struct uart16550 *u)
{
	if ((u->ier & IER_LINE) && (u->lsr & (LSR_OVERRUN | LSR_BREAK)))
		return IIR_LINE;
	if ((u->ier & IER_RX) && u->count >= trigger_level(u))
		return IIR_RX;
	if ((u->ier & IER_RX) && u->count && u->timed_out)
		return IIR_TIMEOUT;
	if ((u->ier & IER_TX) && u->thr_event)
		return IIR_TX;
	if ((u->ier & IER_MODEM) && (u->msr & 0x0f))
		return IIR_MODEM;
	return IIR_NONE;
}

static void update(struct uart16550 *u)
{
	bool gate = (u->mcr & MCR_OUT2) && !(u->mcr & MCR_LOOP);

	irq_set(&u->irq, gate && identify(u) != IIR_NONE);
}

/* Four character times (start, data, parity, stop bits). */
static uint64_t timeout_ns(const struct uart16550 *u)
{
	uint64_t bits = 10 + (u->lcr & 3);

	return 4 * bits * NS_PER_SEC * (u->divisor ? u->divisor : 1) / CLOCK_HZ;
}

static void arm_timeout(struct uart16550 *u)
{
	if ((u->fcr & FCR_ENABLE) && (u->ier & IER_RX) && u->count && !u->timed_out)
		timer_set(&u->timeout, u->last + timeout_ns(u));
	else
		timer_cancel(&u->timeout);
}

static void on_timeout(void *ctx)
{
	struct uart16550 *u = ctx;

	if (!u->count || clock_now(u->loop) < u->last + timeout_ns(u))
		return;
	u->timed_out = 1;
	update(u);
}

/* A byte went in or out of the FIFO. */
static void touched(struct uart16550 *u)
{
	u->last = clock_now(u->loop);
	u->timed_out = 0;
	u->lsr = u->count ? u->lsr | LSR_READY : u->lsr & ~LSR_READY;
	arm_timeout(u);
	update(u);
}

/* ---- bytes ---- */

static void put(struct uart16550 *u, uint8_t byte)
{
	if (u->count == capacity(u)) {
		u->lsr |= LSR_OVERRUN;
		if (!(u->fcr & FCR_ENABLE)) /* the new byte replaces the old one */
			u->fifo[u->head] = byte;
		return;
	}
	u->fifo[(u->head + u->count++) % FIFO_SIZE] = byte;
}

static size_t room(void *dev)
{
	const struct uart16550 *u = dev;

	return u->mcr & MCR_LOOP ? 0 : capacity(u) - min_u64(u->count, capacity(u));
}

static void receive(void *dev, const uint8_t *p, size_t len)
{
	struct uart16550 *u = dev;

	for (size_t i = 0; i < len; i++)
		put(u, p[i]);
	touched(u);
}

static void poke(struct uart16550 *u)
{
	if (u->chr && u->chr->ops->poke && room(u))
		u->chr->ops->poke(u->chr);
}

static uint8_t get(struct uart16550 *u)
{
	uint8_t byte = u->fifo[u->head];
	bool was_full = u->count >= capacity(u);

	if (!u->count)
		return byte; /* the last byte again, as the hardware gives it */
	if (--u->count)
		u->head = (u->head + 1) % FIFO_SIZE;
	touched(u);
	if (was_full || !u->count)
		poke(u);
	return byte;
}

static void transmit(struct uart16550 *u, uint8_t byte)
{
	if (u->mcr & MCR_LOOP) {
		put(u, byte);
		touched(u);
	} else if (u->chr) {
		u->chr->ops->write(u->chr, &byte, 1);
	}
	u->thr_event = 1;
	update(u);
}

/* ---- registers ---- */

/* Modem inputs: a connected line is always ready; in loopback they are our own outputs. */
static uint8_t modem_inputs(const struct uart16550 *u)
{
	if (!(u->mcr & MCR_LOOP))
		return u->chr ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
	return (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void update_modem(struct uart16550 *u)
{
	uint8_t now = modem_inputs(u), changed = (u->msr ^ now) & 0xf0;
	uint8_t delta = (changed >> 4) & ~MSR_TERI;

	if ((changed & MSR_RI) && !(now & MSR_RI)) /* RI counts when it ends */
		delta |= MSR_TERI;
	u->msr = now | (u->msr & 0x0f) | delta;
}

static void clear_rx(struct uart16550 *u)
{
	u->head = 0;
	u->count = 0;
	u->lsr &= ~LSR_OVERRUN;
	touched(u);
}

static void fcr_write(struct uart16550 *u, uint8_t val)
{
	bool toggled = (u->fcr ^ val) & FCR_ENABLE;

	/* The other bits count only together with the enable bit. */
	u->fcr = val & FCR_ENABLE ? val & (0xc0 | FCR_DMA | FCR_ENABLE) : 0;
	if (toggled || ((val & FCR_ENABLE) && (val & FCR_CLEAR_RX)))
		clear_rx(u);
	arm_timeout(u);
	update(u);
	poke(u);
}

static void ier_write(struct uart16550 *u, uint8_t val)
{
	/* Enabling finds the transmitter empty: an interrupt at once. */
	if ((val & IER_TX) && !(u->ier & IER_TX))
		u->thr_event = 1;
	u->ier = val & 0x0f;
	arm_timeout(u);
	update(u);
}

static void mcr_write(struct uart16550 *u, uint8_t val)
{
	bool left_loop = (u->mcr & MCR_LOOP) && !(val & MCR_LOOP);

	u->mcr = val & 0x1f;
	update_modem(u);
	update(u);
	if (left_loop)
		poke(u);
}

static void lcr_write(struct uart16550 *u, uint8_t val)
{
	/* A break in loopback comes back as one. */
	if ((val & ~u->lcr & LCR_BREAK) && (u->mcr & MCR_LOOP)) {
		put(u, 0);
		u->lsr |= LSR_BREAK;
		touched(u);
	}
	u->lcr = val;
}

static void uart_write(void *dev, uint64_t off, unsigned size, uint64_t val64)
{
	struct uart16550 *u = dev;
	uint8_t val = (uint8_t)val64;

	(void)size;
	if ((u->lcr & LCR_DLAB) && off <= IER) {
		if (off == RBR_THR)
			u->divisor = (u->divisor & 0xff00) | val;
		else
			u->divisor = (uint16_t)((u->divisor & 0xff) | val << 8);
		return;
	}
	switch (off) {
	case RBR_THR: transmit(u, val); break;
	case IER: ier_write(u, val); break;
	case IIR_FCR: fcr_write(u, val); break;
	case LCR: lcr_write(u, val); break;
	case MCR: mcr_write(u, val); break;
	case SCR: u->scr = val; break;
	default: break; /* LSR, MSR: read-only */
	}
}

static uint8_t iir_read(struct uart16550 *u)
{
	uint8_t iir = identify(u);

	if (iir == IIR_TX) { /* seen: gone */
		u->thr_event = 0;
		update(u);
	}
	return iir | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t lsr_read(struct uart16550 *u)
{
	uint8_t lsr = u->lsr;

	if (lsr & (LSR_OVERRUN | LSR_BREAK)) {
		u->lsr &= ~(LSR_OVERRUN | LSR_BREAK);
		update(u);
	}
	return lsr;
}

static uint8_t msr_read(struct uart16550 *u)
{
	uint8_t msr = u->msr;

	if (msr & 0x0f) {
		u->msr &= 0xf0;
		update(u);
	}
	return msr;
}

static uint64_t uart_read(void *dev, uint64_t off, unsigned size)
{
	struct uart16550 *u = dev;

	(void)size;
	if ((u->lcr & LCR_DLAB) && off <= IER)
		return off == RBR_THR ? u->divisor & 0xff : u->divisor >> 8;
	switch (off) {
	case RBR_THR: return get(u);
	case IER: return u->ier;
	case IIR_FCR: return iir_read(u);
	case LCR: return u->lcr;
	case MCR: return u->mcr;
	case LSR: return lsr_read(u);
	case MSR: return msr_read(u);
	default: return u->scr;
	}
}

static const struct io_ops uart_ops = {
	.read = uart_read, .write = uart_write, .min = 1, .max = 1};

/* ---- state ---- */

static const struct state_field fields[] = {
	STATE(struct uart16550, fifo),
	STATE(struct uart16550, head),
	STATE(struct uart16550, count),
	STATE(struct uart16550, ier),
	STATE(struct uart16550, fcr),
	STATE(struct uart16550, lcr),
	STATE(struct uart16550, mcr),
	STATE(struct uart16550, lsr),
	STATE(struct uart16550, msr),
	STATE(struct uart16550, scr),
	STATE(struct uart16550, thr_event),
	STATE(struct uart16550, timed_out),
	STATE(struct uart16550, divisor),
	STATE(struct uart16550, last),
	{0},
};

static int loaded(void *dev)
{
	struct uart16550 *u = dev;

	if (u->head >= FIFO_SIZE || u->count > capacity(u) || u->last > UINT64_MAX / 2)
		return -EINVAL;
	u->lsr = (u->lsr & (LSR_OVERRUN | LSR_BREAK)) | LSR_THRE | LSR_TEMT |
		 (u->count ? LSR_READY : 0);
	arm_timeout(u);
	poke(u);
	return 0;
}

/* ---- public ---- */

void uart16550_reset(struct uart16550 *u)
{
	memset(u->fifo, 0, sizeof(u->fifo));
	u->head = 0;
	u->count = 0;
	u->ier = 0;
	u->fcr = 0;
	u->lcr = 0;
	u->mcr = 0;
	u->scr = 0;
	u->lsr = LSR_THRE | LSR_TEMT;
	u->msr = modem_inputs(u);
	u->thr_event = 0;
	u->timed_out = 0;
	u->divisor = 1;
	timer_cancel(&u->timeout);
	update(u);
	poke(u);
}

void uart16550_free(struct uart16550 *u)
{
	if (!u)
		return;
	timer_cancel(&u->timeout);
	bus_unmap(u->pio, &u->io);
	if (u->chr)
		u->chr->peer = (struct chr_peer){0};
	free(u);
}

struct uart16550 *uart16550_new(const struct vm_env *env, unsigned index, uint16_t base,
				const struct irq *irq, struct chr *chr, struct err *err)
{
	struct uart16550 *u = NEW(struct uart16550);

	if (!u) {
		err_set(err, ENOMEM, "no memory for the serial port");
		return NULL;
	}
	u->pio = env->pio;
	u->loop = env->loop;
	u->irq = *irq;
	u->io = (struct io_range){.ops = &uart_ops, .dev = u, .name = "uart16550"};
	timer_init(&u->timeout, env->loop, on_timeout, u);
	if (bus_map(env->pio, &u->io, base, REGS)) {
		err_set(err, EEXIST, "ports 0x%x to 0x%x are taken: no serial port",
			base, base + REGS - 1);
		uart16550_free(u);
		return NULL;
	}
	if (chr) {
		u->chr = chr;
		chr->peer = (struct chr_peer){room, receive, u};
	}
	uart16550_reset(u);
	state_add(env->state, "uart16550", (int)index, u, fields, NULL, loaded);
	return u;
}
