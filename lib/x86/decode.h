/* x86/decode.h - between decode.c and block.c. Private to lib/x86. */
#ifndef X86_DECODE_H
#define X86_DECODE_H

#include "x86/x86_int.h"

/* Beside MODE_*: 32-bit code, and DS, ES, SS are flat, writable and SS 32 bits wide. */
enum { DECODE_FLAT_DATA = 8 };

/*
 * As x86_decode(), and `mode` may have DECODE_FLAT_DATA: operands there are not checked (SEG_FLAT); for
 * an instruction that lies `off` bytes behind the start of its block: its rip-relative operands and near branches are made relative to the block's start (R_BLOCK), which
 * the handlers of branches rely on. off < 0: x86_decode().
 */
unsigned decode_at(const uint8_t *p, unsigned avail, unsigned mode, int off,
		   struct insn *i);

#endif
