/*
 * fw/zeropage.c - the boot parameters Linux is handed: zero page, command line, initrd.
 *
 * Linux: Documentation/arch/x86/boot.rst and zero-page.rst. One thread, before the processors run.
 */
#include <inttypes.h>
#include <sys/random.h>

#include "fw/kernel_int.h"

/* Offsets in the zero page. */
enum {
	ZP_EXT_MEM_K =
		0x002, /* KiB above 1 MiB, at most 64 MiB: for kernels without e820 */
	ZP_VIDEO_MODE = 0x006,
	ZP_VIDEO_COLS = 0x007,
	ZP_VIDEO_LINES = 0x00e,
	ZP_VIDEO_ISVGA = 0x00f,
	ZP_VIDEO_POINTS = 0x010,
	ZP_RSDP = 0x070,
	ZP_EXT_RAMDISK_IMAGE = 0x0c0,
	ZP_EXT_RAMDISK_SIZE = 0x0c4,
	ZP_EXT_CMDLINE = 0x0c8,
	ZP_ALT_MEM_K = 0x1e0,
	ZP_E820_COUNT = 0x1e8,
	ZP_HDR = 0x1f1,
	ZP_HDR_END = 0x290, /* of the room for a setup header */
	ZP_BOOT_FLAG = 0x1fe,
	ZP_MAGIC = 0x202,
	ZP_VERSION = 0x206,
	ZP_LOADER = 0x210,
	ZP_LOADFLAGS = 0x211,
	ZP_RAMDISK_IMAGE = 0x218,
	ZP_RAMDISK_SIZE = 0x21c,
	ZP_CMDLINE = 0x228,
	ZP_ALIGNMENT = 0x230,
	ZP_SETUP_DATA = 0x250,
	ZP_E820 = 0x2d0,
};

#define LOADER_UNDEFINED 0xff
#define LOADED_HIGH      1
#define SETUP_RNG_SEED   9

/* An entry of the list at ZP_SETUP_DATA. */
struct setup_data_seed {
	le64 next;
	le32 type, len;
	uint8_t seed[32];
};

static void put16(uint8_t *zp, unsigned off, uint16_t v)
{
	memcpy(zp + off, &v, sizeof(v));
}

static void put32(uint8_t *zp, unsigned off, uint64_t v)
{
	uint32_t low = (uint32_t)v;

	memcpy(zp + off, &low, sizeof(low));
}

static void put64(uint8_t *zp, unsigned off, uint64_t v)
{
	memcpy(zp + off, &v, sizeof(v));
}

static void put_header(uint8_t *zp, const struct linux_limits *lim)
{
	if (lim->hdr) {
		memcpy(zp + ZP_HDR, lim->hdr,
		       min_u64(lim->hdr_len, ZP_HDR_END - ZP_HDR));
	} else { /* a bare vmlinux has none */
		put16(zp, ZP_BOOT_FLAG, 0xaa55);
		memcpy(zp + ZP_MAGIC, "HdrS", 4);
		put16(zp, ZP_VERSION, lim->version);
		zp[ZP_LOADFLAGS] = LOADED_HIGH;
		put32(zp, ZP_ALIGNMENT, 16 << 20);
	}
	zp[ZP_LOADER] = LOADER_UNDEFINED;
	put64(zp, ZP_SETUP_DATA, 0);
}

static void put_memory(uint8_t *zp, const struct e820 *map)
{
	uint64_t top = 1 << 20; /* of the memory that begins at 1 MiB */

	for (unsigned i = 0; i < map->n; i++) {
		const struct e820_entry *e = &map->entry[i];
		struct e820_raw raw = e820_raw(map, i);

		memcpy(zp + ZP_E820 + i * sizeof(raw), &raw, sizeof(raw));
		if (e->type == E820_RAM && e->base <= top && e->base + e->len > top)
			top = e->base + e->len;
	}
	zp[ZP_E820_COUNT] = (uint8_t)map->n;
	top = (top - (1 << 20)) >> 10;
	put32(zp, ZP_ALT_MEM_K, min_u64(top, UINT32_MAX));
	put16(zp, ZP_EXT_MEM_K, (uint16_t)min_u64(top, 0xfc00));
}

static void put_screen(uint8_t *zp)
{
	zp[ZP_VIDEO_MODE] = 3;
	zp[ZP_VIDEO_COLS] = 80;
	zp[ZP_VIDEO_LINES] = 25;
	zp[ZP_VIDEO_ISVGA] = 1;
	put16(zp, ZP_VIDEO_POINTS, 16);
}

static int place_initrd(struct boot *b, const struct linux_limits *lim, uint64_t *gpa,
			struct err *err)
{
	const struct boot_params_in *in = b->in;
	int rc;

	*gpa = 0;
	if (!in->initrd || !in->initrd_len)
		return 0;
	if (in->initrd_len > UINT32_MAX && !lim->above_4g)
		return err_set(err, ENOSPC, "the initrd of %zu bytes is above 4 GiB",
			       in->initrd_len);
	rc = place_high(b, in->initrd, in->initrd_len, lim->initrd_max, "initrd", gpa,
			err);
	if (rc == -ENOSPC && lim->above_4g)
		rc = place_high(b, in->initrd, in->initrd_len, UINT64_MAX, "initrd",
				gpa, err);
	return rc;
}

/* Random bytes for the kernel's generator: without them early users wait for interrupts. */
static int place_seed(struct boot *b, uint8_t *zp, struct err *err)
{
	struct setup_data_seed s = {.type = le32_make(SETUP_RNG_SEED),
				    .len = le32_make(sizeof(s.seed))};
	uint64_t gpa;
	int rc;

	if (getrandom(s.seed, sizeof(s.seed), GRND_NONBLOCK) != sizeof(s.seed))
		return 0;
	rc = place_low(b, &s, sizeof(s), 8, "random seed", &gpa, err);
	if (!rc)
		put64(zp, ZP_SETUP_DATA, gpa);
	return rc;
}

int zeropage_build(struct boot *b, const struct linux_limits *lim, uint64_t *gpa,
		   struct err *err)
{
	const char *cmdline = b->in->cmdline ? b->in->cmdline : "";
	uint64_t text, initrd;
	uint8_t zp[PAGE] = {0};
	int rc;

	if (b->in->n_modules)
		return err_set(err, EINVAL,
			       "'%s' is a Linux kernel, which takes no modules: give "
			       "an initrd",
			       b->in->name);
	if (strlen(cmdline) > lim->cmdline_max)
		return err_set(err, EINVAL,
			       "the command line of %zu bytes is too long: '%s' takes "
			       "%" PRIu32,
			       strlen(cmdline), b->in->name, lim->cmdline_max);
	put_header(zp, lim);
	put_memory(zp, b->in->e820);
	if (b->in->vga_text)
		put_screen(zp);
	put64(zp, ZP_RSDP, b->in->rsdp);
	rc = place_initrd(b, lim, &initrd, err);
	if (!rc)
		rc = place_text(b, cmdline, "command line", &text, err);
	if (!rc && lim->version >= 0x209)
		rc = place_seed(b, zp, err);
	if (rc)
		return rc;
	put32(zp, ZP_CMDLINE, text);
	put32(zp, ZP_EXT_CMDLINE, text >> 32);
	put32(zp, ZP_RAMDISK_IMAGE, initrd);
	put32(zp, ZP_RAMDISK_SIZE, initrd ? b->in->initrd_len : 0);
	if (lim->above_4g) {
		put32(zp, ZP_EXT_RAMDISK_IMAGE, initrd >> 32);
		put32(zp, ZP_EXT_RAMDISK_SIZE, initrd ? b->in->initrd_len >> 32 : 0);
	}
	return place_low(b, zp, sizeof(zp), PAGE, "zero page", gpa, err);
}
