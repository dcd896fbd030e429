/*
 * fw/aml.h - writes ACPI machine language (ACPI 6.3, 20): what opens a package (scope, device,
 * method, if ...) is closed by aml_end(); operators are written in prefix order, as in the byte code.
 * Any thread, one writer per thread.
 */
#ifndef FW_AML_H
#define FW_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define AML_MAX_DEPTH 16

/* Zero-initialise; out is the caller's to str_fini(). */
struct aml {
	struct str out;
	size_t open[AML_MAX_DEPTH]; /* where each open package's length goes */
	unsigned depth;
};

/* Operators; their operands follow. */
enum aml_op {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_STORE = 0x70,        /* source, target */
	AML_AND = 0x7b,          /* a, b, target */
	AML_OR = 0x7d,           /* a, b, target */
	AML_CREATE_DWORD = 0x8a, /* buffer, byte offset, name */
	AML_NOT = 0x92,          /* logical; a */
	AML_EQUAL = 0x93,        /* a, b */
	AML_RETURN = 0xa4,       /* value */
};

enum aml_space { AML_SYSTEM_MEMORY, AML_SYSTEM_IO, AML_PCI_CONFIG };

/* Opening; paths: "PCI0", "\\_SB.PCI0", "^X"; segments of up to 4 characters. */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_processor(struct aml *a, const char *name, uint8_t id);
void aml_method(struct aml *a, const char *name, unsigned n_args, bool serialized);
void aml_package(struct aml *a, uint8_t n);
void aml_if(struct aml *a); /* the predicate follows */
void aml_else(struct aml *a);
/* Byte access, no lock, other bits preserved; field units follow. */
void aml_field(struct aml *a, const char *region);
void aml_end(struct aml *a);

/* Within a field. */
void aml_unit(struct aml *a, const char *name, unsigned bits);
void aml_unit_skip(struct aml *a, unsigned bits);

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t off,
		uint64_t len);
void aml_name(struct aml *a,
	      const char *name); /* Name(name, ...): the object follows */

/* Operands and data. */
void aml_op(struct aml *a, enum aml_op op);
void aml_ref(struct aml *a, const char *path);
void aml_arg(struct aml *a, unsigned n);
void aml_local(struct aml *a, unsigned n);
void aml_int(struct aml *a, uint64_t v);
void aml_text(struct aml *a, const char *s);
void aml_eisa(struct aml *a, const char *id); /* "PNP0A08" as a number (19.3.4) */
void aml_buffer(struct aml *a, const void *p, size_t len);

/* Shorthands: Name(name, value). */
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_eisa(struct aml *a, const char *name, const char *id);
void aml_name_text(struct aml *a, const char *name, const char *s);

/* ---- resource templates (6.4) ---- */

/* Zero-initialise; emitted, and emptied, by aml_name_res(). */
struct aml_res {
	uint8_t b[1024];
	size_t len;
};

enum aml_res_kind { AML_RES_MEMORY, AML_RES_IO, AML_RES_BUS };

void aml_res_io(struct aml_res *r, uint16_t port, uint8_t len);
void aml_res_irq(struct aml_res *r, unsigned irq); /* ISA: edge, active high */
void aml_res_dma(struct aml_res *r, unsigned channel);
void aml_res_mem32(struct aml_res *r, uint32_t base, uint32_t len);
/* A window that a bridge passes on, in the narrowest descriptor of at least `min_bytes`. */
void aml_res_window(struct aml_res *r, enum aml_res_kind kind, unsigned min_bytes,
		    uint64_t base, uint64_t len);
/* Level-triggered, active low, shared: any of the interrupts in the mask. */
void aml_res_pci_irq(struct aml_res *r, uint32_t mask);
void aml_name_res(struct aml *a, const char *name, struct aml_res *r);

#endif
