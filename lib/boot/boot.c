/*
 * boot/boot.c - fills in what boot/loader.S reads. Linux: Documentation/arch/x86/boot.rst. Any thread.
 */
#include "boot/boot.h"

#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

extern const uint8_t boot_sector[], boot_sector_count[], boot_sector_end[];
extern const uint8_t boot_stage[], boot_data[], boot_stage_end[];

#define SECTOR      512u
#define MAX_SECTORS 56u /* of the loader: from 8000 to f000 */
#define REAL_MODE   0x90000u
#define HIGH        0x100000u
#define MAX_SETUP   0x8000u /* the real-mode part; its stack and heap are behind it */

/* Behind boot_data. */
struct loader_data {
	le32 initrd_size, initrd_room, initrd_limit, kernel_end;
	char command[BOOT_COMMAND + 1];
};
_Static_assert(sizeof(struct loader_data) == 2064, "as in loader.S");

/* `to`: 0 behind the one before, 1 the initial RAM disk's place, or an address. */
struct loader_list {
	le64 first;
	le32 n, to;
};

/* What is looked at in a kernel's file. */
struct kernel {
	uint32_t setup; /* bytes of the real-mode part */
	uint32_t end;   /* the kernel itself needs the memory up to there */
	uint32_t initrd_limit;
};

struct lists {
	struct loader_list *v;
	unsigned n, max;
};

static uint32_t get32(const uint8_t *p)
{
	le32 v;

	memcpy(&v, p, sizeof(v));
	return le32_get(v);
}

static int read_head(const uint8_t *h, const struct boot_file *f, struct kernel *k,
		     struct err *err)
{
	unsigned version = h[0x206] | h[0x207] << 8;
	uint64_t at, end;

	if (f->size < BOOT_KERNEL_HEAD || h[0x1fe] != 0x55 || h[0x1ff] != 0xaa ||
	    memcmp(h + 0x202, "HdrS", 4))
		return err_set(err, EINVAL, "the kernel is no Linux kernel for x86");
	if (version < 0x20a || !(h[0x211] & 1))
		return err_set(err, ENOTSUP,
			       "the kernel has version %x.%02x of the boot protocol: "
			       "2.10 is needed",
			       version >> 8, version & 0xff);
	k->setup = ((h[0x1f1] ? h[0x1f1] : 4u) + 1) * SECTOR;
	if (k->setup > MAX_SETUP || k->setup >= f->size)
		return err_set(err, EINVAL, "the kernel's setup part has %u bytes",
			       k->setup);
	at = max_u64(get32(h + 0x258),
		     HIGH); /* where it moves to; the upper half is 0 */
	end = at + max_u64(get32(h + 0x260), f->size);
	if (get32(h + 0x25c) || end > UINT32_MAX)
		return err_set(err, EINVAL,
			       "the kernel wants to be loaded above 4 GiB");
	k->end = (uint32_t)align_up(end, 4096);
	k->initrd_limit = get32(h + 0x22c);
	if (k->initrd_limit < UINT32_MAX)
		k->initrd_limit++;
	return 0;
}

/* Sectors [skip, skip + n) of a file, to an address. */
static int add(struct lists *l, const struct boot_file *f, uint64_t skip, uint64_t n,
	       uint32_t to, struct err *err)
{
	for (unsigned i = 0; i < f->n && n; i++) {
		const struct boot_run *r = &f->run[i];
		uint64_t here;

		if (skip >= r->n) {
			skip -= r->n;
			continue;
		}
		here = min_u64(r->n - skip, n);
		if (l->n == l->max)
			return err_set(err, E2BIG,
				       "the kernel or its initial RAM disk is in too "
				       "many pieces on the disk");
		l->v[l->n].first = le64_make(r->first ? r->first + skip : 0);
		l->v[l->n].n = le32_make((uint32_t)here);
		l->v[l->n++].to = le32_make(to);
		to = 0;
		skip = 0;
		n -= here;
	}
	return n ? err_set(err, EINVAL, "a file's place on the disk is not known") : 0;
}

static uint64_t sectors_of(uint64_t bytes)
{
	return (bytes + SECTOR - 1) / SECTOR;
}

static int fill_lists(struct lists *l, const struct kernel *k,
		      const struct boot_file *kernel, const struct boot_file *initrd,
		      struct err *err)
{
	uint64_t setup = k->setup / SECTOR;
	int rc = add(l, kernel, 0, setup, REAL_MODE, err);

	if (!rc)
		rc = add(l, kernel, setup, sectors_of(kernel->size) - setup, HIGH, err);
	if (!rc && initrd->size)
		rc = add(l, initrd, 0, sectors_of(initrd->size), 1, err);
	return rc;
}

/* One partition, from the end of the gap on. Its cylinders are those that mean: too far. */
static void fill_table(uint8_t *sector, uint32_t n, uint32_t id)
{
	static const uint8_t far[3] = {0xfe, 0xff, 0xff};
	uint8_t *e = sector + 446;
	le32 start = le32_make(BOOT_GAP / SECTOR), len = le32_make(n),
	     disk = le32_make(id);

	memcpy(sector + 440, &disk, sizeof(disk));
	e[0] = 0x80;
	memcpy(e + 1, far, sizeof(far));
	e[4] = 0x83;
	memcpy(e + 5, far, sizeof(far));
	memcpy(e + 8, &start, sizeof(start));
	memcpy(e + 12, &len, sizeof(len));
	sector[510] = 0x55;
	sector[511] = 0xaa;
}

int boot_make(uint8_t *gap, uint64_t sectors, uint32_t id, const uint8_t *head,
	      const struct boot_file *kernel, const struct boot_file *initrd,
	      const char *command, struct err *err)
{
	size_t stage = (size_t)(boot_stage_end - boot_stage);
	struct loader_data *d =
		(void *)(gap + SECTOR + (size_t)(boot_data - boot_stage));
	struct lists l = {.v = (void *)(gap + SECTOR + stage)};
	struct kernel k = {0};
	size_t used;
	int rc = read_head(head, kernel, &k, err);

	if (rc)
		return rc;
	if (sectors > UINT32_MAX)
		return err_set(err, EFBIG,
			       "a BIOS starts disks of at most 2 TiB: --size makes it "
			       "smaller");
	if (strlen(command) > BOOT_COMMAND)
		return err_set(err, E2BIG,
			       "the kernel's command line is longer than %u characters",
			       BOOT_COMMAND);
	if (kernel->size > (64u << 20) || initrd->size > (1u << 30))
		return err_set(err, EFBIG,
			       "the kernel or its initial RAM disk is too large");
	memcpy(gap, boot_sector, (size_t)(boot_sector_end - boot_sector));
	memcpy(gap + SECTOR, boot_stage, stage);
	/* one list is left empty: the end */
	l.max = (unsigned)((MAX_SECTORS * SECTOR - stage) / sizeof(*l.v)) - 1;
	rc = fill_lists(&l, &k, kernel, initrd, err);
	if (rc)
		return rc;
	d->initrd_size = le32_make((uint32_t)initrd->size);
	d->initrd_room = le32_make((uint32_t)align_up(initrd->size, 4096));
	d->initrd_limit = le32_make(k.initrd_limit);
	d->kernel_end = le32_make(k.end);
	strcpy(d->command, command);
	used = sectors_of(stage + (l.n + 1) * sizeof(*l.v));
	gap[boot_sector_count - boot_sector] = (uint8_t)used;
	fill_table(gap, (uint32_t)sectors, id);
	return 0;
}
