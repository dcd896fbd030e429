/*
 * dev/ps2.h - an AT keyboard and a PS/2 mouse, as the two ports of the i8042 see them.
 */
#ifndef DEV_PS2_H
#define DEV_PS2_H

#include "vm/env.h"

#define PS2_QUEUE 32

/* Bytes on their way to the controller. Input is dropped when full; answers always fit. */
struct ps2_queue {
	uint8_t byte[PS2_QUEUE];
	uint8_t head, count;
};

static inline unsigned ps2_queue_room(const struct ps2_queue *q)
{
	return PS2_QUEUE - q->count;
}

void ps2_queue_put(struct ps2_queue *q, uint8_t byte);
/* The oldest byte, which is there. */
uint8_t ps2_queue_get(struct ps2_queue *q);
/* Restored values: are they possible? */
bool ps2_queue_ok(const struct ps2_queue *q);

struct ps2_kbd {
	struct ps2_queue out;
	uint8_t command;   /* one that waits for its argument; 0: none */
	uint8_t enabled;   /* scanning */
	uint8_t set;       /* scan code set 1-3 */
	uint8_t leds;      /* scroll, num, caps: bits 0-2 */
	uint8_t typematic; /* rate and delay as written */
	uint8_t last;      /* the last byte sent, for "resend" */
	uint8_t modifiers; /* shift and control keys down: Pause and Print change with them */
	uint8_t key_mode
		[32]; /* set 3: bit n of the set of keys that only make, no break */
};

void ps2_kbd_reset(struct ps2_kbd *k);
/* A byte from the controller. */
void ps2_kbd_write(struct ps2_kbd *k, uint8_t byte);
/*
 * A key went down or up: `key` is its code in scan code set 1, + PS2_EXT for the grey keys (E0
 * prefix). Typematic repeat is the caller's: down again.
 */
void ps2_kbd_key(struct ps2_kbd *k, unsigned key, bool down);

#define PS2_EXT   0x100
#define PS2_PAUSE 0x145 /* E1 1D 45: sends make and break at once */
#define PS2_PRINT 0x137

struct ps2_mouse {
	struct ps2_queue out;
	uint8_t command;
	uint8_t enabled; /* data reporting */
	uint8_t remote, wrap, scale2;
	uint8_t resolution, rate;
	uint8_t id;       /* 0, 3 (wheel), 4 (wheel and 5 buttons) */
	uint8_t knock;    /* how much of a sample rate sequence has come */
	uint8_t buttons;  /* bits 0-4: left, right, middle, 4th, 5th */
	uint8_t reported; /* as the guest knows them */
	uint8_t last;
	int32_t dx, dy, dz; /* not yet reported; y grows upwards */
};

void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
/* Moved by dx (right), dy (down), dz (wheel, towards the user); the buttons as they are now. */
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);
/* The controller took a byte: packets that did not fit may now. */
void ps2_mouse_taken(struct ps2_mouse *m);

#endif
