/* base/fdio.c - whole reads and writes on file descriptors. Any thread. */
#include "base/fdio.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

int64_t fd_read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (int64_t)done;
}

int64_t fd_pread_full(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n =
			pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (int64_t)done;
}

int fd_write_full(int fd, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int fd_pwrite_full(int fd, const void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done,
				   (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int fd_load_file(const char *path, uint64_t max, void **buf, size_t *len,
		 struct err *err)
{
	struct stat st;
	char *p = NULL;
	int64_t n;
	int fd, rc;

	*buf = NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (fstat(fd, &st) < 0) {
		rc = err_sys(err, errno, "cannot examine '%s'", path);
	} else if (!S_ISREG(st.st_mode)) {
		rc = err_set(err, EINVAL, "'%s' is not a regular file", path);
	} else if ((uint64_t)st.st_size > max) {
		rc = err_set(err, EFBIG,
			     "'%s' has %" PRIu64 " bytes, at most %" PRIu64 " fit",
			     path, (uint64_t)st.st_size, max);
	} else if (!(p = mem_new((size_t)st.st_size + 1, 1))) {
		rc = err_set(err, ENOMEM, "no memory for '%s'", path);
	} else if ((n = fd_read_full(fd, p, (size_t)st.st_size)) < 0) {
		rc = err_sys(err, (int)-n, "cannot read '%s'", path);
	} else {
		*buf = p;
		*len = (size_t)n;
		p = NULL;
		rc = 0;
	}
	free(p);
	close(fd);
	return rc;
}
