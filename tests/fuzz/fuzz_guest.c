/*
 * tests/fuzz/fuzz_guest.c - any bytes as a disk: its table, its file systems, their maps and files. The input is pieces:
 * how many sectors are left out (2 bytes), how many sectors follow (1 byte), these; so a small input is a
 * large, sparse disk.
 */
#include <string.h>
#include <sys/mman.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "guest/boot.h"
#include "guest/scan.h"
#include "img/img.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define DISK (400u << 20)

static int disk_of(const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	uint64_t at = 0;

	if (fd < 0 || ftruncate(fd, DISK))
		return fd;
	while (len > 3) {
		size_t n = min_u64(data[2] * 512ull, len - 3);

		at += load_u16(data) * 512ull;
		if (!range_ok(at, n, DISK) || fd_pwrite_full(fd, data + 3, n, at))
			break;
		at += n;
		data += 3 + n;
		len -= 3 + n;
	}
	return fd;
}

static void look(struct img *img)
{
	/* a file system where no table or mark leads to it, too */
	static const char *const types[] = {"ext4", "ntfs",  "xfs", "btrfs",
					    "vfat", "exfat", "swap"};
	struct guest_disk d;
	struct guest_boot b;
	struct ranges used = {0};
	struct err err;

	if (!guest_disk_open(img, &d, &err)) {
		struct volume_used *report = calloc(d.n + 1, sizeof(*report));

		if (report)
			guest_disk_used(&d, &used, report, &err);
		guest_boot_judge(&d, &b);
		free(report);
		ranges_fini(&used);
		guest_disk_close(&d);
	}
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct fs *fs;

		if (fs_open(img, 0, img_size(img), types[i], &fs, &err))
			continue;
		fs_used(fs, &used, &err);
		free(fs_load(fs, "/EFI/BOOT/BOOTX64.EFI", 65536, NULL));
		free(fs_load(fs, "/etc/os-release", 65536, NULL));
		ranges_fini(&used);
		fs_close(fs);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct img_opts opts = {.format = "raw", .read_only = true};
	int fd = disk_of(data, len);
	struct img *img;

	if (fd < 0 || img_open_fd(fd, "fuzz", &opts, &img, NULL))
		return 0;
	look(img);
	img_close(img);
	return 0;
}
