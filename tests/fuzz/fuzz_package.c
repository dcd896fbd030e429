/* tests/fuzz/fuzz_package.c - any bytes as a package: tar with OVF, XVA, VMA; the digests in it are made right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "pack/hash.h"
#include "pack/package.h"

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

static void fix_md5(uint8_t *p, size_t len, size_t field)
{
	uint8_t md5[HASH_MAX];

	memset(p + field, 0, 16);
	hash_memory("md5", p, len, md5);
	memcpy(p + field, md5, 16);
}

static void fix_vma(uint8_t *p, size_t len)
{
	be32 head;

	if (len < 12288)
		return;
	memcpy(&head, p + 56, 4);
	if (be32_get(head) <= len)
		fix_md5(p, be32_get(head), 32);
	for (size_t at = 12288; at + 512 <= len; at += 512)
		if (!memcmp(p + at, "VMAE", 4))
			fix_md5(p + at, 512, 24);
}

static void look(struct package *p)
{
	struct package_info info;
	struct err err = {0};
	unsigned n;

	package_info(p, &info);
	for (unsigned i = 0; i < info.n_disks && i < 4; i++) {
		struct package_disk_info d;
		struct img *img;
		char buf[4096];

		package_disk_info(p, i, &d);
		if (!d.name)
			abort();
		if (package_open_disk(p, i, NULL, &img, &err)) {
			if (!err.msg[0])
				abort();
			continue;
		}
		if (img_size(img))
			img_read(img, buf, 0, min_u64(sizeof(buf), img_size(img)));
		img_close(img);
	}
	package_verify(p, &n, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct package *p = NULL;
	struct err err = {0};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	uint8_t *copy = malloc(len + 1);

	if (fd < 0 || !copy || !len)
		goto out;
	memcpy(copy, data, len);
	if (len > 4 && !memcmp(copy, "VMA", 4))
		fix_vma(copy, len);
	else
		fix_tar(copy, len);
	if (fd_write_full(fd, copy, len))
		goto out;
	if (package_open_fd(fd, "fuzz", NULL, &p, &err) && !err.msg[0])
		abort();
	fd = -1;
	if (p)
		look(p);
	package_close(p);
out:
	if (fd >= 0)
		close(fd);
	free(copy);
	return 0;
}
