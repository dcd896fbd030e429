/* tests/fuzz/fuzz_tree.c - any bytes as a tree of files: tar, docker save, OCI; and an ext4 file system of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fdio.h"
#include "pack/rootfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Tar headers' sums, so that what is in them is looked at. */
static void fix_tar(uint8_t *p, size_t len)
{
	for (size_t at = 0; at + 512 <= len; at += 512) {
		uint8_t *h = p + at;
		unsigned sum = 0;
		char text[8];

		if (memcmp(h + 257, "ustar", 5))
			continue;
		memset(h + 148, ' ', 8);
		for (unsigned i = 0; i < 512; i++)
			sum += h[i];
		snprintf(text, sizeof(text), "%06o", sum);
		memcpy(h + 148, text, 7);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct rootfs_disk d = {.size = 16 << 20};
	struct rootfs *r = NULL;
	struct err err = {0};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	int out = memfd_create("ext4", MFD_CLOEXEC);
	uint8_t *copy = malloc(len + 1);

	if (fd < 0 || out < 0 || !copy || !len)
		goto out;
	memcpy(copy, data, len);
	fix_tar(copy, len);
	if (fd_write_full(fd, copy, len))
		goto out;
	if (rootfs_open_fd(fd, "fuzz", NULL, &r, &err) && !err.msg[0])
		abort();
	fd = -1;
	if (r && rootfs_write(r, out, &d, &err) && !err.msg[0])
		abort();
	rootfs_close(r);
out:
	if (fd >= 0)
		close(fd);
	if (out >= 0)
		close(out);
	free(copy);
	return 0;
}
