/*
 * fw/pvh.c - kernels with a PVH entry: Linux' vmlinux, Xen, the BSDs.
 *
 * Xen: docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and public/arch-x86/hvm/start_info.h.
 * One thread, before the processors run.
 */
#include <assert.h>
#include <inttypes.h>

#include "fw/kernel_int.h"

#define NOTE_PHYS32_ENTRY 18
#define START_MAGIC       0x336ec578

struct start_info {
	le32 magic, version, flags, nr_modules;
	le64 modlist, cmdline, rsdp;
	le64 memmap; /* version 1 */
	le32 memmap_entries, reserved;
};

struct start_module {
	le64 paddr, size, cmdline, reserved;
};

struct start_memmap {
	le64 addr, size;
	le32 type, reserved; /* the type as in e820 */
};

static_assert(sizeof(struct start_info) == 56, "as start_info.h has it");

/* The entry's physical address, or 0. */
static uint64_t entry_of(const struct elf *e)
{
	size_t len;
	const uint8_t *d = elf_note(e, "Xen", NOTE_PHYS32_ENTRY, &len);

	if (d && len == 4)
		return load_u32(d);
	return d && len == 8 ? load_u64(d) : 0;
}

bool pvh_match(const struct elf *e)
{
	return entry_of(e);
}

static int put_module(struct boot *b, const struct boot_module *m, const char *what,
		      struct start_module *to, struct err *err)
{
	uint64_t gpa = 0, text = 0;
	int rc = m->len ? place_high(b, m->data, m->len, MAX_32, what, &gpa, err) : 0;

	if (!rc && m->cmdline)
		rc = place_text(b, m->cmdline, "module command line", &text, err);
	*to = (struct start_module){.paddr = le64_make(gpa),
				    .size = le64_make(m->len),
				    .cmdline = le64_make(text)};
	return rc;
}

/* The initrd is the first module. */
static int put_modules(struct boot *b, struct start_info *si, struct err *err)
{
	struct start_module list[BOOT_MAX_MODULES + 1];
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
	si->nr_modules = le32_make(n);
	si->modlist = le64_make(gpa);
	return rc;
}

static int put_memmap(struct boot *b, struct start_info *si, struct err *err)
{
	const struct e820 *map = b->in->e820;
	struct start_memmap m[E820_MAX];
	uint64_t gpa;
	int rc;

	for (unsigned i = 0; i < map->n; i++)
		m[i] = (struct start_memmap){
			.addr = le64_make(map->entry[i].base),
			.size = le64_make(map->entry[i].len),
			.type = le32_make(map->entry[i].type),
		};
	rc = place_low(b, m, map->n * sizeof(m[0]), 8, "memory map", &gpa, err);
	if (rc)
		return rc;
	si->memmap = le64_make(gpa);
	si->memmap_entries = le32_make(map->n);
	return 0;
}

int pvh_load(struct boot *b, struct err *err)
{
	struct start_info si = {.magic = le32_make(START_MAGIC),
				.version = le32_make(1),
				.rsdp = le64_make(b->in->rsdp)};
	uint64_t end, entry, text, gpa;
	struct elf e;
	int rc = elf_open(&e, b->image, b->len, err);

	if (rc)
		return rc;
	entry = entry_of(&e);
	if (entry >= MAX_32)
		return err_set(err, EINVAL,
			       "the PVH entry of '%s' is above 4 GiB, at 0x%" PRIx64,
			       b->in->name, entry);
	rc = elf_load(b, &e, &end, err);
	if (!rc)
		rc = place_text(b, b->in->cmdline, "command line", &text, err);
	if (!rc)
		rc = put_modules(b, &si, err);
	if (!rc)
		rc = put_memmap(b, &si, err);
	if (rc)
		return rc;
	si.cmdline = le64_make(text);
	rc = place_low(b, &si, sizeof(si), 8, "start info", &gpa, err);
	if (!rc)
		rc = entry_flat32(b, entry, err);
	if (rc)
		return rc;
	b->cpu->gpr[3] = gpa; /* ebx */
	b->info->protocol = "PVH";
	return 0;
}
