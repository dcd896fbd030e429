/*
 * fw/multiboot.c - multiboot 1 kernels: Xen, GNU Mach, and many small ones.
 *
 * Multiboot Specification 0.6.96. What it leaves open: ELF files of 64 bits are loaded too, by
 * their physical addresses. One thread, before the processors run.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "fw/kernel_int.h"

#define HEADER_MAGIC  0x1badb002
#define ENTRY_MAGIC   0x2badb002
#define HEADER_WITHIN 8192 /* of the file */

/* Flags of the header; what we do not know of the low 16 must be refused (3.1.2). */
enum {
	MB_ALIGN_MODULES = 1 << 0, /* ours always are */
	MB_MEMORY = 1 << 1,        /* always given */
	MB_VIDEO = 1 << 2,
	MB_REQUIRED = 0xffff,
	MB_ADDRESSES = 1 << 16,
};

struct mb_header {
	le32 magic, flags, checksum;
	le32 header_addr, load_addr, load_end, bss_end, entry; /* MB_ADDRESSES */
	le32 mode_type, width, height, depth;                  /* MB_VIDEO */
};

/* Flags of the information. */
enum {
	MBI_MEMORY = 1 << 0,
	MBI_CMDLINE = 1 << 2,
	MBI_MODULES = 1 << 3,
	MBI_MMAP = 1 << 6,
	MBI_LOADER = 1 << 9,
	MBI_FRAMEBUFFER = 1 << 12,
};

struct mb_info {
	le32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	le32 syms[4];
	le32 mmap_length, mmap_addr, drives_length, drives_addr, config_table;
	le32 loader_name, apm_table;
	le32 vbe_control, vbe_mode;
	le16 vbe[4];
	le64 fb_addr;
	le32 fb_pitch, fb_width, fb_height;
	uint8_t fb_bpp, fb_type, fb_color[6];
};

struct mb_module {
	le32 start, end, string, reserved;
};

struct mb_mmap {
	le32 size; /* of what follows */
	le64 base, len;
	le32 type;
};

static_assert(sizeof(struct mb_header) == 48, "as the specification has it");
static_assert(sizeof(struct mb_info) == 116, "as the specification has it");
static_assert(sizeof(struct mb_mmap) == 24, "as the specification has it");

/* The header and where it is; a file that ends within it has zeroes there. */
static bool find_header(const uint8_t *p, size_t len, struct mb_header *h, size_t *at)
{
	size_t end = min_u64(len, HEADER_WITHIN);

	for (size_t i = 0; i + 12 <= end; i += 4) {
		if (load_u32(p + i) != HEADER_MAGIC ||
		    load_u32(p + i) + load_u32(p + i + 4) + load_u32(p + i + 8))
			continue;
		memset(h, 0, sizeof(*h));
		memcpy(h, p + i, min_u64(sizeof(*h), len - i));
		*at = i;
		return true;
	}
	return false;
}

bool multiboot_match(const uint8_t *p, size_t len)
{
	struct mb_header h;
	size_t at;

	return find_header(p, len, &h, &at);
}

/* Loads by the addresses in the header ("a.out kludge", 3.1.3). */
static int load_addresses(struct boot *b, const struct mb_header *h, size_t at,
			  struct err *err)
{
	uint64_t header = le32_get(h->header_addr), load = le32_get(h->load_addr);
	uint64_t load_end = le32_get(h->load_end), bss_end = le32_get(h->bss_end);
	uint64_t off, n;
	int rc;

	if (load > header || header - load > at)
		return err_set(err, EINVAL,
			       "'%s' has a damaged multiboot header: it lies at 0x%zx "
			       "in the file and 0x%" PRIx64
			       " in memory, which begins at 0x%" PRIx64,
			       b->in->name, at, header, load);
	off = at - (header - load);
	n = load_end ? load_end - load : b->len - off;
	if ((load_end && load_end < load) || !range_ok(off, n, b->len))
		return err_set(err, EINVAL,
			       "'%s' is cut off: it wants bytes 0x%" PRIx64
			       " to 0x%" PRIx64 " loaded, and has 0x%zx",
			       b->in->name, off, off + n, b->len);
	if (!bss_end)
		bss_end = load + n;
	if (bss_end < load + n)
		return err_set(
			err, EINVAL,
			"'%s' has a damaged multiboot header: it ends at 0x%" PRIx64
			", before what is loaded up to 0x%" PRIx64,
			b->in->name, bss_end, load + n);
	rc = place_fixed(b, load, bss_end - load, "kernel", err);
	if (!rc)
		rc = place_copy(b, load, b->image + off, n, err);
	return rc ? rc : place_zero(b, load + n, bss_end - load - n, err);
}

static int load_image(struct boot *b, uint64_t *entry, struct err *err)
{
	struct mb_header h;
	uint64_t end;
	uint32_t flags;
	struct elf e;
	size_t at;
	int rc;

	if (!find_header(b->image, b->len, &h, &at))
		return err_set(err, EINVAL, "'%s' has no multiboot header",
			       b->in->name);
	flags = le32_get(h.flags);
	if (flags & MB_REQUIRED & ~(MB_ALIGN_MODULES | MB_MEMORY | MB_VIDEO))
		return err_set(
			err, ENOEXEC,
			"'%s' requires unknown multiboot features (flags 0x%" PRIx32
			")",
			b->in->name, flags);
	if (flags & MB_VIDEO)
		log_msg(b->in->log, LOG_INFO,
			"'%s' asks for a video mode of %" PRIu32 "x%" PRIu32
			": it gets none",
			b->in->name, le32_get(h.width), le32_get(h.height));
	if (flags & MB_ADDRESSES) {
		*entry = le32_get(h.entry);
		return load_addresses(b, &h, at, err);
	}
	rc = elf_open(&e, b->image, b->len, err);
	if (rc)
		return err_prefix(err, "'%s' has a multiboot header without addresses",
				  b->in->name);
	*entry = elf_entry_phys(&e);
	rc = elf_load(b, &e, &end, err);
	if (!rc && (*entry >= MAX_32 || end > MAX_32))
		return err_set(err, ENOEXEC, "'%s' is linked above 4 GiB", b->in->name);
	return rc;
}

/* ---- the information ---- */

/* The file's name first, as a loader's menu would have it: kernels skip one word (3.3). */
static int put_cmdline(struct boot *b, const char *name, const char *text,
		       const char *what, le32 *gpa, struct err *err)
{
	char line[4096];
	const char *slash = strrchr(name, '/');
	uint64_t at;
	int n, rc;

	n = snprintf(line, sizeof(line), "%s%s%s", slash ? slash + 1 : name,
		     text && *text ? " " : "", text ? text : "");
	if (n < 0 || (size_t)n >= sizeof(line))
		return err_set(err, EINVAL,
			       "the command line of '%s' is too long: %d bytes", name,
			       n);
	rc = place_text(b, line, what, &at, err);
	*gpa = le32_make((uint32_t)at);
	return rc;
}

static int put_module(struct boot *b, const struct boot_module *m, const char *what,
		      struct mb_module *to, struct err *err)
{
	uint64_t gpa = 0;
	int rc = m->len ? place_high(b, m->data, m->len, MAX_32 - PAGE, what, &gpa, err)
			: 0;

	memset(to, 0, sizeof(*to));
	if (!rc)
		rc = put_cmdline(b, m->name ? m->name : "module", m->cmdline,
				 "module command line", &to->string, err);
	if (rc)
		return rc;
	to->start = le32_make((uint32_t)gpa);
	to->end = le32_make((uint32_t)(gpa + m->len));
	return 0;
}

/* The initrd is the first module. */
static int put_modules(struct boot *b, struct mb_info *mbi, struct err *err)
{
	struct mb_module list[BOOT_MAX_MODULES + 1];
	struct boot_module initrd = {"initrd", b->in->initrd, b->in->initrd_len, NULL};
	unsigned n = 0;
	uint64_t gpa;
	int rc = 0;

	if (initrd.data)
		rc = put_module(b, &initrd, "initrd", &list[n++], err);
	for (unsigned i = 0; i < b->in->n_modules && !rc; i++)
		rc = put_module(b, &b->in->modules[i], "module", &list[n++], err);
	if (rc || !n)
		return rc;
	rc = place_low(b, list, n * sizeof(list[0]), 8, "module list", &gpa, err);
	mbi->mods_count = le32_make(n);
	mbi->mods_addr = le32_make((uint32_t)gpa);
	return rc;
}

static int put_mmap(struct boot *b, struct mb_info *mbi, struct err *err)
{
	const struct e820 *map = b->in->e820;
	struct mb_mmap m[E820_MAX];
	uint64_t gpa, low = 0, high = BIT(20);
	int rc;

	for (unsigned i = 0; i < map->n; i++) {
		const struct e820_entry *e = &map->entry[i];

		m[i] = (struct mb_mmap){le32_make(sizeof(m[i]) - 4), le64_make(e->base),
					le64_make(e->len), le32_make(e->type)};
		if (e->type == E820_RAM && !e->base)
			low = min_u64(e->len, LOW_MAX);
		if (e->type == E820_RAM && e->base <= high && e->base + e->len > high)
			high = min_u64(e->base + e->len, MAX_32);
	}
	rc = place_low(b, m, map->n * sizeof(m[0]), 8, "memory map", &gpa, err);
	mbi->mem_lower = le32_make((uint32_t)(low >> 10));
	mbi->mem_upper = le32_make((uint32_t)((high - BIT(20)) >> 10));
	mbi->mmap_length = le32_make((uint32_t)(map->n * sizeof(m[0])));
	mbi->mmap_addr = le32_make((uint32_t)gpa);
	return rc;
}

static void put_vga_text(struct mb_info *mbi)
{
	mbi->fb_addr = le64_make(0xb8000);
	mbi->fb_pitch = le32_make(160);
	mbi->fb_width = le32_make(80);
	mbi->fb_height = le32_make(25);
	mbi->fb_bpp = 16;
	mbi->fb_type = 2; /* EGA text */
}

int multiboot_load(struct boot *b, struct err *err)
{
	uint32_t flags = MBI_MEMORY | MBI_CMDLINE | MBI_MODULES | MBI_MMAP | MBI_LOADER;
	struct mb_info mbi = {0};
	uint64_t entry = 0, gpa, loader;
	int rc = load_image(b, &entry, err);

	if (!rc)
		rc = put_cmdline(b, b->in->name, b->in->cmdline, "command line",
				 &mbi.cmdline, err);
	if (!rc)
		rc = put_modules(b, &mbi, err);
	if (!rc)
		rc = put_mmap(b, &mbi, err);
	if (!rc)
		rc = place_text(b, "vm-run", "loader name", &loader, err);
	if (rc)
		return rc;
	mbi.loader_name = le32_make((uint32_t)loader);
	if (b->in->vga_text) {
		put_vga_text(&mbi);
		flags |= MBI_FRAMEBUFFER;
	}
	mbi.flags = le32_make(flags);
	rc = place_low(b, &mbi, sizeof(mbi), 8, "multiboot information", &gpa, err);
	if (!rc)
		rc = entry_flat32(b, entry, err);
	if (rc)
		return rc;
	b->cpu->gpr[0] = ENTRY_MAGIC; /* eax */
	b->cpu->gpr[3] = gpa;         /* ebx */
	b->info->protocol = "multiboot";
	return 0;
}
