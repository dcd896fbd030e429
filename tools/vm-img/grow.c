/*
 * vm-img/grow.c - resize --grow-last. The file system is copied to a temporary file, checked and enlarged there by its own
 * programs (e2fsck, resize2fs, ntfsresize), and what they changed comes back. Before anything of the old disk is overwritten, it
 * stands in an undo file on the disk: so the image is never left half done. Main thread.
 */
#include "grow.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/size.h"
#include "part/grow.h"

#define STEP  (1u << 20)
#define PIECE 4096u

/* ---- the undo file: a head, and what stood where; the last record has no length ---- */

static const char undo_magic[16] = "vm-img undo 1\n";

struct record {
	le64 off, len;
};

static int undo_begin(const char *path, int *fd, struct err *err)
{
	*fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*fd < 0)
		return err_sys(err, errno, "cannot make the undo file '%s'", path);
	if (fd_write_full(*fd, undo_magic, sizeof(undo_magic)))
		return err_sys(err, errno, "cannot write '%s'", path);
	return 0;
}

static int undo_add(int fd, struct img *img, uint64_t off, uint64_t len,
		    struct err *err)
{
	struct record r = {le64_make(off), le64_make(len)};
	uint8_t *buf = malloc(len + 1);
	int rc = buf ? img_read(img, buf, off, len) : -ENOMEM;

	if (!rc)
		rc = fd_write_full(fd, &r, sizeof(r));
	if (!rc)
		rc = fd_write_full(fd, buf, len);
	free(buf);
	return rc ? err_sys(err, rc < 0 ? -rc : EIO, "cannot save what is overwritten")
		  : 0;
}

/* It and its name are on the disk afterwards. */
static int undo_end(int fd, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int folder = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct record r = {0};
	int rc = fd_write_full(fd, &r, sizeof(r));

	if (!rc && (fsync(fd) || (folder >= 0 && fsync(folder) && errno == EIO)))
		rc = -errno;
	if (folder >= 0)
		close(folder);
	free(dir);
	return rc ? err_sys(err, rc < 0 ? -rc : EIO, "cannot write the undo file") : 0;
}

/* One pass over the records: looks at them only, or puts them back. */
static int undo_walk(int fd, struct img *img, bool apply, struct err *err)
{
	uint64_t at = sizeof(undo_magic);
	uint8_t *buf = malloc(STEP);
	struct record r;
	int rc = buf ? 0 : err_set(err, ENOMEM, "no memory");

	while (!rc) {
		uint64_t off, len;

		bool there = fd_pread_full(fd, &r, sizeof(r), at) == sizeof(r);

		off = le64_get(r.off);
		len = there ? le64_get(r.len) : 0;
		at += sizeof(r);
		if (there && !len)
			break;
		if (len > STEP || (there && !range_ok(off, len, img_size(img))))
			rc = err_set(err, EUCLEAN,
				     "the undo file does not belong to this image");
		else if (!there || fd_pread_full(fd, buf, len, at) != (int64_t)len)
			rc = err_set(
				err, EUCLEAN,
				"the undo file has no end: nothing was overwritten "
				"when it was made");
		else if (apply && (rc = img_write(img, buf, off, len)))
			err_sys(err, -rc, "cannot write '%s' at offset %" PRIu64,
				img_path(img), off);
		at += len;
	}
	free(buf);
	return rc;
}

static int undo_apply_file(int fd, struct img *img, struct err *err)
{
	char magic[sizeof(undo_magic)];
	int rc;

	if (fd_pread_full(fd, magic, sizeof(magic), 0) != sizeof(magic) ||
	    memcmp(magic, undo_magic, sizeof(magic)))
		return err_set(err, EINVAL, "this is no undo file");
	rc = undo_walk(fd, img, false, err);
	if (!rc)
		rc = undo_walk(fd, img, true, err);
	if (!rc && (rc = img_flush(img)))
		err_sys(err, -rc, "cannot write '%s'", img_path(img));
	return rc;
}

int grow_take_back(struct img *img, const char *undo)
{
	int fd = open(undo, O_RDONLY | O_CLOEXEC), rc;
	struct err err;

	if (fd < 0)
		rc = err_sys(&err, errno, "cannot open '%s'", undo);
	else
		rc = undo_apply_file(fd, img, &err);
	if (fd >= 0)
		close(fd);
	if (!rc)
		unlink(undo);
	return rc ? fail(&err) : 0;
}

/* ---- the copy ---- */

static int copy_out(struct img *img, uint64_t off, uint64_t len, int fd,
		    struct err *err)
{
	uint8_t *buf = malloc(STEP);
	struct img_extent e;
	int rc = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < len && !rc; at += e.len) {
		if (stop)
			rc = -EINTR;
		else
			rc = img_map(img, off + at, min_u64(len - at, STEP), &e);
		if (rc || e.kind == IMG_ZERO)
			continue;
		rc = img_read(img, buf, off + at, e.len);
		if (!rc && fd_pwrite_full(fd, buf, e.len, at))
			rc = -EIO;
	}
	free(buf);
	return rc ? err_sys(err, -rc, "cannot copy the file system of '%s'",
			    img_path(img))
		  : 0;
}

/* ---- programs ---- */

/* Runs one on the copy, which is its descriptor 9. Its status, or -errno; the last line of what it says in `line`. */
static int run_tool(const char *const *argv, int fd, char *line, size_t size)
{
	char out[4096], *p;
	FILE *said = tmpfile();
	int status, n;
	pid_t pid;

	*line = 0;
	if (!said)
		return -errno;
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		if (dup2(null, 0) < 0 || dup2(fileno(said), 1) < 0 ||
		    dup2(fileno(said), 2) < 0 || dup2(fd, 9) < 0)
			_exit(127);
		setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
		setenv("LC_ALL", "C", 1);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		n = -errno;
		fclose(said);
		return n;
	}
	n = (int)fd_pread_full(fileno(said), out, sizeof(out) - 1, 0);
	out[n > 0 ? n : 0] = 0;
	fclose(said);
	for (n = (int)strlen(out); n && out[n - 1] == '\n'; n--)
		out[n - 1] = 0;
	p = strrchr(out, '\n');
	snprintf(line, size, "%s", p ? p + 1 : out);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

#define COPY "/proc/self/fd/9"

/* A temporary file with a name: some programs look for it in the list of mounts. */
static int named_temp(char *path, size_t size, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	snprintf(path, size, "%s/vm-img-XXXXXX", dir && *dir ? dir : "/var/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "cannot make a temporary file") : fd;
}

struct grower {
	const char *type; /* libblkid's */
	/* what checks it first (statuses above `fine` are failures), and what makes it larger */
	const char *check[6];
	int fine;
	const char *tool[8];
	const char *unit; /* of the size: behind the number */
	unsigned shift;
	bool named;       /* the copy has to have a name */
	const char *note; /* there is no program: what to do */
};

/* clang-format off */
#define EXT(name) {.type = name, .check = {"e2fsck", "-f", "-p", COPY}, .fine = 1, \
		   .tool = {"resize2fs", COPY, "SIZE"}, .unit = "s", .shift = 9}
static const struct grower growers[] = {
	EXT("ext2"), EXT("ext3"), EXT("ext4"),
	{.type = "ntfs", .tool = {"ntfsresize", "--force", "--force", "--no-progress-bar", "--size", "SIZE", COPY},
	 .unit = "", .named = true},
	{.type = "xfs", .note = "XFS grows only while it is mounted: 'xfs_growfs /' in the guest"},
	{.type = "btrfs", .note = "btrfs grows only while it is mounted: 'btrfs filesystem resize max /' in the guest"},
	{.type = "LVM2_member", .note = "a physical volume of LVM: 'pvresize' in the guest"},
	{.type = "crypto_LUKS", .note = "LUKS takes the new size when it is opened; what is in it grows in the guest"},
	{.type = "swap", .note = "swap: 'mkswap' in the guest uses the rest"},
	{.type = "vfat", .note = "FAT is left as large as it was"},
	{.type = "exfat", .note = "exFAT is left as large as it was"},
};
/* clang-format on */

static const struct grower *grower_of(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(growers); i++)
		if (!strcmp(growers[i].type, type))
			return &growers[i];
	return NULL;
}

static int tool_failed(const char *name, int st, const char *line, struct err *err)
{
	if (st == 127)
		return err_set(err, ENOENT,
			       "'%s' is not installed: it makes this file system "
			       "larger; nothing was changed but the disk's size",
			       name);
	return err_set(err, EUCLEAN, "%s failed (%d): %.100s", name, st, line);
}

/* Makes the copy's file system as large as `len` bytes. */
static int enlarge(const struct grower *g, int fd, const char *path, uint64_t len,
		   struct err *err)
{
	const char *argv[8];
	char size[40], line[160];
	int st;

	if (g->check[0]) {
		st = run_tool(g->check, fd, line, sizeof(line));
		if (st < 0 || st > g->fine)
			return tool_failed(g->check[0], st, line, err);
	}
	snprintf(size, sizeof(size), "%" PRIu64 "%s", len >> g->shift, g->unit);
	for (unsigned i = 0; i < ARRAY_LEN(argv); i++) {
		argv[i] = g->tool[i];
		if (argv[i] && !strcmp(argv[i], "SIZE"))
			argv[i] = size;
		else if (argv[i] && g->named && !strcmp(argv[i], COPY))
			argv[i] = path;
	}
	st = run_tool(argv, fd, line, sizeof(line));
	return st ? tool_failed(argv[0], st, line, err) : 0;
}

/* ---- what the programs changed ---- */

struct change {
	uint64_t off, len; /* in the copy */
};

struct changes {
	struct change *v;
	size_t n, size;
};

static int add_change(struct changes *c, uint64_t off, uint64_t len)
{
	struct change *last = c->n ? &c->v[c->n - 1] : NULL;

	if (last && last->off + last->len == off && last->len + len <= STEP) {
		last->len += len;
		return 0;
	}
	if (c->n == c->size) {
		size_t n = c->size ? c->size * 2 : 64;

		last = mem_resize(c->v, n, sizeof(*last));
		if (!last)
			return -ENOMEM;
		c->v = last;
		c->size = n;
	}
	c->v[c->n++] = (struct change){off, len};
	return 0;
}

/* Where copy and image both hold nothing from `at` on: how many bytes of it. */
static uint64_t both_empty(struct img *img, uint64_t off, uint64_t at, uint64_t len,
			   int fd)
{
	struct img_extent e;
	off_t data;

	if (img_map(img, off + at, len - at, &e) || e.kind != IMG_ZERO)
		return 0;
	data = lseek(fd, (off_t)at, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? e.len : 0;
	return align_down(min_u64(e.len, (uint64_t)data - at), PIECE);
}

static int compare(struct img *img, uint64_t off, uint64_t len, int fd,
		   struct changes *c, struct err *err)
{
	uint8_t *a = malloc(STEP), *b = malloc(STEP);
	int rc = a && b ? 0 : -ENOMEM;
	uint64_t n;

	for (uint64_t at = 0; at < len && !rc; at += n) {
		n = both_empty(img, off, at, len, fd);
		if (n)
			continue;
		n = min_u64(STEP, len - at);
		rc = img_read(img, a, off + at, n);
		if (!rc && fd_pread_full(fd, b, n, at) != (int64_t)n)
			rc = -EIO;
		for (uint64_t i = 0; i < n && !rc; i += PIECE) {
			uint64_t k = min_u64(PIECE, n - i);

			if (memcmp(a + i, b + i, k))
				rc = add_change(c, at + i, k);
		}
	}
	free(a);
	free(b);
	return rc ? err_sys(err, -rc, "cannot read '%s'", img_path(img)) : 0;
}

/* ---- all together ---- */

struct job {
	struct img *img;
	struct part_growth g;
	struct changes changes;
	const struct grower *how;
	int copy, undo;
	const char *undo_path;
};

static int write_changes(struct job *j, bool behind, struct err *err)
{
	uint8_t *buf = malloc(STEP);
	int rc = buf ? 0 : -ENOMEM;

	for (size_t i = 0; i < j->changes.n && !rc; i++) {
		const struct change *c = &j->changes.v[i];

		if ((c->off >= j->g.len) != behind)
			continue;
		if (fd_pread_full(j->copy, buf, c->len, c->off) != (int64_t)c->len)
			rc = -EIO;
		else
			rc = img_write(j->img, buf, j->g.off + c->off, c->len);
	}
	free(buf);
	if (!rc)
		rc = img_flush(j->img);
	return rc ? err_sys(err, -rc, "cannot write '%s'", img_path(j->img)) : 0;
}

static int write_table(struct job *j, struct err *err)
{
	int rc = 0;

	/* The last ones first: the second table is there when the first one names it. */
	for (size_t i = j->g.n; i-- > 0 && !rc;) {
		const struct part_patch *p = &j->g.v[i];

		rc = img_write(j->img, p->data, p->off, p->len);
		if (!rc && p->off > j->g.off && i && j->g.v[i - 1].off < j->g.off)
			rc = img_flush(j->img);
	}
	if (!rc)
		rc = img_flush(j->img);
	return rc ? err_sys(err, -rc, "cannot write '%s'", img_path(j->img)) : 0;
}

static int save(struct job *j, struct err *err)
{
	int rc = undo_begin(j->undo_path, &j->undo, err);

	for (size_t i = 0; i < j->g.n && !rc; i++)
		rc = undo_add(j->undo, j->img, j->g.v[i].off, j->g.v[i].len, err);
	for (size_t i = 0; i < j->changes.n && !rc; i++) {
		const struct change *c = &j->changes.v[i];

		if (c->off < j->g.len)
			rc = undo_add(j->undo, j->img, j->g.off + c->off, c->len, err);
	}
	return rc ? rc : undo_end(j->undo, j->undo_path, err);
}

/* Everything is known: writes it. What fails is taken back at once. */
static int write_all(struct job *j, struct err *err)
{
	struct err again;
	int rc = save(j, err);

	if (rc) {
		if (j->undo >= 0)
			unlink(j->undo_path);
		return rc;
	}
	rc = write_changes(j, true, err);
	if (!rc)
		rc = write_table(j, err);
	if (!rc)
		rc = write_changes(j, false, err);
	if (!rc || !undo_apply_file(j->undo, j->img, &again)) {
		unlink(j->undo_path);
		return rc;
	}
	fprintf(stderr,
		"%s: note: '%s' holds what was there before: 'vm-img resize "
		"--take-back %s IMAGE' puts it back\n",
		page.name, j->undo_path, j->undo_path);
	return rc;
}

/* Copies the file system, and has it made larger there. */
static int grow_copy(struct job *j, struct err *err)
{
	char path[512] = "";
	int rc;

	j->copy =
		j->how->named ? named_temp(path, sizeof(path), err) : img_temp_fd(err);
	if (j->copy < 0)
		return j->copy;
	if (ftruncate(j->copy, (off_t)j->g.new_len))
		rc = err_sys(err, errno,
			     "cannot make a temporary file of %" PRIu64 " bytes",
			     j->g.new_len);
	else
		rc = copy_out(j->img, j->g.off, j->g.len, j->copy, err);
	if (!rc)
		rc = enlarge(j->how, j->copy, path, j->g.new_len, err);
	if (*path)
		unlink(path);
	return rc;
}

static int grow_content(struct job *j, struct err *err)
{
	struct part_content what;
	int rc = part_recognize(j->img, j->g.off, j->g.len, &what, err);

	if (rc)
		return rc;
	j->how = grower_of(what.type);
	/* Without a table nothing tells how large it was. */
	if (!j->how || j->how->note || (j->g.number && j->g.new_len == j->g.len))
		return 0;
	rc = grow_copy(j, err);
	return rc ? rc
		  : compare(j->img, j->g.off, j->g.new_len, j->copy, &j->changes, err);
}

static void tell(const struct job *j)
{
	char a[32], b[32];

	size_format(j->g.len, a, sizeof(a));
	size_format(j->g.new_len, b, sizeof(b));
	if (j->g.number && j->g.new_len == j->g.len) {
		printf("There is no room behind the last partition.\n");
		return;
	}
	if (j->g.number)
		printf("Partition %u: %s, was %s.\n", j->g.number, b, a);
	if (j->how && j->how->note)
		printf("Note: %s.\n", j->how->note);
	else if (j->how)
		printf("File system (%s): %s.\n", j->how->type, b);
	else
		printf("Note: what is in it is not known, and was left alone.\n");
}

int grow_last(const struct common *c, struct img *img, const char *undo)
{
	struct job j = {.img = img, .copy = -1, .undo = -1, .undo_path = undo};
	char *beside = NULL;
	struct err err;
	int rc;

	if (!undo && asprintf(&beside, "%s.undo", img_path(img)) < 0)
		return CLI_FAILED;
	if (!undo)
		j.undo_path = beside;
	rc = part_grow_last(img, &j.g, &err);
	if (!rc)
		rc = grow_content(&j, &err);
	if (!rc && (j.g.n || j.changes.n))
		rc = write_all(&j, &err);
	if (!rc && !c->quiet)
		tell(&j);
	if (j.copy >= 0)
		close(j.copy);
	if (j.undo >= 0)
		close(j.undo);
	free(j.changes.v);
	free(beside);
	part_growth_free(&j.g);
	return rc ? fail(&err) : 0;
}
