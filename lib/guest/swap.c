/* guest/swap.c - Linux swap space. Its first page describes it; the rest is nobody's once the system is off. */
#include <string.h>

#include "guest/fs_int.h"

#define PAGE 4096u

/* How a system that sleeps in it marks it. */
static const char *const asleep[] = {"S1SUSPEND", "S2SUSPEND", "ULSUSPEND",
				     "LINHIB0001"};

static int swap_open(struct fs *fs, struct err *err)
{
	uint8_t page[PAGE];
	uint64_t pages;

	if (fs_read(fs, page, 0, PAGE))
		return err_set(err, EIO, "cannot read the first page of a swap space");
	fs->info.block = PAGE;
	fs->info.size = fs->len;
	for (size_t i = 0; i < ARRAY_LEN(asleep); i++)
		if (!memcmp(page + PAGE - 10, asleep[i],
			    min_u64(strlen(asleep[i]), 10))) {
			fs_not_clean(fs, FS_HIBERNATED,
				     "a hibernated system is in the swap space");
			return 0;
		}
	if (memcmp(page + PAGE - 10, "SWAPSPACE2", 10) || load_u32(page + 1024) != 1)
		return err_set(err, ENOTSUP,
			       "swap space of another version or page size");
	pages = (uint64_t)load_u32(page + 1028) + 1;
	if (pages * PAGE > fs->len)
		return fs_damaged(fs, err, "it is larger than its partition");
	fs->info.size = pages * PAGE;
	fs->info.free = fs->info.size - PAGE;
	fs->info.has_free = true;
	fs_uuid(fs, page + 1036);
	fs_label(fs, page + 1052, 16);
	return 0;
}

static int swap_used(struct fs *fs, struct ranges *used, struct err *err)
{
	(void)fs;
	(void)err;
	return ranges_add(used, 0, PAGE);
}

const struct fs_ops fs_swap = {
	.types = (const char *const[]){"swap", "swsuspend", NULL},
	.open = swap_open,
	.used = swap_used,
};
