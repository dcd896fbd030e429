/* tests/fuzz/fuzz_luks.c - any bytes as a LUKS header: parsed, tried with a passphrase, written again; as an image. */
#include "crypt/luks1.h"
#include "fuzz_vhd.h"

struct bytes {
	const uint8_t *p;
	size_t len;
};

/* What is behind the end reads as zeros. */
static int io(void *ctx, uint64_t off, void *buf, size_t len, bool write)
{
	const struct bytes *b = ctx;
	size_t n = off < b->len ? min_u64(len, b->len - off) : 0;

	if (write)
		return -EROFS;
	memset(buf, 0, len);
	memcpy(buf, b->p + (n ? off : 0), n);
	return 0;
}

static void try_header(const uint8_t *data, size_t len)
{
	struct bytes b = {data, len};
	uint8_t head[LUKS1_HEADER];
	struct crypt_key key;
	struct luks1 l, again;
	unsigned slot;

	if (len < LUKS1_HEADER || luks1_parse(data, len, "fuzz", &l, NULL))
		return;
	luks1_build(&l, head);
	if (luks1_parse(head, len, "again", &again, NULL) ||
	    memcmp(again.slot, l.slot, sizeof(l.slot)))
		abort();
	luks1_unlock(&l, io, &b, "fuzz", "secret", 6, 1 << 16, &key, &slot, NULL);
	crypt_key_wipe(&key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t n = min_u64(len, 64);
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	try_header(data, len);
	if (fd < 0)
		return 0;
	if (fd_write_full(fd, data, len))
		close(fd);
	else
		fuzz_image(fd, "luks", FUZZ_READ, data + len - n, n);
	return 0;
}
