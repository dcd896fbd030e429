/* tests/fuzz/fuzz_lzop.c - any bytes as an lzop file. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fdio.h"
#include "codec/lzop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int put(void *ctx, const void *p, size_t len, struct err *err)
{
	size_t *left = ctx;

	(void)p;
	if (len > *left)
		return err_set(err, EFBIG, "more than is wanted");
	*left -= len;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	size_t left = 1 << 20;
	struct err err = {0};

	if (fd >= 0 && !fd_write_full(fd, data, len) && len >= LZOP_MAGIC_LEN &&
	    lseek(fd, LZOP_MAGIC_LEN, SEEK_SET) >= 0 &&
	    lzop_unpack_fd(fd, "fuzz", put, &left, &err) && !err.msg[0])
		abort();
	if (fd >= 0)
		close(fd);
	return 0;
}
