/*
 * dev/ps2_mouse.c - a PS/2 mouse with wheel and five buttons (IntelliMouse Explorer).
 *
 * Specification: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; the wheel: Microsoft,
 * "Device Class Power Management / IntelliMouse protocol". Threads: machine lock held.
 */
#include "dev/ps2.h"

#include <string.h>

#include "base/bits.h"

enum {
	CMD_SCALE1 = 0xe6,
	CMD_SCALE2 = 0xe7,
	CMD_RESOLUTION = 0xe8,
	CMD_STATUS = 0xe9,
	CMD_STREAM = 0xea,
	CMD_READ = 0xeb,
	CMD_UNWRAP = 0xec,
	CMD_WRAP = 0xee,
	CMD_REMOTE = 0xf0,
	CMD_ID = 0xf2,
	CMD_RATE = 0xf3,
	CMD_ENABLE = 0xf4,
	CMD_DISABLE = 0xf5,
	CMD_DEFAULT = 0xf6,
	CMD_RESEND = 0xfe,
	CMD_RESET = 0xff,
};
enum { ACK = 0xfa, RESEND = 0xfe, BAD = 0xfc, BAT_OK = 0xaa };
enum { PACKET_ONE = 8, PACKET_XNEG = 0x10, PACKET_YNEG = 0x20 };

#define MAX_MOTION 4096 /* of one report that waits; hosts may send any number */

static void send(struct ps2_mouse *m, uint8_t byte)
{
	m->last = byte;
	ps2_queue_put(&m->out, byte);
}

/* Takes up to +-limit off *v. */
static int take(int32_t *v, int limit)
{
	int n = *v > limit ? limit : *v < -limit ? -limit : *v;

	*v -= n;
	return n;
}

/* "2:1 scaling" of stream mode; it is not linear (IBM). */
static int scaled(const struct ps2_mouse *m, int v)
{
	static const uint8_t small[6] = {0, 1, 1, 3, 6, 9};
	int a = v < 0 ? -v : v;

	if (!m->scale2 || m->remote)
		return v;
	a = a < 6 ? small[a] : 2 * a;
	return v < 0 ? -a : a;
}

static void packet(struct ps2_mouse *m)
{
	int limit = m->scale2 && !m->remote ? 127 : 255;
	int x = scaled(m, take(&m->dx, limit)), y = scaled(m, take(&m->dy, limit));
	int z = m->id ? take(&m->dz, m->id == 4 ? 7 : 127) : 0;

	send(m, (uint8_t)(PACKET_ONE | (m->buttons & 7) | (x < 0 ? PACKET_XNEG : 0) |
			  (y < 0 ? PACKET_YNEG : 0)));
	send(m, (uint8_t)x);
	send(m, (uint8_t)y);
	if (m->id == 3)
		send(m, (uint8_t)z);
	else if (m->id == 4)
		send(m, (uint8_t)((z & 15) | (m->buttons & 0x18) << 1));
	m->reported = m->buttons;
}

static bool has_news(const struct ps2_mouse *m)
{
	uint8_t known = m->id == 4 ? 0x1f : 7;

	return m->dx || m->dy || (m->id && m->dz) ||
	       ((m->buttons ^ m->reported) & known);
}

/* Reports in stream mode as far as there is room; a quarter of the queue is for answers. */
static void stream(struct ps2_mouse *m)
{
	while (m->enabled && !m->remote && !m->wrap && has_news(m) &&
	       ps2_queue_room(&m->out) >= PS2_QUEUE / 4 + 4)
		packet(m);
}

void ps2_mouse_taken(struct ps2_mouse *m)
{
	if (!m->out.count)
		stream(m);
}

static int32_t bounded(int64_t v)
{
	return v > MAX_MOTION ? MAX_MOTION : v < -MAX_MOTION ? -MAX_MOTION : (int32_t)v;
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
	if (m->enabled || m->remote) {
		m->dx = bounded((int64_t)m->dx + dx);
		m->dy = bounded((int64_t)m->dy - dy);
		m->dz = bounded((int64_t)m->dz + dz);
	}
	m->buttons = buttons & 0x1f;
	/* Motion waits for the last report to be read; a button never gets lost in it. */
	if (!m->out.count || m->buttons != m->reported)
		stream(m);
}

/* ---- commands ---- */

static void defaults(struct ps2_mouse *m)
{
	m->rate = 100;
	m->resolution = 2;
	m->scale2 = 0;
	m->remote = 0;
	m->wrap = 0;
	m->enabled = 0;
	m->dx = 0;
	m->dy = 0;
	m->dz = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
	uint8_t buttons = m->buttons;

	memset(m, 0, sizeof(*m));
	m->buttons = buttons;
	m->reported = buttons;
	defaults(m);
}

/* The sample rates 200, 100, 80 turn the wheel on; 200, 200, 80 five buttons as well. */
static void knock(struct ps2_mouse *m, uint8_t rate)
{
	enum { NOTHING, GOT_200, GOT_200_100, GOT_200_200 };

	switch (rate) {
	case 200: m->knock = m->knock == GOT_200 ? GOT_200_200 : GOT_200; break;
	case 100: m->knock = m->knock == GOT_200 ? GOT_200_100 : NOTHING; break;
	case 80:
		if (m->knock == GOT_200_100)
			m->id = 3;
		else if (m->knock == GOT_200_200)
			m->id = 4;
		m->knock = NOTHING;
		break;
	default: m->knock = NOTHING; break;
	}
}

static void argument(struct ps2_mouse *m, uint8_t val)
{
	uint8_t cmd = m->command;

	m->command = 0;
	if (cmd == CMD_RATE) {
		m->rate = val;
		knock(m, val);
	} else if (val > 3) {
		send(m, BAD);
		return;
	} else {
		m->resolution = val;
	}
	send(m, ACK);
}

static void status(struct ps2_mouse *m)
{
	uint8_t b = m->buttons;

	send(m, ACK);
	send(m, (uint8_t)(m->remote << 6 | m->enabled << 5 | m->scale2 << 4 |
			  (b & 1) << 2 | (b & 4) >> 1 | (b & 2) >> 1));
	send(m, m->resolution);
	send(m, m->rate);
}

static void set_mode(struct ps2_mouse *m, uint8_t cmd)
{
	switch (cmd) {
	case CMD_SCALE1: m->scale2 = 0; break;
	case CMD_SCALE2: m->scale2 = 1; break;
	case CMD_STREAM: m->remote = 0; break;
	case CMD_REMOTE: m->remote = 1; break;
	case CMD_WRAP: m->wrap = 1; break;
	case CMD_UNWRAP: m->wrap = 0; break;
	case CMD_ENABLE: m->enabled = 1; break;
	case CMD_DISABLE: m->enabled = 0; break;
	default: defaults(m); break;
	}
	m->dx = 0;
	m->dy = 0;
	m->dz = 0;
	m->reported = m->buttons;
	send(m, ACK);
}

static void command(struct ps2_mouse *m, uint8_t cmd)
{
	if (cmd != CMD_RESEND)
		m->out.count = 0;
	switch (cmd) {
	case CMD_RESOLUTION:
	case CMD_RATE:
		m->command = cmd;
		send(m, ACK);
		break;
	case CMD_STATUS: status(m); break;
	case CMD_READ:
		send(m, ACK);
		packet(m);
		break;
	case CMD_ID:
		send(m, ACK);
		send(m, m->id);
		break;
	case CMD_SCALE1:
	case CMD_SCALE2:
	case CMD_STREAM:
	case CMD_REMOTE:
	case CMD_WRAP:
	case CMD_UNWRAP:
	case CMD_ENABLE:
	case CMD_DISABLE:
	case CMD_DEFAULT: set_mode(m, cmd); break;
	case CMD_RESEND: ps2_queue_put(&m->out, m->last); break;
	case CMD_RESET:
		ps2_mouse_reset(m);
		send(m, ACK);
		send(m, BAT_OK);
		send(m, m->id);
		break;
	default: send(m, RESEND); break;
	}
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
	if (m->wrap && byte != CMD_UNWRAP && byte != CMD_RESET)
		send(m, byte); /* echo */
	else if (m->command)
		argument(m, byte);
	else
		command(m, byte);
}
