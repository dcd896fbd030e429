/*
 * dev/i8042.c - the keyboard controller of a PC.
 *
 * Specification: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller". Threads: machine lock held.
 *
 * One byte at a time is in the output buffer; the next one comes when it was read: first the
 * controller's own answers, then the keyboard's bytes, then the mouse's.
 */
#include "dev/i8042.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"

/* Status register. */
enum { ST_OUT = 1, ST_SYS = 4, ST_CMD = 8, ST_UNLOCKED = 0x10, ST_AUX = 0x20 };
/* Configuration byte. */
enum {
	CF_KBD_IRQ = 1,
	CF_AUX_IRQ = 2,
	CF_SYS = 4,
	CF_KBD_OFF = 0x10,
	CF_AUX_OFF = 0x20,
	CF_TRANSLATE = 0x40,
};
/* Output port. */
enum {
	OP_RUN = 1,
	OP_A20 = 2,
	OP_AUX_CLOCK = 4,
	OP_KBD_FULL = 0x10,
	OP_AUX_FULL = 0x20
};
#define OP_RESET_VALUE 0xc3 /* lines high: running, A20 on */

enum {
	CMD_READ_RAM = 0x20, /* and 1fh more */
	CMD_WRITE_RAM = 0x60,
	CMD_AUX_OFF = 0xa7,
	CMD_AUX_ON = 0xa8,
	CMD_AUX_TEST = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_KBD_TEST = 0xab,
	CMD_KBD_OFF = 0xad,
	CMD_KBD_ON = 0xae,
	CMD_READ_INPUT = 0xc0,
	CMD_READ_OUTPUT = 0xd0,
	CMD_WRITE_OUTPUT = 0xd1,
	CMD_WRITE_KBD_BUF = 0xd2,
	CMD_WRITE_AUX_BUF = 0xd3,
	CMD_WRITE_AUX = 0xd4,
	CMD_A20_OFF = 0xdd,
	CMD_A20_ON = 0xdf,
	CMD_READ_TEST = 0xe0,
	CMD_PULSE = 0xf0, /* and 0fh more: bits 0-3 that are 0 are pulsed low */
};

/* Where the byte in the output buffer came from. */
enum { FROM_NOWHERE, FROM_SELF, FROM_KBD, FROM_AUX };

struct i8042 {
	uint8_t ram[32]; /* [0] is the configuration byte */
	uint8_t source;  /* of `data`: FROM_NOWHERE = the output buffer is empty */
	uint8_t data;
	uint8_t last_was_command; /* status bit 3 */
	uint8_t pending;          /* the command that the next data byte belongs to */
	uint8_t output;           /* port */
	uint8_t break_code;       /* translation: F0 came */
	uint8_t answer, has_answer, answer_aux;
	struct ps2_kbd kbd;
	struct ps2_mouse mouse;
	struct irq kbd_irq, mouse_irq;
	struct i8042_user user;
	struct bus *pio; /* borrowed */
	struct io_range io_data, io_command;
};

/* Set 2 to set 1, as the controller translates (IBM, "Scan Code Translation"). */
/* clang-format off */
static const uint8_t translation[128] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
	0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
	0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
	0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
	0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
	0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};
/* clang-format on */

/* ---- the output buffer ---- */

/* The translated byte, or -1 for the F0 that changes the next one. */
static int translate(struct i8042 *k, uint8_t b)
{
	uint8_t v;

	if (!(k->ram[0] & CF_TRANSLATE))
		return b;
	if (b == 0xf0) {
		k->break_code = 1;
		return -1;
	}
	v = b < 0x80 ? translation[b] : b == 0x83 ? 0x41 : b == 0x84 ? 0x54 : b;
	if (k->break_code)
		v |= 0x80;
	k->break_code = 0;
	return v;
}

static void put(struct i8042 *k, uint8_t source, uint8_t data)
{
	k->source = source;
	k->data = data;
}

/* Fills the empty output buffer. */
static void refill(struct i8042 *k)
{
	if (k->has_answer) {
		put(k, k->answer_aux ? FROM_AUX : FROM_SELF, k->answer);
		k->has_answer = 0;
		return;
	}
	while (k->kbd.out.count && !(k->ram[0] & CF_KBD_OFF)) {
		int b = translate(k, ps2_queue_get(&k->kbd.out));

		if (b >= 0) {
			put(k, FROM_KBD, (uint8_t)b);
			return;
		}
	}
	if (k->mouse.out.count && !(k->ram[0] & CF_AUX_OFF)) {
		put(k, FROM_AUX, ps2_queue_get(&k->mouse.out));
		ps2_mouse_taken(&k->mouse);
	}
}

static void update(struct i8042 *k)
{
	bool aux;

	if (k->source == FROM_NOWHERE)
		refill(k);
	aux = k->source == FROM_AUX;
	k->output &= ~(OP_KBD_FULL | OP_AUX_FULL);
	if (k->source != FROM_NOWHERE)
		k->output |= aux ? OP_AUX_FULL : OP_KBD_FULL;
	irq_set(&k->kbd_irq, (k->output & OP_KBD_FULL) && (k->ram[0] & CF_KBD_IRQ));
	irq_set(&k->mouse_irq, (k->output & OP_AUX_FULL) && (k->ram[0] & CF_AUX_IRQ));
}

/* The controller's own answer; it has room for one. */
static void answer(struct i8042 *k, uint8_t val, bool aux)
{
	k->answer = val;
	k->answer_aux = aux;
	k->has_answer = 1;
}

/* ---- output port ---- */

static void output_write(struct i8042 *k, uint8_t val)
{
	uint8_t changed = k->output ^ val;

	k->output = (k->output & (OP_KBD_FULL | OP_AUX_FULL)) |
		    (val & ~(OP_KBD_FULL | OP_AUX_FULL)) | OP_RUN;
	if ((changed & OP_A20) && k->user.a20)
		k->user.a20(k->user.ctx, val & OP_A20);
	if (!(val & OP_RUN) && k->user.reset)
		k->user.reset(k->user.ctx);
}

/* ---- commands ---- */

static void self_test(struct i8042 *k)
{
	k->ram[0] = (k->ram[0] & (CF_TRANSLATE | CF_KBD_IRQ | CF_AUX_IRQ)) | CF_SYS |
		    CF_KBD_OFF | CF_AUX_OFF;
	k->pending = 0;
	answer(k, 0x55, false);
}

static void command(struct i8042 *k, uint8_t cmd)
{
	k->pending = 0;
	switch (cmd) {
	case CMD_READ_RAM ... CMD_READ_RAM + 0x1f:
		answer(k, k->ram[cmd & 0x1f], false);
		break;
	case CMD_WRITE_RAM ... CMD_WRITE_RAM + 0x1f:
	case CMD_WRITE_OUTPUT:
	case CMD_WRITE_KBD_BUF:
	case CMD_WRITE_AUX_BUF:
	case CMD_WRITE_AUX: k->pending = cmd; break;
	case CMD_AUX_OFF: k->ram[0] |= CF_AUX_OFF; break;
	case CMD_AUX_ON: k->ram[0] &= ~CF_AUX_OFF; break;
	case CMD_KBD_OFF: k->ram[0] |= CF_KBD_OFF; break;
	case CMD_KBD_ON: k->ram[0] &= ~CF_KBD_OFF; break;
	case CMD_AUX_TEST:
	case CMD_KBD_TEST: answer(k, 0, false); break;
	case CMD_SELF_TEST: self_test(k); break;
	case CMD_READ_INPUT: answer(k, 0xb0, false); break; /* keyboard not locked */
	case CMD_READ_OUTPUT: answer(k, k->output, false); break;
	case CMD_A20_OFF: output_write(k, k->output & ~OP_A20); break;
	case CMD_A20_ON: output_write(k, k->output | OP_A20); break;
	case CMD_READ_TEST: answer(k, 0, false); break;
	case CMD_PULSE ... CMD_PULSE + 0x0f:
		if (!(cmd & OP_RUN) && k->user.reset)
			k->user.reset(k->user.ctx);
		break;
	default: break; /* as the hardware: no answer */
	}
}

static void data_write(struct i8042 *k, uint8_t val)
{
	uint8_t cmd = k->pending;

	k->pending = 0;
	switch (cmd) {
	case 0: /* to the keyboard, whose interface it enables */
		k->ram[0] &= ~CF_KBD_OFF;
		k->break_code = 0;
		ps2_kbd_write(&k->kbd, val);
		break;
	case CMD_WRITE_AUX:
		k->ram[0] &= ~CF_AUX_OFF;
		ps2_mouse_write(&k->mouse, val);
		break;
	case CMD_WRITE_OUTPUT: output_write(k, val); break;
	case CMD_WRITE_KBD_BUF: answer(k, val, false); break;
	case CMD_WRITE_AUX_BUF: answer(k, val, true); break;
	default: k->ram[cmd & 0x1f] = val; break;
	}
}

/* ---- ports ---- */

static uint64_t read_data(void *dev, uint64_t off, unsigned size)
{
	struct i8042 *k = dev;
	uint8_t val = k->data;

	(void)off;
	(void)size;
	if (k->source != FROM_NOWHERE) {
		k->source = FROM_NOWHERE;
		/* The line goes down between two bytes: each is an edge. */
		irq_set(&k->kbd_irq, false);
		irq_set(&k->mouse_irq, false);
		update(k);
	}
	return val;
}

static uint64_t read_status(void *dev, uint64_t off, unsigned size)
{
	const struct i8042 *k = dev;
	uint8_t st = ST_UNLOCKED | (k->last_was_command ? ST_CMD : 0) |
		     (k->ram[0] & CF_SYS ? ST_SYS : 0);

	(void)off;
	(void)size;
	if (k->source != FROM_NOWHERE)
		st |= ST_OUT;
	if (k->source == FROM_AUX)
		st |= ST_AUX;
	return st;
}

static void write_data(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct i8042 *k = dev;

	(void)off;
	(void)size;
	k->last_was_command = 0;
	data_write(k, (uint8_t)val);
	update(k);
}

static void write_command(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct i8042 *k = dev;

	(void)off;
	(void)size;
	k->last_was_command = 1;
	command(k, (uint8_t)val);
	update(k);
}

static const struct io_ops data_ops = {
	.read = read_data, .write = write_data, .min = 1, .max = 1};
static const struct io_ops command_ops = {
	.read = read_status, .write = write_command, .min = 1, .max = 1};

/* ---- state ---- */

static const struct state_field fields[] = {
	STATE(struct i8042, ram),
	STATE(struct i8042, source),
	STATE(struct i8042, data),
	STATE(struct i8042, last_was_command),
	STATE(struct i8042, pending),
	STATE(struct i8042, output),
	STATE(struct i8042, break_code),
	STATE(struct i8042, answer),
	STATE(struct i8042, has_answer),
	STATE(struct i8042, answer_aux),
	STATE(struct i8042, kbd.out.byte),
	STATE(struct i8042, kbd.out.head),
	STATE(struct i8042, kbd.out.count),
	STATE(struct i8042, kbd.command),
	STATE(struct i8042, kbd.enabled),
	STATE(struct i8042, kbd.set),
	STATE(struct i8042, kbd.leds),
	STATE(struct i8042, kbd.typematic),
	STATE(struct i8042, kbd.last),
	STATE(struct i8042, kbd.modifiers),
	STATE(struct i8042, kbd.key_mode),
	STATE(struct i8042, mouse.out.byte),
	STATE(struct i8042, mouse.out.head),
	STATE(struct i8042, mouse.out.count),
	STATE(struct i8042, mouse.command),
	STATE(struct i8042, mouse.enabled),
	STATE(struct i8042, mouse.remote),
	STATE(struct i8042, mouse.wrap),
	STATE(struct i8042, mouse.scale2),
	STATE(struct i8042, mouse.resolution),
	STATE(struct i8042, mouse.rate),
	STATE(struct i8042, mouse.id),
	STATE(struct i8042, mouse.knock),
	STATE(struct i8042, mouse.buttons),
	STATE(struct i8042, mouse.reported),
	STATE(struct i8042, mouse.last),
	STATE(struct i8042, mouse.dx),
	STATE(struct i8042, mouse.dy),
	STATE(struct i8042, mouse.dz),
	{0},
};

static int loaded(void *dev)
{
	struct i8042 *k = dev;

	if (!ps2_queue_ok(&k->kbd.out) || !ps2_queue_ok(&k->mouse.out) ||
	    k->source > FROM_AUX || k->kbd.set < 1 || k->kbd.set > 3)
		return -EINVAL;
	if (k->mouse.id != 0 && k->mouse.id != 3 && k->mouse.id != 4)
		return -EINVAL;
	if (k->user.a20)
		k->user.a20(k->user.ctx, k->output & OP_A20);
	return 0;
}

/* ---- public ---- */

void i8042_key(struct i8042 *k, unsigned key, bool down)
{
	ps2_kbd_key(&k->kbd, key, down);
	update(k);
}

void i8042_mouse(struct i8042 *k, int dx, int dy, int dz, unsigned buttons)
{
	ps2_mouse_move(&k->mouse, dx, dy, dz, buttons);
	update(k);
}

unsigned i8042_leds(const struct i8042 *k)
{
	return k->kbd.leds;
}

void i8042_reset(struct i8042 *k)
{
	memset(k->ram, 0, sizeof(k->ram));
	k->ram[0] = CF_SYS | CF_TRANSLATE | CF_KBD_IRQ | CF_AUX_IRQ;
	k->source = FROM_NOWHERE;
	k->data = 0;
	k->last_was_command = 0;
	k->pending = 0;
	k->output = OP_RESET_VALUE;
	k->break_code = 0;
	k->has_answer = 0;
	ps2_kbd_reset(&k->kbd);
	ps2_mouse_reset(&k->mouse);
	update(k);
	if (k->user.a20)
		k->user.a20(k->user.ctx, true);
}

void i8042_free(struct i8042 *k)
{
	if (!k)
		return;
	bus_unmap(k->pio, &k->io_data);
	bus_unmap(k->pio, &k->io_command);
	free(k);
}

struct i8042 *i8042_new(const struct vm_env *env, const struct irq *kbd_irq,
			const struct irq *mouse_irq, const struct i8042_user *user,
			struct err *err)
{
	struct i8042 *k = NEW(struct i8042);

	if (!k) {
		err_set(err, ENOMEM, "no memory for the keyboard controller");
		return NULL;
	}
	k->pio = env->pio;
	k->kbd_irq = *kbd_irq;
	k->mouse_irq = *mouse_irq;
	if (user)
		k->user = *user;
	k->io_data = (struct io_range){.ops = &data_ops, .dev = k, .name = "i8042"};
	k->io_command =
		(struct io_range){.ops = &command_ops, .dev = k, .name = "i8042"};
	i8042_reset(k);
	if (bus_map(env->pio, &k->io_data, 0x60, 1) ||
	    bus_map(env->pio, &k->io_command, 0x64, 1)) {
		err_set(err, EEXIST, "the keyboard controller's ports are taken");
		i8042_free(k);
		return NULL;
	}
	state_add(env->state, "i8042", -1, k, fields, NULL, loaded);
	return k;
}
