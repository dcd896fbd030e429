/* tests/fuzz/fuzz_hive.c - any bytes as a registry hive: keys and values of it. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "guest/fs_int.h"
#include "guest/hive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int data_read(struct fs_file *f, void *buf, uint64_t off, size_t len)
{
	memcpy(buf, (const uint8_t *)f->priv + off, len);
	return 0;
}

static const struct fs_ops data_ops = {.file_read = data_read};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	/* the first bin begins at 4096: the input leaves out what is between */
	size_t head = min_u64(len, 512), size = 4096 + 65536;
	uint8_t *all = calloc(1, size);
	struct fs fs = {.ops = &data_ops};
	struct fs_file f = {.fs = &fs, .size = size, .priv = all};
	uint32_t key, n;
	struct hive h;

	if (!all)
		return 0;
	memcpy(all, data, head);
	memcpy(all + 4096, data + head, min_u64(len - head, 65536));
	if (!hive_open(&h, &f)) {
		if (!hive_find(&h, h.root, "Microsoft\\Windows NT\\CurrentVersion",
			       &key)) {
			free(hive_text(&h, key, "ProductName"));
			hive_number(&h, key, "CurrentMajorVersionNumber", &n);
		}
		hive_find(&h, h.root, "", &key);
	}
	free(all);
	return 0;
}
