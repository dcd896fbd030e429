/*
 * dev/ps2_kbd.c - an AT keyboard: scan code sets 1, 2 and 3, all commands of the IBM PS/2 keyboard.
 *
 * Specification: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)".
 * Threads: machine lock held.
 */
#include "dev/ps2.h"

#include <string.h>

#include "base/bits.h"

enum {
	CMD_LEDS = 0xed,
	CMD_ECHO = 0xee,
	CMD_SET = 0xf0,
	CMD_ID = 0xf2,
	CMD_RATE = 0xf3,
	CMD_ENABLE = 0xf4,
	CMD_DISABLE = 0xf5,
	CMD_DEFAULT = 0xf6,
	CMD_ALL_FIRST =
		0xf7, /* F7-FA: all keys of set 3 typematic, make/break, make, both */
	CMD_ALL_LAST = 0xfa,
	CMD_KEY_FIRST = 0xfb, /* FB-FD: the same for single keys */
	CMD_KEY_LAST = 0xfd,
	CMD_RESEND = 0xfe,
	CMD_RESET = 0xff,
};
enum { ACK = 0xfa, RESEND = 0xfe, BAT_OK = 0xaa };

/* Left shift, right shift, left control, right control, left alt, right alt. */
enum { MOD_LSHIFT = 1, MOD_RSHIFT = 2, MOD_CTRL = 0xc, MOD_ALT = 0x30 };

/* Sets 2 and 3 by code of set 1; the second half: the keys with E0. 0: there is no such key. */
/* clang-format off */
static const uint8_t set2[256] = {
	0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
	0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
	0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
	0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
	0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
	0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
	0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f,
	0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
	[0x80 | 0x10] = 0x15, [0x80 | 0x19] = 0x4d, [0x80 | 0x1c] = 0x5a, [0x80 | 0x1d] = 0x14,
	[0x80 | 0x20] = 0x23, [0x80 | 0x21] = 0x2b, [0x80 | 0x22] = 0x34, [0x80 | 0x24] = 0x3b,
	[0x80 | 0x2a] = 0x12, [0x80 | 0x36] = 0x59, [0x80 | 0x46] = 0x7e,
	[0x80 | 0x2e] = 0x21, [0x80 | 0x30] = 0x32, [0x80 | 0x32] = 0x3a, [0x80 | 0x35] = 0x4a,
	[0x80 | 0x37] = 0x7c, [0x80 | 0x38] = 0x11, [0x80 | 0x45] = 0x77, [0x80 | 0x47] = 0x6c,
	[0x80 | 0x48] = 0x75, [0x80 | 0x49] = 0x7d, [0x80 | 0x4b] = 0x6b, [0x80 | 0x4d] = 0x74,
	[0x80 | 0x4f] = 0x69, [0x80 | 0x50] = 0x72, [0x80 | 0x51] = 0x7a, [0x80 | 0x52] = 0x70,
	[0x80 | 0x53] = 0x71, [0x80 | 0x5b] = 0x1f, [0x80 | 0x5c] = 0x27, [0x80 | 0x5d] = 0x2f,
	[0x80 | 0x5e] = 0x37, [0x80 | 0x5f] = 0x3f, [0x80 | 0x63] = 0x5e, [0x80 | 0x65] = 0x10,
	[0x80 | 0x66] = 0x18, [0x80 | 0x67] = 0x20, [0x80 | 0x68] = 0x28, [0x80 | 0x69] = 0x30,
	[0x80 | 0x6a] = 0x38, [0x80 | 0x6b] = 0x40, [0x80 | 0x6c] = 0x48, [0x80 | 0x6d] = 0x50,
};
static const uint8_t set3[256] = {
	0x00, 0x08, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
	0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x11, 0x1c, 0x1b,
	0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5c, 0x1a, 0x22, 0x21, 0x2a,
	0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7e, 0x19, 0x29, 0x14, 0x07, 0x0f, 0x17, 0x1f, 0x27,
	0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x76, 0x5f, 0x6c, 0x75, 0x7d, 0x84, 0x6b, 0x73, 0x74, 0x7c, 0x69,
	0x72, 0x7a, 0x70, 0x71, 0x57, 0x00, 0x13, 0x56, 0x5e,
	[0x80 | 0x1c] = 0x79, [0x80 | 0x1d] = 0x58, [0x80 | 0x35] = 0x77, [0x80 | 0x37] = 0x57,
	[0x80 | 0x38] = 0x39, [0x80 | 0x45] = 0x62, [0x80 | 0x47] = 0x6e, [0x80 | 0x48] = 0x63,
	[0x80 | 0x49] = 0x6f, [0x80 | 0x4b] = 0x61, [0x80 | 0x4d] = 0x6a, [0x80 | 0x4f] = 0x65,
	[0x80 | 0x50] = 0x60, [0x80 | 0x51] = 0x6d, [0x80 | 0x52] = 0x67, [0x80 | 0x53] = 0x64,
	[0x80 | 0x5b] = 0x8b, [0x80 | 0x5c] = 0x8c, [0x80 | 0x5d] = 0x8d,
};
/* clang-format on */

/* ---- the queue ---- */

void ps2_queue_put(struct ps2_queue *q, uint8_t byte)
{
	if (q->count < PS2_QUEUE)
		q->byte[(q->head + q->count++) % PS2_QUEUE] = byte;
}

uint8_t ps2_queue_get(struct ps2_queue *q)
{
	uint8_t byte = q->byte[q->head];

	q->head = (q->head + 1) % PS2_QUEUE;
	q->count--;
	return byte;
}

bool ps2_queue_ok(const struct ps2_queue *q)
{
	return q->head < PS2_QUEUE && q->count <= PS2_QUEUE;
}

/* ---- keys ---- */

/* Bytes of one event; at most 8 (Pause). */
struct event {
	uint8_t byte[8];
	unsigned n;
};

static void add(struct event *e, uint8_t byte)
{
	if (e->n < sizeof(e->byte))
		e->byte[e->n++] = byte;
}

/* One make or break code in set 1 or 2. */
static void add_code(struct event *e, unsigned set, unsigned key, bool down)
{
	unsigned at = (key & 0x7f) | (key & PS2_EXT ? 0x80 : 0);

	if (set == 2 && !set2[at])
		return;
	if (key & PS2_EXT)
		add(e, 0xe0);
	if (set == 1) {
		add(e, (uint8_t)((key & 0x7f) | (down ? 0 : 0x80)));
		return;
	}
	if (!down)
		add(e, 0xf0);
	add(e, set2[at]);
}

static void pause_key(struct event *e, const struct ps2_kbd *k, bool down)
{
	static const uint8_t one[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
	static const uint8_t two[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};

	if (!down)
		return;
	if (k->modifiers & MOD_CTRL) { /* Break */
		add_code(e, k->set, PS2_EXT | 0x46, true);
		add_code(e, k->set, PS2_EXT | 0x46, false);
	} else if (k->set == 1) {
		memcpy(e->byte, one, e->n = sizeof(one));
	} else {
		memcpy(e->byte, two, e->n = sizeof(two));
	}
}

static void print_key(struct event *e, const struct ps2_kbd *k, bool down)
{
	if (k->modifiers & MOD_ALT) { /* SysRq */
		add_code(e, k->set, 0x54, down);
		return;
	}
	/* A fake shift goes around it unless a shift or control key is down. */
	if (k->modifiers) {
		add_code(e, k->set, PS2_PRINT, down);
	} else if (down) {
		add_code(e, k->set, PS2_EXT | 0x2a, true);
		add_code(e, k->set, PS2_PRINT, true);
	} else {
		add_code(e, k->set, PS2_PRINT, false);
		add_code(e, k->set, PS2_EXT | 0x2a, false);
	}
}

static void set3_key(struct event *e, const struct ps2_kbd *k, unsigned key, bool down)
{
	uint8_t code = set3[(key & 0x7f) | (key & PS2_EXT ? 0x80 : 0)];

	if (!code)
		return;
	if (!down) {
		if (k->key_mode[code / 8] & (1u << code % 8))
			return; /* make only */
		add(e, 0xf0);
	}
	add(e, code);
}

static uint8_t modifier(unsigned key)
{
	switch (key) {
	case 0x2a: return MOD_LSHIFT;
	case 0x36: return MOD_RSHIFT;
	case 0x1d: return 0x4;
	case PS2_EXT | 0x1d: return 0x8;
	case 0x38: return 0x10;
	case PS2_EXT | 0x38: return 0x20;
	default: return 0;
	}
}

void ps2_kbd_key(struct ps2_kbd *k, unsigned key, bool down)
{
	struct event e = {.n = 0};
	uint8_t mod = modifier(key);

	k->modifiers = down ? k->modifiers | mod : k->modifiers & ~mod;
	if (!k->enabled || (key & 0x7f) == 0 || key > (PS2_EXT | 0x7f) || (key & 0x80))
		return;
	if (k->set == 3)
		set3_key(&e, k, key, down);
	else if (key == PS2_PAUSE)
		pause_key(&e, k, down);
	else if (key == PS2_PRINT)
		print_key(&e, k, down);
	else
		add_code(&e, k->set, key, down);
	/* Half of the queue stays free for answers; an event goes whole or not at all. */
	if (e.n > ps2_queue_room(&k->out) ||
	    ps2_queue_room(&k->out) - e.n < PS2_QUEUE / 4)
		return;
	for (unsigned i = 0; i < e.n; i++)
		ps2_queue_put(&k->out, e.byte[i]);
}

/* ---- commands ---- */

static void send(struct ps2_kbd *k, uint8_t byte)
{
	k->last = byte;
	ps2_queue_put(&k->out, byte);
}

static void defaults(struct ps2_kbd *k)
{
	k->typematic = 0x2b; /* 10.9 a second after 500 ms */
	k->set = 2;
	k->leds = 0;
	k->command = 0;
	memset(k->key_mode, 0, sizeof(k->key_mode));
}

void ps2_kbd_reset(struct ps2_kbd *k)
{
	uint8_t modifiers = k->modifiers;

	memset(k, 0, sizeof(*k));
	k->modifiers = modifiers;
	defaults(k);
	k->enabled = 1;
}

static void set_argument(struct ps2_kbd *k, uint8_t val)
{
	if (val > 3) {
		send(k, RESEND);
		return;
	}
	send(k, ACK);
	if (val == 0)
		send(k, k->set);
	else
		k->set = val;
}

/* The byte after a command that takes one. */
static void argument(struct ps2_kbd *k, uint8_t val)
{
	uint8_t cmd = k->command;

	k->command = 0;
	switch (cmd) {
	case CMD_LEDS:
		k->leds = val & 7;
		send(k, ACK);
		break;
	case CMD_RATE:
		k->typematic = val & 0x7f;
		send(k, ACK);
		break;
	case CMD_SET: set_argument(k, val); break;
	default: /* single keys of set 3, until the next command */
		k->command = cmd;
		if (cmd == CMD_KEY_FIRST + 1)
			k->key_mode[val / 8] &= ~(1u << val % 8);
		else
			k->key_mode[val / 8] |= (uint8_t)(1u << val % 8);
		send(k, ACK);
		break;
	}
}

static void id(struct ps2_kbd *k)
{
	send(k, ACK);
	send(k, 0xab);
	send(k, 0x83);
}

static void command(struct ps2_kbd *k, uint8_t cmd)
{
	/* A command drops what the keyboard was about to send. */
	if (cmd != CMD_RESEND)
		k->out.count = 0;
	switch (cmd) {
	case CMD_LEDS:
	case CMD_SET:
	case CMD_RATE:
	case CMD_KEY_FIRST ... CMD_KEY_LAST:
		k->command = cmd;
		send(k, ACK);
		break;
	case CMD_ECHO: send(k, CMD_ECHO); break;
	case CMD_ID: id(k); break;
	case CMD_ENABLE:
	case CMD_DISABLE:
		k->enabled = cmd == CMD_ENABLE;
		if (cmd == CMD_DISABLE)
			defaults(k);
		send(k, ACK);
		break;
	case CMD_DEFAULT:
		defaults(k);
		send(k, ACK);
		break;
	case CMD_ALL_FIRST ... CMD_ALL_LAST:
		/* F7 typematic and F9 make-only keys send no break code. */
		memset(k->key_mode, cmd == 0xf7 || cmd == 0xf9 ? 0xff : 0,
		       sizeof(k->key_mode));
		send(k, ACK);
		break;
	case CMD_RESEND: ps2_queue_put(&k->out, k->last); break;
	case CMD_RESET:
		ps2_kbd_reset(k);
		send(k, ACK);
		send(k, BAT_OK);
		break;
	default: send(k, RESEND); break;
	}
}

void ps2_kbd_write(struct ps2_kbd *k, uint8_t byte)
{
	if (k->command && byte < CMD_LEDS)
		argument(k, byte);
	else {
		k->command = 0;
		command(k, byte);
	}
}
