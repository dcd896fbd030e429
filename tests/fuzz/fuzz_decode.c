/*
 * tests/fuzz/fuzz_decode.c - x86_decode() on arbitrary bytes in each mode: what it promises about
 * lengths and fields holds, and more bytes behind an instruction change nothing.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "x86/x86_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_fields(const struct insn *i)
{
	check(i->fn != NULL);
	check(i->asize == 2 || i->asize == 4 || i->asize == 8);
	check(i->base <= R_ZERO && i->index <= R_ZERO && i->scale <= 3);
	check(i->seg <= SEG_FLAT);
	check(i->reg <= R_OFF(15) && i->rm <= R_OFF(15) && i->vvvv <= 30);
	check(i->fn == op_ud || i->fn == op_gp || i->osize);
}

static void decode(const uint8_t *p, unsigned avail, unsigned mode)
{
	unsigned len, again;
	struct insn i, j;
	uint8_t buf[15];

	len = x86_decode(p, avail, mode, &i);
	check(len <= 15 && len <= avail);
	check(len || avail < 15);
	if (!len)
		return;
	check(i.len == len);
	check_fields(&i);
	memset(buf, 0xff, sizeof(buf));
	memcpy(buf, p, len);
	again = x86_decode(buf, sizeof(buf), mode, &j);
	check(again == len && j.fn == i.fn && j.imm == i.imm && j.disp == i.disp &&
	      j.flags == i.flags);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	for (unsigned mode = MODE_16; mode <= MODE_64; mode++) {
		for (size_t k = 0; k < len && k < 256; k++)
			decode(data + k, (unsigned)(len - k < 15 ? len - k : 15), mode);
	}
	return 0;
}
