/* tests/unit/test_dev_i8042.c - keyboard controller, keyboard and mouse as drivers talk to them. */
#include "machine.h"

#include <stdio.h>

#include "dev/i8042.h"

#define KBD 1
#define AUX 12

struct fixture {
	struct machine m;
	struct i8042 *k;
	unsigned resets;
	bool a20;
};

static void on_reset(void *ctx)
{
	((struct fixture *)ctx)->resets++;
}

static void on_a20(void *ctx, bool on)
{
	((struct fixture *)ctx)->a20 = on;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct i8042_user user = {on_reset, on_a20, f};
	struct irq kbd, aux;

	machine_init(&f->m);
	kbd = machine_irq(&f->m, KBD);
	aux = machine_irq(&f->m, AUX);
	f->k = i8042_new(&f->m.env, &kbd, &aux, &user, NULL);
	assert_non_null(f->k);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	i8042_free(f->k);
	machine_fini(&f->m);
	free(f);
	return 0;
}

/* All bytes that come, as text: "fa aa"; a mouse's bytes with a '+'. */
static const char *bytes(struct fixture *f)
{
	static char text[256];
	size_t n = 0;
	unsigned st;

	text[0] = 0;
	while ((st = inb(&f->m, 0x64)) & 1 && n < sizeof(text) - 8)
		n += (size_t)sprintf(text + n, "%s%s%02x", n ? " " : "",
				     st & 0x20 ? "+" : "", inb(&f->m, 0x60));
	return text;
}

static const char *to_kbd(struct fixture *f, unsigned byte)
{
	outb(&f->m, 0x60, byte);
	return bytes(f);
}

static const char *to_aux(struct fixture *f, unsigned byte)
{
	outb(&f->m, 0x64, 0xd4);
	outb(&f->m, 0x60, byte);
	return bytes(f);
}

static void test_controller(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	outb(m, 0x64, 0xaa);
	assert_string_equal(bytes(f), "55");
	outb(m, 0x64, 0xab);
	assert_string_equal(bytes(f), "00");
	outb(m, 0x64, 0xa9);
	assert_string_equal(bytes(f), "00");
	outb(m, 0x64, 0x60);
	outb(m, 0x60, 0x47);
	outb(m, 0x64, 0x20);
	assert_string_equal(bytes(f), "47");
	outb(m, 0x64, 0xa7);
	outb(m, 0x64, 0x20);
	assert_string_equal(bytes(f), "67");
	outb(m, 0x64, 0xa8);
	/* Linux looks for the mouse port by looping a byte back. */
	outb(m, 0x64, 0xd3);
	outb(m, 0x60, 0x5a);
	assert_true(m->line[AUX]);
	assert_string_equal(bytes(f), "+5a");
	assert_false(m->line[AUX]);
	outb(m, 0x64, 0xd2);
	outb(m, 0x60, 0xa5);
	assert_true(m->line[KBD]);
	assert_string_equal(bytes(f), "a5");
	outb(m, 0x64, 0x63); /* the controller's memory */
	outb(m, 0x60, 0x12);
	outb(m, 0x64, 0x23);
	assert_string_equal(bytes(f), "12");
}

static void test_lines(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	assert_true(f->a20);
	outb(m, 0x64, 0xdd);
	assert_false(f->a20);
	outb(m, 0x64, 0xd0);
	assert_int_equal(inb(m, 0x60) & 3, 1);
	outb(m, 0x64, 0xd1);
	outb(m, 0x60, 0xdf);
	assert_true(f->a20);
	outb(m, 0x64, 0xff);
	assert_int_equal(f->resets, 0);
	outb(m, 0x64, 0xfe);
	assert_int_equal(f->resets, 1);
	outb(m, 0x64, 0xd1);
	outb(m, 0x60, 0xde);
	assert_int_equal(f->resets, 2);
}

static void test_keyboard(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(to_kbd(f, 0xff), "fa aa");
	assert_string_equal(to_kbd(f, 0xf2), "fa ab 41"); /* 83h, translated */
	assert_string_equal(to_kbd(f, 0xee), "ee");
	assert_string_equal(to_kbd(f, 0xed), "fa");
	assert_string_equal(to_kbd(f, 0x05), "fa");
	assert_int_equal(i8042_leds(f->k), 5);
	assert_string_equal(to_kbd(f, 0xf3), "fa");
	assert_string_equal(to_kbd(f, 0x20), "fa");
	assert_string_equal(to_kbd(f, 0xf0), "fa");
	assert_string_equal(to_kbd(f, 0x00), "fa 41"); /* set 2, translated */
	assert_string_equal(to_kbd(f, 0xf5), "fa");
	i8042_key(f->k, 0x1e, true);
	assert_string_equal(bytes(f), "");
	assert_string_equal(to_kbd(f, 0xf4), "fa");
	assert_string_equal(to_kbd(f, 0x99), "fe");
	assert_string_equal(to_kbd(f, 0xfe), "fe"); /* resend */
}

/* With translation on, every key comes as its set 1 code. */
static void test_translation(void **state)
{
	struct fixture *f = *state;

	for (unsigned key = 1; key < 0x59; key++) {
		char want[16];

		if (key == 0x55)
			continue; /* there is no such key */
		snprintf(want, sizeof(want), "%02x %02x", key, key | 0x80);
		i8042_key(f->k, key, true);
		i8042_key(f->k, key, false);
		assert_string_equal(bytes(f), want);
	}
	i8042_key(f->k, PS2_EXT | 0x48, true);
	i8042_key(f->k, PS2_EXT | 0x48, false);
	assert_string_equal(bytes(f), "e0 48 e0 c8");
	i8042_key(f->k, PS2_PAUSE, true);
	i8042_key(f->k, PS2_PAUSE, false);
	assert_string_equal(bytes(f), "e1 1d 45 e1 9d c5");
	i8042_key(f->k, PS2_PRINT, true);
	i8042_key(f->k, PS2_PRINT, false);
	assert_string_equal(bytes(f), "e0 2a e0 37 e0 b7 e0 aa");
	i8042_key(f->k, 0x38, true);
	i8042_key(f->k, PS2_PRINT, true);
	assert_string_equal(bytes(f), "38 54");
	i8042_key(f->k, PS2_PRINT, false);
	i8042_key(f->k, 0x38, false);
	i8042_key(f->k, 0x1d, true);
	bytes(f);
	i8042_key(f->k, PS2_PAUSE, true);
	assert_string_equal(bytes(f), "e0 46 e0 c6");
}

static void test_sets(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	outb(m, 0x64, 0x60); /* no translation */
	outb(m, 0x60, 0x03);
	i8042_key(f->k, 0x41, true);
	i8042_key(f->k, 0x41, false);
	assert_string_equal(bytes(f), "83 f0 83");
	i8042_key(f->k, PS2_EXT | 0x1d, true);
	i8042_key(f->k, PS2_EXT | 0x1d, false);
	assert_string_equal(bytes(f), "e0 14 e0 f0 14");
	to_kbd(f, 0xf0);
	assert_string_equal(to_kbd(f, 3), "fa");
	i8042_key(f->k, PS2_EXT | 0x48, true);
	i8042_key(f->k, PS2_EXT | 0x48, false);
	assert_string_equal(bytes(f), "63 f0 63");
	to_kbd(f, 0xf9); /* all keys make only */
	i8042_key(f->k, 0x1e, true);
	i8042_key(f->k, 0x1e, false);
	assert_string_equal(bytes(f), "1c");
	to_kbd(f, 0xfc); /* but this one */
	to_kbd(f, 0x1c);
	to_kbd(f, 0xf4);
	i8042_key(f->k, 0x1e, true);
	i8042_key(f->k, 0x1e, false);
	assert_string_equal(bytes(f), "1c f0 1c");
	to_kbd(f, 0xf0);
	assert_string_equal(to_kbd(f, 1), "fa");
	i8042_key(f->k, 0x1e, true);
	i8042_key(f->k, 0x1e, false);
	assert_string_equal(bytes(f), "1e 9e");
}

static void test_mouse(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(to_aux(f, 0xff), "+fa +aa +00");
	assert_string_equal(to_aux(f, 0xf2), "+fa +00");
	assert_string_equal(to_aux(f, 0xe9), "+fa +00 +02 +64");
	i8042_mouse(f->k, 5, 5, 0, 1);
	assert_string_equal(bytes(f), ""); /* not enabled */
	i8042_mouse(f->k, 0, 0, 0, 0);
	assert_string_equal(to_aux(f, 0xf4), "+fa");
	i8042_mouse(f->k, 3, -2, 0, 0);
	assert_true(f->m.line[AUX]);
	assert_string_equal(bytes(f), "+08 +03 +02");
	i8042_mouse(f->k, -300, 0, 0, 2);
	assert_string_equal(bytes(f), "+1a +01 +00 +1a +d3 +00");
	/* The wheel, then five buttons. */
	to_aux(f, 0xf3), to_aux(f, 200), to_aux(f, 0xf3), to_aux(f, 100);
	to_aux(f, 0xf3), to_aux(f, 80);
	assert_string_equal(to_aux(f, 0xf2), "+fa +03");
	i8042_mouse(f->k, 0, 0, -1, 2);
	assert_string_equal(bytes(f), "+0a +00 +00 +ff");
	to_aux(f, 0xf3), to_aux(f, 200), to_aux(f, 0xf3), to_aux(f, 200);
	to_aux(f, 0xf3), to_aux(f, 80);
	assert_string_equal(to_aux(f, 0xf2), "+fa +04");
	i8042_mouse(f->k, 0, 0, 1, 0x10);
	assert_string_equal(bytes(f), "+08 +00 +00 +21");
	/* Remote mode answers when asked; wrap mode echoes. */
	to_aux(f, 0xf0);
	i8042_mouse(f->k, 1, -1, 0, 0);
	assert_string_equal(bytes(f), "");
	assert_string_equal(to_aux(f, 0xeb), "+fa +08 +01 +01 +00");
	to_aux(f, 0xee);
	assert_string_equal(to_aux(f, 0x42), "+42");
	assert_string_equal(to_aux(f, 0xec), "+fa");
}

/* However much comes, answers to commands have room and nothing overflows. */
static void test_flood(void **state)
{
	struct fixture *f = *state;

	to_aux(f, 0xf4);
	for (unsigned i = 0; i < 1000; i++) {
		i8042_key(f->k, PS2_PAUSE, true);
		i8042_mouse(f->k, 100, 100, 1, i);
	}
	while (*bytes(f))
		;
	assert_string_equal(to_kbd(f, 0xf2), "fa ab 41");
}

static void test_save(void **state)
{
	struct fixture *f = *state;
	struct str s;

	i8042_key(f->k, 0x1e, true);
	i8042_key(f->k, 0x30, true);
	outb(&f->m, 0x64, 0xd4); /* the argument comes after restoring */
	s = machine_save(&f->m);
	i8042_reset(f->k);
	assert_string_equal(bytes(f), "");
	machine_load(&f->m, &s);
	outb(&f->m, 0x60, 0xf2);
	assert_string_equal(bytes(f), "1e 30 +fa +00");
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_controller),  T(test_lines), T(test_keyboard),
		T(test_translation), T(test_sets),  T(test_mouse),
		T(test_flood),       T(test_save),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
