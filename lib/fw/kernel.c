/*
 * fw/kernel.c - which kind of kernel a file is, and the loader for it.
 *
 * One thread, before the processors run.
 */
#include "fw/kernel.h"

#include <inttypes.h>
#include <stdlib.h>

#include "codec/codec.h"
#include "fw/kernel_int.h"
#include "vm/dma.h"

#define UNPACKED_MAX (512u << 20)

static bool match_pvh(const uint8_t *p, size_t len)
{
	struct elf e;

	return !elf_open(&e, p, len, NULL) && pvh_match(&e);
}

static bool match_elf_linux(const uint8_t *p, size_t len)
{
	struct elf e;

	return !elf_open(&e, p, len, NULL) && elf_linux_match(&e);
}

/* In the order they are tried. */
static const struct kind {
	enum kernel_kind kind;
	const char *name;
	bool (*match)(const uint8_t *p, size_t len);
	int (*load)(struct boot *b, struct err *err);
} kinds[] = {
	{KERNEL_BZIMAGE, "Linux bzImage", bzimage_match, bzimage_load},
	{KERNEL_ELF_PVH, "PVH kernel", match_pvh, pvh_load},
	{KERNEL_MULTIBOOT, "multiboot kernel", multiboot_match, multiboot_load},
	{KERNEL_ELF_LINUX, "Linux vmlinux", match_elf_linux, elf_linux_load},
};

static const struct kind *find_kind(const uint8_t *p, size_t len)
{
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].match(p, len))
			return &kinds[i];
	return NULL;
}

/* As find_kind(), of what a compressed file holds; *out is then its unpacked content. */
static const struct kind *find_unpacked(const void *p, size_t len, void **out,
					size_t *out_len, struct err *err)
{
	const struct codec *c = codec_find_magic(p, len);

	*out = NULL;
	if (!c || codec_unpack(c, p, len, UNPACKED_MAX, out, out_len, NULL, err))
		return NULL;
	return find_kind(*out, *out_len);
}

enum kernel_kind kernel_identify(const void *p, size_t len)
{
	const struct kind *k = find_kind(p, len);
	void *unpacked = NULL;
	size_t n;

	if (!k)
		k = find_unpacked(p, len, &unpacked, &n, NULL);
	free(unpacked);
	return k ? k->kind : KERNEL_UNKNOWN;
}

const char *kernel_kind_name(enum kernel_kind kind)
{
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	return "unknown";
}

static int no_kernel(const struct boot_params_in *in, struct err *err)
{
	struct elf e;

	if (!elf_open(&e, in->kernel, in->kernel_len, NULL))
		return err_set(err, ENOEXEC,
			       "'%s' is an ELF file, but no kernel: it has neither a "
			       "PVH note nor a multiboot header, and is not Linux",
			       in->name);
	return err_set(err, ENOEXEC,
		       "'%s' is no kernel: not a Linux bzImage, ELF or multiboot file",
		       in->name);
}

/*
 * There is no BIOS, and a kernel that asks one (Xen: memory map, disks, video mode) is told so: every
 * real-mode interrupt returns with the carry flag set, which is how BIOS calls fail.
 */
static void put_bios_calls(struct ram *ram)
{
	static const uint8_t code[] = {
		0x55,                   /* push bp */
		0x89, 0xe5,             /* mov bp, sp */
		0x80, 0x4e, 0x06, 0x01, /* or byte [bp + 6], 1: the caller's flags */
		0x5d,                   /* pop bp */
		0xcf,                   /* iret */
	};
	enum { CODE = 0x500, VECTORS = 256 };
	le32 vector[VECTORS];

	for (unsigned i = 0; i < VECTORS; i++)
		vector[i] = le32_make(CODE); /* segment 0 */
	dma_write(ram, 0, vector, sizeof(vector));
	dma_write(ram, CODE, code, sizeof(code));
}

/*
 * What kernels read of the BIOS data area to learn where low memory ends: the segment of the extended
 * BIOS data area (0: none) and the KiB of base memory. Xen puts its start code right below.
 */
static void put_bios_data(struct ram *ram, const struct e820 *map)
{
	enum { BDA_EBDA = 0x40e, BDA_BASE_KIB = 0x413 };
	uint64_t end = map->n && !map->entry[0].base ? e820_ram_end(map, LOW_MAX) : 0;
	le16 ebda = le16_make(end < LOW_MAX ? (uint16_t)(end >> 4) : 0);
	le16 kib = le16_make((uint16_t)(end >> 10));

	if (!e820_all(map, 0, LOW_MIN, E820_RAM))
		return;
	put_bios_calls(ram);
	dma_write(ram, BDA_EBDA, &ebda, sizeof(ebda));
	dma_write(ram, BDA_BASE_KIB, &kib, sizeof(kib));
}

int boot_load(struct ram *ram, const struct boot_params_in *in, struct cpu_state *cpu,
	      struct boot_info *info, struct err *err)
{
	struct boot b = {.ram = ram, .in = in, .cpu = cpu, .info = info};
	struct err why = {0};
	void *unpacked = NULL;
	const struct kind *k;
	int rc;

	*info = (struct boot_info){.kind = KERNEL_UNKNOWN};
	if (in->n_modules > BOOT_MAX_MODULES)
		return err_set(err, EINVAL, "%u modules, at most %u are possible",
			       in->n_modules, BOOT_MAX_MODULES);
	put_bios_data(ram, in->e820);
	b.image = in->kernel;
	b.len = in->kernel_len;
	k = find_kind(b.image, b.len);
	if (!k) {
		k = find_unpacked(in->kernel, in->kernel_len, &unpacked, &b.len, &why);
		b.image = unpacked;
	}
	if (k) {
		info->kind = k->kind;
		rc = k->load(&b, err);
	} else if (why.code) {
		rc = err_set(err, ENOEXEC, "cannot unpack '%s': %s", in->name, why.msg);
	} else {
		rc = no_kernel(in, err);
	}
	free(unpacked);
	return rc;
}
