/*
 * fw/elf.c - ELF files of 32 and 64 bits, little-endian (System V ABI, chapters 4 and 5).
 *
 * One thread, before the processors run.
 */
#include <assert.h>
#include <elf.h>
#include <inttypes.h>

#include "fw/kernel_int.h"

#define MAX_SEGMENTS 256 /* loaders' tables are far shorter */

static_assert(sizeof(Elf32_Ehdr) == 52 && sizeof(Elf64_Ehdr) == 64, "as in files");

int elf_open(struct elf *e, const void *p, size_t len, struct err *err)
{
	const uint8_t *id = p;
	unsigned entsize, want;

	*e = (struct elf){.p = p, .len = len};
	if (len < EI_NIDENT || memcmp(id, ELFMAG, SELFMAG))
		return err_set(err, EINVAL, "not an ELF file");
	if (id[EI_DATA] != ELFDATA2LSB ||
	    (id[EI_CLASS] != ELFCLASS32 && id[EI_CLASS] != ELFCLASS64))
		return err_set(err, EINVAL,
			       "an ELF file for another kind of processor");
	e->is64 = id[EI_CLASS] == ELFCLASS64;
	if (len < (e->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
		return err_set(err, EINVAL, "the ELF file is cut off in its header");
	if (e->is64) {
		Elf64_Ehdr h;

		memcpy(&h, p, sizeof(h));
		e->machine = h.e_machine;
		e->entry = h.e_entry;
		e->phoff = h.e_phoff;
		e->n_seg = h.e_phnum;
		entsize = h.e_phentsize;
		want = sizeof(Elf64_Phdr);
	} else {
		Elf32_Ehdr h;

		memcpy(&h, p, sizeof(h));
		e->machine = h.e_machine;
		e->entry = h.e_entry;
		e->phoff = h.e_phoff;
		e->n_seg = h.e_phnum;
		entsize = h.e_phentsize;
		want = sizeof(Elf32_Phdr);
	}
	if (e->machine != EM_386 && e->machine != EM_X86_64)
		return err_set(err, EINVAL, "an ELF file for machine %u, not for x86",
			       e->machine);
	if (!e->n_seg || e->n_seg > MAX_SEGMENTS || entsize != want ||
	    !range_ok(e->phoff, (uint64_t)e->n_seg * want, len))
		return err_set(
			err, EINVAL,
			"the ELF file's table of %u segments is damaged or missing",
			e->n_seg);
	return 0;
}

struct elf_seg elf_seg(const struct elf *e, unsigned i)
{
	if (e->is64) {
		Elf64_Phdr h;

		memcpy(&h, e->p + e->phoff + i * sizeof(h), sizeof(h));
		return (struct elf_seg){h.p_type,   h.p_offset, h.p_vaddr, h.p_paddr,
					h.p_filesz, h.p_memsz,  h.p_align};
	} else {
		Elf32_Phdr h;

		memcpy(&h, e->p + e->phoff + i * sizeof(h), sizeof(h));
		return (struct elf_seg){h.p_type,   h.p_offset, h.p_vaddr, h.p_paddr,
					h.p_filesz, h.p_memsz,  h.p_align};
	}
}

static int load_segment(struct boot *b, const struct elf *e, const struct elf_seg *s,
			struct err *err)
{
	int rc;

	if (!range_ok(s->off, s->filesz, e->len))
		return err_set(err, EINVAL,
			       "'%s' is cut off: a segment of %" PRIu64
			       " bytes at %" PRIu64 " goes past the file's %zu bytes",
			       b->in->name, s->filesz, s->off, e->len);
	if (s->filesz > s->memsz || s->paddr + s->memsz < s->paddr)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a segment of 0x%" PRIx64
			       " bytes in 0x%" PRIx64 " at 0x%" PRIx64,
			       b->in->name, s->filesz, s->memsz, s->paddr);
	rc = place_fixed(b, s->paddr, s->memsz, "kernel", err);
	if (!rc)
		rc = place_copy(b, s->paddr, e->p + s->off, s->filesz, err);
	if (!rc)
		rc = place_zero(b, s->paddr + s->filesz, s->memsz - s->filesz, err);
	return rc;
}

int elf_load(struct boot *b, const struct elf *e, uint64_t *end, struct err *err)
{
	*end = 0;
	for (unsigned i = 0; i < e->n_seg; i++) {
		struct elf_seg s = elf_seg(e, i);
		int rc;

		if (s.type != PT_LOAD || !s.memsz)
			continue;
		rc = load_segment(b, e, &s, err);
		if (rc)
			return rc;
		*end = max_u64(*end, s.paddr + s.memsz);
	}
	if (!*end)
		return err_set(err, EINVAL, "'%s' has nothing to load in it",
			       b->in->name);
	return 0;
}

uint64_t elf_entry_phys(const struct elf *e)
{
	/* Linux links its entry at its physical address; others give the virtual one. */
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < e->n_seg; i++) {
			struct elf_seg s = elf_seg(e, i);
			uint64_t base = pass ? s.vaddr : s.paddr;

			if (s.type == PT_LOAD && e->entry - base < s.memsz)
				return s.paddr + (e->entry - base);
		}
	}
	return e->entry;
}

/* The next note of `seg` from *pos on: false at the end, or where it is damaged. */
static bool next_note(const struct elf *e, const struct elf_seg *seg, uint64_t *pos,
		      Elf32_Nhdr *h, const uint8_t **name, const uint8_t **desc)
{
	uint64_t align = seg->align == 8 ? 8 : 4, at = *pos;

	if (!range_ok(at, sizeof(*h), seg->filesz))
		return false;
	memcpy(h, e->p + seg->off + at, sizeof(*h));
	at += sizeof(*h);
	if (!range_ok(at, h->n_namesz, seg->filesz))
		return false;
	*name = e->p + seg->off + at;
	at = align_up(at + h->n_namesz, align);
	if (!range_ok(at, h->n_descsz, seg->filesz))
		return false;
	*desc = e->p + seg->off + at;
	*pos = align_up(at + h->n_descsz, align);
	return true;
}

const uint8_t *elf_note(const struct elf *e, const char *name, uint32_t type,
			size_t *len)
{
	size_t name_len = strlen(name) + 1;

	for (unsigned i = 0; i < e->n_seg; i++) {
		struct elf_seg s = elf_seg(e, i);
		const uint8_t *n_name, *desc;
		uint64_t pos = 0;
		Elf32_Nhdr h; /* the same in both classes */

		if (s.type != PT_NOTE || !range_ok(s.off, s.filesz, e->len))
			continue;
		while (next_note(e, &s, &pos, &h, &n_name, &desc)) {
			if (h.n_type != type || h.n_namesz != name_len ||
			    memcmp(n_name, name, name_len))
				continue;
			*len = h.n_descsz;
			return desc;
		}
	}
	return NULL;
}
