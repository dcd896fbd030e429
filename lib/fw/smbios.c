/*
 * fw/smbios.c - what the guest is told about the computer.
 *
 * DMTF DSP0134 3.0, 5.2 (entry points), 7 (structures). One thread, before the processors start.
 */
#include "fw/smbios.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/str.h"
#include "vm/dma.h"

#define MAX_STRINGS 16
#define MAX_TEXT    64 /* 6.1.3: at most 64 significant characters */
#define MAX_CPUS    256

/* Handles; structures of which there are several count up. */
enum {
	HANDLE_BIOS = 0x0000,
	HANDLE_SYSTEM = 0x0100,
	HANDLE_CHASSIS = 0x0300,
	HANDLE_CPU = 0x0400,
	HANDLE_ARRAY = 0x1000,
	HANDLE_DIMM = 0x1100,
	HANDLE_MAP = 0x1300,
	HANDLE_BOOT = 0x2000,
	HANDLE_END = 0x7f00,
	HANDLE_NONE = 0xfffe,
};

struct entry_2 {
	uint8_t anchor[4], sum, len, major, minor;
	le16 max_size;
	uint8_t revision, formatted[5];
	uint8_t dmi[5], dmi_sum; /* "_DMI_": the older entry point */
	le16 table_len;
	le32 table;
	le16 n;
	uint8_t bcd;
};

struct entry_3 {
	uint8_t anchor[5], sum, len, major, minor, docrev, revision, reserved;
	le32 max_len;
	le64 table;
};

static_assert(sizeof(struct entry_2) == 31, "as DSP0134 5.2.1 has it");
static_assert(sizeof(struct entry_3) == 24, "as DSP0134 5.2.2 has it");

struct build {
	const struct smbios_config *cfg;
	struct str out; /* the structures */
	size_t at;      /* the open structure */
	const char *text[MAX_STRINGS];
	unsigned n_text, n;
	size_t max_size;
};

/* ---- one structure ---- */

static void put(struct build *b, uint64_t v, unsigned bytes)
{
	str_add(&b->out, &v, bytes);
}

static void begin(struct build *b, uint8_t type, unsigned handle)
{
	b->at = b->out.len;
	b->n_text = 0;
	put(b, type, 1);
	put(b, 0, 1); /* length */
	put(b, handle, 2);
}

/* A string's number (0: none); the strings follow the formatted part. */
static void text(struct build *b, const char *s)
{
	if (!s || !*s || b->n_text == MAX_STRINGS) {
		put(b, 0, 1);
		return;
	}
	b->text[b->n_text++] = s;
	put(b, b->n_text, 1);
}

static void end(struct build *b)
{
	if (b->out.failed)
		return;
	b->out.p[b->at + 1] = (char)(b->out.len - b->at);
	for (unsigned i = 0; i < b->n_text; i++) {
		str_add(&b->out, b->text[i], strnlen(b->text[i], MAX_TEXT));
		put(b, 0, 1);
	}
	put(b, 0, b->n_text ? 1 : 2);
	b->max_size = max_u64(b->max_size, b->out.len - b->at);
	b->n++;
}

/* ---- the structures ---- */

static void bios(struct build *b)
{
	begin(b, 0, HANDLE_BIOS);
	text(b, b->cfg->bios_vendor);
	text(b, b->cfg->bios_version);
	put(b, 0xe000, 2); /* the segment it starts at */
	text(b, b->cfg->bios_date);
	put(b, 1, 1);      /* (n + 1) * 64 KiB */
	put(b, BIT(7), 8); /* PCI */
	put(b, 0x01, 1);   /* ACPI */
	put(b, 0x14, 1);   /* a virtual machine; targeted content distribution */
	put(b, 0, 2);      /* release */
	put(b, 0xffff, 2); /* no embedded controller */
	end(b);
}

/* The first three fields of a UUID are little-endian here (7.2.1). */
static void put_uuid(struct build *b, const uint8_t uuid[16])
{
	static const uint8_t order[16] = {3, 2, 1,  0,  5,  4,  7,  6,
					  8, 9, 10, 11, 12, 13, 14, 15};

	for (unsigned i = 0; i < 16; i++)
		put(b, uuid[order[i]], 1);
}

static void computer(struct build *b)
{
	const struct smbios_config *c = b->cfg;

	begin(b, 1, HANDLE_SYSTEM);
	text(b, c->manufacturer);
	text(b, c->product);
	text(b, c->version);
	text(b, c->serial);
	put_uuid(b, c->uuid);
	put(b, 6, 1); /* woken by the power switch */
	text(b, c->sku);
	text(b, c->family);
	end(b);
}

static void chassis(struct build *b)
{
	const struct smbios_config *c = b->cfg;

	begin(b, 3, HANDLE_CHASSIS);
	text(b, c->chassis_manufacturer);
	put(b, 1, 1); /* type: other */
	put(b, 0, 1); /* version */
	text(b, c->chassis_serial);
	text(b, c->chassis_asset);
	put(b, 0x03030303, 4); /* boot, power, heat: safe; security: none */
	put(b, 0, 4);
	put(b, 0, 4); /* height, cords, contained elements and their length */
	put(b, 0, 1); /* SKU */
	end(b);
}

static void processor(struct build *b, unsigned i)
{
	const struct smbios_config *c = b->cfg;

	begin(b, 4, HANDLE_CPU + i);
	put(b, 0, 1); /* socket */
	put(b, 3, 1); /* central processor */
	put(b, 1, 1); /* family: other */
	text(b, c->cpu_manufacturer);
	put(b, 0, 8); /* id */
	text(b, c->cpu_version);
	put(b, 0, 1); /* voltage */
	put(b, 0, 2); /* external clock */
	put(b, c->cpu_mhz, 2);
	put(b, c->cpu_mhz, 2);
	put(b, 0x41, 1); /* populated, enabled */
	put(b, 1, 1);    /* upgrade: other */
	put(b, 0xffff, 2);
	put(b, 0xffff, 2); /* no cache information */
	put(b, 0xffff, 2);
	put(b, 0, 3); /* serial, asset, part */
	put(b, 1, 1); /* cores, enabled, threads */
	put(b, 1, 1);
	put(b, 1, 1);
	put(b, 0x04, 2); /* 64-bit */
	put(b, 1, 2);    /* family 2 */
	put(b, 1, 2);    /* 3.0: cores, enabled, threads again */
	put(b, 1, 2);
	put(b, 1, 2);
	end(b);
}

/* One array with one module of all the memory. */
static void memory(struct build *b)
{
	uint64_t mib = b->cfg->memory >> 20, kib = b->cfg->memory >> 10;
	bool extended = mib >= 0x7fff;

	begin(b, 16, HANDLE_ARRAY);
	put(b, 1,
	    1); /* location: other; use: system memory; error correction: multi-bit */
	put(b, 3, 1);
	put(b, 6, 1);
	put(b, kib < 0x80000000 ? kib : 0x80000000, 4);
	put(b, HANDLE_NONE, 2);
	put(b, 1, 2);
	put(b, kib < 0x80000000 ? 0 : b->cfg->memory, 8);
	end(b);

	begin(b, 17, HANDLE_DIMM);
	put(b, HANDLE_ARRAY, 2);
	put(b, HANDLE_NONE, 2);
	put(b, 0xffff, 2); /* widths */
	put(b, 0xffff, 2);
	put(b, extended ? 0x7fff : mib, 2);
	put(b, 9, 1); /* DIMM */
	put(b, 0, 1); /* of no set */
	text(b, "DIMM 0");
	put(b, 0, 1);
	put(b, 7, 1);    /* RAM */
	put(b, 0x02, 2); /* other */
	put(b, 0, 2);    /* speed */
	text(b, b->cfg->manufacturer);
	put(b, 0, 3); /* serial, asset, part */
	put(b, 0, 1); /* rank */
	put(b, extended ? mib & 0x7fffffff : 0, 4);
	put(b, 0, 2); /* configured speed */
	put(b, 0, 6); /* voltages */
	end(b);
}

/* Where an array's memory appears: `base` and `len` in bytes. */
static void memory_map(struct build *b, unsigned i, uint64_t base, uint64_t len)
{
	uint64_t first = base >> 10, last = (base + len - 1) >> 10;
	bool extended = last >= UINT32_MAX;

	begin(b, 19, HANDLE_MAP + i);
	put(b, extended ? UINT32_MAX : first, 4);
	put(b, extended ? UINT32_MAX : last, 4);
	put(b, HANDLE_ARRAY, 2);
	put(b, 1, 1);
	put(b, extended ? base : 0, 8);
	put(b, extended ? base + len - 1 : 0, 8);
	end(b);
}

static void structures(struct build *b)
{
	const struct smbios_config *c = b->cfg;
	uint64_t above = c->memory - c->below_4g;

	bios(b);
	computer(b);
	chassis(b);
	for (unsigned i = 0; i < c->n_cpus; i++)
		processor(b, i);
	memory(b);
	memory_map(b, 0, 0, c->below_4g);
	if (above)
		memory_map(b, 1, BIT(32), above);
	begin(b, 32, HANDLE_BOOT);
	put(b, 0, 6);
	put(b, 0, 1); /* no errors */
	end(b);
	begin(b, 127, HANDLE_END);
	end(b);
}

/* ---- entry points ---- */

static uint8_t checksum(const void *p, size_t len)
{
	const uint8_t *x = p;
	uint8_t sum = 0;

	while (len--)
		sum += *x++;
	return (uint8_t)-sum;
}

static void put_entry_2(const struct build *b, uint64_t table, struct entry_2 *e)
{
	*e = (struct entry_2){
		.anchor = {'_', 'S', 'M', '_'},
		.len = sizeof(*e),
		.major = 2,
		.minor = 8,
		.max_size = le16_make((uint16_t)b->max_size),
		.dmi = {'_', 'D', 'M', 'I', '_'},
		.table_len = le16_make((uint16_t)b->out.len),
		.table = le32_make((uint32_t)table),
		.n = le16_make((uint16_t)b->n),
		.bcd = 0x28,
	};
	e->dmi_sum = checksum(e->dmi, sizeof(*e) - offsetof(struct entry_2, dmi));
	e->sum = checksum(e, sizeof(*e));
}

static void put_entry_3(const struct build *b, uint64_t table, struct entry_3 *e)
{
	*e = (struct entry_3){
		.anchor = {'_', 'S', 'M', '3', '_'},
		.len = sizeof(*e),
		.major = 3,
		.revision = 1,
		.max_len = le32_make((uint32_t)b->out.len),
		.table = le64_make(table),
	};
	e->sum = checksum(e, sizeof(*e));
}

int smbios_build(const struct smbios_config *cfg, uint64_t base,
		 struct smbios_tables *out, struct err *err)
{
	struct build b = {.cfg = cfg};
	size_t anchor =
		cfg->entry_3_0 ? sizeof(struct entry_3) : sizeof(struct entry_2);
	size_t first = align_up(anchor, 16);

	*out = (struct smbios_tables){.base = base, .anchor_len = anchor};
	if (base % 16 || base >= BIT(20) || !cfg->n_cpus || cfg->n_cpus > MAX_CPUS ||
	    !cfg->memory || !cfg->below_4g || cfg->below_4g > cfg->memory)
		return err_set(err, EINVAL,
			       "SMBIOS: %u processors, %" PRIu64
			       " bytes of memory at 0x%" PRIx64 ": out of range",
			       cfg->n_cpus, cfg->memory, base);
	structures(&b);
	if (!b.out.failed && b.out.len <= UINT16_MAX)
		out->blob = calloc(1, first + b.out.len);
	if (!out->blob) {
		str_fini(&b.out);
		return err_set(err, ENOMEM, "no memory for the SMBIOS structures");
	}
	if (cfg->entry_3_0)
		put_entry_3(&b, base + first, (struct entry_3 *)out->blob);
	else
		put_entry_2(&b, base + first, (struct entry_2 *)out->blob);
	memcpy(out->blob + first, b.out.p, b.out.len);
	out->len = first + b.out.len;
	str_fini(&b.out);
	return 0;
}

int smbios_place(const struct smbios_tables *t, struct ram *ram, struct err *err)
{
	if (!dma_write(ram, t->base, t->blob, t->len))
		return err_set(
			err, ENOSPC,
			"no memory for %zu bytes of SMBIOS structures at 0x%" PRIx64,
			t->len, t->base);
	return 0;
}

void smbios_tables_fini(struct smbios_tables *t)
{
	free(t->blob);
	*t = (struct smbios_tables){.blob = NULL};
}
