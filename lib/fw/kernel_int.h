/* fw/kernel_int.h - what the kernel loaders share. Private to lib/fw. */
#ifndef FW_KERNEL_INT_H
#define FW_KERNEL_INT_H

#include "base/bits.h"
#include "base/bytes.h"
#include "fw/kernel.h"

/* One start under way. */
struct boot {
	struct ram *ram;
	const struct boot_params_in *in;
	struct cpu_state *cpu;
	struct boot_info *info; /* its ranges are what is taken */
	const uint8_t *image;   /* the kernel, unpacked; borrowed */
	size_t len;
};

#define LOW_MIN 0x1000ull  /* above the real-mode vectors and BIOS data */
#define LOW_MAX 0xa0000ull /* below the VGA */
#define MAX_32  BIT(32)    /* the end of what a 32-bit pointer reaches */
#define PAGE    4096ull

/* ---- place.c: who gets which guest memory ---- */

/* Takes exactly [gpa, gpa + len): all RAM and free, or -ENOSPC. `what`: static text. */
int place_fixed(struct boot *b, uint64_t gpa, uint64_t len, const char *what,
		struct err *err);
/*
 * Takes the highest free `len` bytes of RAM above 1 MiB and below `max`, page-aligned, and copies
 * `p` there. 0 or -ENOSPC.
 */
int place_high(struct boot *b, const void *p, size_t len, uint64_t max,
	       const char *what, uint64_t *gpa, struct err *err);
/*
 * Takes the lowest free `len` bytes of RAM below 640 KiB for a table, and copies `p` there if not NULL. From
 * the bottom, as kernels put their own start code for other processors at the top.
 */
int place_low(struct boot *b, const void *p, size_t len, uint64_t align,
	      const char *what, uint64_t *gpa, struct err *err);
/* place_low() of a text (NULL: "") with its terminator. */
int place_text(struct boot *b, const char *text, const char *what, uint64_t *gpa,
	       struct err *err);
/* Copies to, or zeroes, memory that was taken. */
int place_copy(struct boot *b, uint64_t gpa, const void *p, size_t len,
	       struct err *err);
int place_zero(struct boot *b, uint64_t gpa, uint64_t len, struct err *err);

/* ---- elf.c: System V ABI, ELF-32 and ELF-64 ---- */

struct elf {
	const uint8_t *p; /* borrowed */
	size_t len;
	bool is64;
	uint16_t machine; /* EM_386, EM_X86_64 */
	uint64_t entry;   /* as in the header: virtual or physical */
	uint64_t phoff;
	unsigned n_seg;
};

struct elf_seg {
	uint32_t type; /* PT_* */
	uint64_t off, vaddr, paddr, filesz, memsz;
	uint64_t align;
};

/* Checks the header and that the segment table is in the file. 0 or -EINVAL. */
int elf_open(struct elf *e, const void *p, size_t len, struct err *err);
/* Segment i < n_seg; its numbers are not checked. */
struct elf_seg elf_seg(const struct elf *e, unsigned i);
/* Takes and fills the physical memory of each loadable segment. *end: the highest byte + 1. */
int elf_load(struct boot *b, const struct elf *e, uint64_t *end, struct err *err);
/* The physical address of e->entry: through the segment that holds it as a virtual address. */
uint64_t elf_entry_phys(const struct elf *e);
/* The content of note (name, type), or NULL; *len: its length. */
const uint8_t *elf_note(const struct elf *e, const char *name, uint32_t type,
			size_t *len);

/* ---- entry.c: processor states ---- */

/*
 * 32-bit protected mode without paging, flat segments 10h (code) and 18h (data), interrupts
 * off. The descriptor table is put into low memory.
 */
int entry_flat32(struct boot *b, uint64_t rip, struct err *err);
/* 64-bit mode, the first 4 GiB mapped as they are, the same selectors. */
int entry_long64(struct boot *b, uint64_t rip, struct err *err);

/* ---- the kinds ---- */

bool bzimage_match(const uint8_t *p, size_t len);
int bzimage_load(struct boot *b, struct err *err);
/* vmlinux, by the boot protocol of its width. */
bool elf_linux_match(const struct elf *e);
int elf_linux_load(struct boot *b, struct err *err);
bool pvh_match(const struct elf *e);
int pvh_load(struct boot *b, struct err *err);
bool multiboot_match(const uint8_t *p, size_t len);
int multiboot_load(struct boot *b, struct err *err);

/* zeropage.c: Linux' boot parameters */

/* What the kernel's header says about its start; for a bare vmlinux what suits any kernel. */
struct linux_limits {
	const uint8_t *
		hdr; /* the setup header, from offset 1f1h of the file on; NULL: none */
	size_t hdr_len;
	uint16_t version;     /* boot protocol, 020fh = 2.15 */
	uint32_t cmdline_max; /* bytes without the terminator */
	uint64_t initrd_max;  /* its end may be this at most */
	bool above_4g;        /* or anywhere when it does not fit below */
};

/* Places initrd, command line and zero page; *gpa: the zero page. The kernel was placed before. */
int zeropage_build(struct boot *b, const struct linux_limits *lim, uint64_t *gpa,
		   struct err *err);

#endif
