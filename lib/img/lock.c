/*
 * img/lock.c - image locks as QEMU's file driver sets them: open-file-description locks on single bytes.
 * A read lock on byte 100 + i says "I do i", on byte 200 + i "nobody else may do i".
 * While an image is opened; one thread.
 */
#include "img/lock.h"

#include <fcntl.h>

#include "base/bits.h"

enum { DO_BASE = 100, DENY_BASE = 200 };

/* QEMU's block permissions, the bits that matter here. */
enum { READ = 0, WRITE = 1, WRITE_UNCHANGED = 2, RESIZE = 3, N_BITS = 5 };

#define READER_DOES (BIT(READ))
#define WRITER_DOES (BIT(READ) | BIT(WRITE) | BIT(RESIZE))
#define DENIED      (BIT(WRITE) | BIT(RESIZE)) /* by readers and writers alike */

static bool no_such_locks(int e)
{
	return e == EINVAL || e == ENOLCK || e == ENOSYS || e == EOPNOTSUPP;
}

/* 0, or -errno. */
static int lock_byte(int fd, int cmd, short type, unsigned byte, bool *taken)
{
	struct flock fl = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	if (fcntl(fd, cmd, &fl) < 0)
		return -errno;
	*taken = fl.l_type != F_UNLCK;
	return 0;
}

static int set_all(int fd, unsigned base, uint64_t bits)
{
	bool taken;
	int rc = 0;

	for (unsigned i = 0; i < N_BITS && !rc; i++)
		if (bits & BIT(i))
			rc = lock_byte(fd, F_OFD_SETLK, F_RDLCK, base + i, &taken);
	return rc;
}

/* Does anybody else hold a byte of `bits`? A write lock would meet his read lock. */
static int any_taken(int fd, unsigned base, uint64_t bits, bool *taken)
{
	int rc = 0;

	*taken = false;
	for (unsigned i = 0; i < N_BITS && !rc && !*taken; i++)
		if (bits & BIT(i))
			rc = lock_byte(fd, F_OFD_GETLK, F_WRLCK, base + i, taken);
	return rc;
}

int lock_image(int fd, bool write, const char *path, struct err *err)
{
	uint64_t does = write ? WRITER_DOES : READER_DOES;
	bool denied = false, done = false;
	int rc;

	/* Say what we do before looking at what others do: of two that come at once, none gets through. */
	rc = set_all(fd, DO_BASE, does);
	if (!rc)
		rc = set_all(fd, DENY_BASE, DENIED);
	if (!rc)
		rc = any_taken(fd, DENY_BASE, does, &denied);
	if (!rc)
		rc = any_taken(fd, DO_BASE, DENIED, &done);
	if (rc && no_such_locks(-rc))
		return 0;
	if (rc == -EAGAIN || rc == -EACCES)
		denied = true;
	else if (rc)
		return err_sys(err, -rc, "cannot lock '%s'", path);
	if (done)
		return err_set(err, EBUSY,
			       "'%s' is in use: another program, perhaps a running "
			       "virtual machine, has it open for writing",
			       path);
	if (denied)
		return err_set(
			err, EBUSY,
			"'%s' is in use: another program has it open and does not "
			"allow that it is %s",
			path, write ? "changed" : "read");
	return 0;
}
