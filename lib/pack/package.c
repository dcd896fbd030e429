/* pack/package.c - the kinds of packages, their files, disks and digests. One thread. */
#include "pack/package.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "pack/hash.h"
#include "pack/package_int.h"
#include "pack/spool.h"

/* In the order in which they are tried. */
static const struct package_kind *const kinds[] = {
	&package_xva, &package_ova, &package_box, &package_ovf,
	&package_vma, &package_vmx, &package_pvm,
};

/* ---- opening ---- */

void package_close(struct package *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->n_disks; i++) {
		free(p->disk[i].name);
		free(p->disk[i].format);
		free(p->disk[i].bus);
		free(p->disk[i].path);
		free(p->disk[i].v);
	}
	for (unsigned i = 0; i < p->n_files; i++)
		free(p->file[i].name);
	for (unsigned i = 0; i < p->n_digests; i++)
		free(p->digest[i].what);
	free(p->file);
	free(p->digest);
	free(p->block);
	free(p->name);
	free(p->os);
	free(p->firmware);
	free(p->path);
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

static int try_kind(const struct package_kind *k, int fd, const char *path,
		    const atomic_bool *stop, struct package **out, struct err *err)
{
	struct package *p = NEW(struct package);
	int rc;

	if (!p)
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	p->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	p->kind = k;
	p->stop = stop;
	p->path = strdup(path);
	if (!p->path || (fd >= 0 && p->fd < 0))
		rc = err_set(err, ENOMEM, "no memory to open '%s'", path);
	else
		rc = k->open(p, err);
	if (rc) {
		package_close(p);
		return rc;
	}
	*out = p;
	return 0;
}

static int open_kinds(int fd, const char *path, const uint8_t *head, size_t len,
		      const atomic_bool *stop, struct package **out, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		int rc;

		if (!kinds[i]->probe(path, head, len))
			continue;
		rc = try_kind(kinds[i], fd, path, stop, out, err);
		if (rc <= 0)
			return rc;
	}
	return 0;
}

int package_open_fd(int fd, const char *name, const atomic_bool *stop,
		    struct package **out, struct err *err)
{
	uint8_t head[1024];
	struct stat st;
	int64_t n;
	int rc = 0;

	*out = NULL;
	n = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)
		    ? 0
		    : fd_pread_full(fd, head, sizeof(head), 0);
	if (n < 0)
		rc = err_sys(err, (int)-n, "cannot read '%s'", name);
	else if (n)
		rc = open_kinds(fd, name, head, (size_t)n, stop, out, err);
	close(fd);
	return rc;
}

int package_open(const char *path, const atomic_bool *stop, struct package **out,
		 struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	*out = NULL;
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (!fstat(fd, &st) && S_ISDIR(st.st_mode)) {
		close(fd);
		return open_kinds(-1, path, NULL, 0, stop, out, err);
	}
	return package_open_fd(fd, path, stop, out, err);
}

bool package_kind_at(unsigned i, const char **name, const char **title)
{
	if (i >= ARRAY_LEN(kinds))
		return false;
	*name = kinds[i]->name;
	*title = kinds[i]->title;
	return true;
}

/* ---- telling ---- */

void package_info(const struct package *p, struct package_info *info)
{
	*info = (struct package_info){
		.kind = p->kind->name,
		.title = p->kind->title,
		.name = p->name,
		.os = p->os,
		.firmware = p->firmware,
		.memory = p->memory,
		.cpus = p->cpus,
		.n_disks = p->n_disks,
	};
}

void package_disk_info(const struct package *p, unsigned i,
		       struct package_disk_info *info)
{
	const struct package_disk *d = &p->disk[i];

	*info = (struct package_disk_info){
		.name = d->name, .format = d->format, .bus = d->bus, .size = d->size};
}

/* ---- what the kinds fill in ---- */

struct package_disk *package_add_disk(struct package *p, const char *name,
				      struct err *err)
{
	struct package_disk *d = &p->disk[p->n_disks];

	if (p->n_disks == MAX_DISKS) {
		err_set(err, EFBIG, "'%s' has more than %d disks", p->path, MAX_DISKS);
		return NULL;
	}
	d->name = strdup(name);
	if (!d->name) {
		err_set(err, ENOMEM, "no memory to open '%s'", p->path);
		return NULL;
	}
	p->n_disks++;
	return d;
}

int package_add_file(struct package *p, const struct tar_entry *e, struct err *err)
{
	struct package_file *f;

	if (p->n_files == MAX_FILES)
		return err_set(err, EFBIG, "'%s' holds more than %d files", p->path,
			       MAX_FILES);
	if (p->n_files == p->file_size) {
		unsigned more = p->file_size ? p->file_size * 2 : 16;

		f = mem_resize(p->file, more, sizeof(*f));
		if (!f)
			return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
		p->file = f;
		p->file_size = more;
	}
	f = &p->file[p->n_files];
	*f = (struct package_file){strdup(e->name), e->off, e->size};
	if (!f->name)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	p->n_files++;
	return 0;
}

const struct package_file *package_find_file(const struct package *p, const char *name)
{
	while (!strncmp(name, "./", 2))
		name += 2;
	for (unsigned i = 0; i < p->n_files; i++)
		if (!strcmp(p->file[i].name, name))
			return &p->file[i];
	return NULL;
}

int package_add_piece(struct package_disk *d, uint64_t off, uint64_t file_off,
		      uint32_t len)
{
	struct img_piece *last = d->n ? &d->v[d->n - 1] : NULL;

	if (last && last->off + last->len == off &&
	    last->file_off + last->len == file_off && len <= UINT32_MAX - last->len) {
		last->len += len;
		return 0;
	}
	if (d->n == d->v_size) {
		size_t more = d->v_size ? d->v_size * 2 : 256;
		struct img_piece *v = mem_resize(d->v, more, sizeof(*v));

		if (!v)
			return -ENOMEM;
		d->v = v;
		d->v_size = more;
	}
	d->v[d->n++] = (struct img_piece){off, file_off, len};
	return 0;
}

int package_load(const struct package *p, const struct package_file *f, uint64_t max,
		 void **buf, struct err *err)
{
	char *text;
	int64_t n;

	*buf = NULL;
	if (f->size > max)
		return err_set(err, EFBIG,
			       "'%.80s' in '%s' has %llu bytes, more than the %llu "
			       "that are read",
			       f->name, p->path, (unsigned long long)f->size,
			       (unsigned long long)max);
	text = malloc(f->size + 1);
	if (!text)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	n = fd_pread_full(p->fd, text, f->size, f->off);
	if (n != (int64_t)f->size) {
		free(text);
		return err_sys(err, n < 0 ? (int)-n : EIO,
			       "cannot read '%.80s' in '%s'", f->name, p->path);
	}
	text[n] = 0;
	*buf = text;
	return 0;
}

/* ---- names ---- */

bool package_name_ok(const char *name)
{
	if (!*name || *name == '/' || strchr(name, ':') || strchr(name, '\\'))
		return false;
	for (const char *s = name; s; s = strchr(s, '/')) {
		s += *s == '/';
		if (!strncmp(s, "..", 2) && (!s[2] || s[2] == '/'))
			return false;
	}
	return true;
}

int package_beside(const struct package *p, const char *folder, const char *name,
		   char **out, struct err *err)
{
	char *path = NULL, *real = NULL, *top = NULL;
	size_t n;
	int rc = 0;

	*out = NULL;
	if (!package_name_ok(name))
		return err_set(err, EACCES,
			       "'%s' names '%.80s', which is outside the package",
			       p->path, name);
	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	real = realpath(path, NULL);
	top = realpath(folder, NULL);
	n = top ? strlen(top) : 0;
	if (!real || !top)
		rc = err_sys(err, errno, "cannot open '%s', a part of '%s'", path,
			     p->path);
	else if (strcmp(top, "/") && (strncmp(real, top, n) || real[n] != '/'))
		rc = err_set(err, EACCES,
			     "'%s', a part of '%s', is a link that leads out of it",
			     path, p->path);
	free(real);
	free(top);
	if (rc)
		free(path);
	else
		*out = path;
	return rc;
}

/* ---- disks ---- */

/* A file that is packed as a whole, unpacked to a temporary one. */
static int open_packed(struct package *p, const struct package_disk *d, int fd,
		       const char *name, const struct img_opts *o, struct img **out,
		       struct err *err)
{
	int tmp = img_temp_fd(err), rc = tmp < 0 ? tmp : 0;

	if (!rc && lseek(fd, (off_t)d->off, SEEK_SET) < 0)
		rc = err_sys(err, errno, "cannot read '%s'", name);
	if (!rc)
		rc = spool_unpack(fd, name, tmp, p->stop, err);
	close(fd);
	if (rc) {
		if (tmp >= 0)
			close(tmp);
		return rc;
	}
	return img_open_fd(tmp, name, o, out, err);
}

static int open_pieces(struct package *p, const struct package_disk *d, int fd,
		       const char *name, struct img **out, struct err *err)
{
	struct img_piece *v = mem_new(d->n + 1, sizeof(*v));

	if (!v) {
		close(fd);
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	}
	if (d->n)
		memcpy(v, d->v, d->n * sizeof(*v));
	return img_open_pieces(fd, name, d->size, v, d->n, out, err);
}

int package_open_disk(struct package *p, unsigned i, const struct img_opts *opts,
		      struct img **out, struct err *err)
{
	const struct package_disk *d = &p->disk[i];
	struct img_opts o = {.read_only = true, .format = d->format};
	char *name = NULL;
	int fd, rc;

	*out = NULL;
	if (opts) {
		o.no_lock = opts->no_lock;
		o.allow_external = opts->allow_external;
	}
	if (d->path && !d->gzip)
		return img_open(d->path, &o, out, err);
	/* What the disk names is looked for in the package, where there is no folder: not found. */
	fd = d->path ? open(d->path, O_RDONLY | O_CLOEXEC)
		     : fcntl(p->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", d->name);
	if (asprintf(&name, "%s/%s", p->path, d->name) < 0) {
		close(fd);
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	}
	if (d->gzip) {
		rc = open_packed(p, d, fd, name, &o, out, err);
	} else if (d->v || !d->len) {
		rc = open_pieces(p, d, fd, name, out, err);
	} else {
		o.part_off = d->off;
		o.part_len = d->len;
		rc = img_open_fd(fd, name, &o, out, err);
	}
	free(name);
	return rc;
}

/* ---- digests ---- */

/* One line: "SHA256(name)= hex". */
static int manifest_line(struct package *p, const char *line, size_t len,
			 struct err *err)
{
	static const char *const names[] = {"SHA1", "SHA256", "SHA512"};
	const char *open = memchr(line, '(', len);
	const char *end = memrchr(line, ')', len), *at;
	struct package_digest *d;
	size_t n = 0;

	if (!open || !end || end < open)
		return -EINVAL;
	d = mem_resize(p->digest, p->n_digests + 1, sizeof(*d));
	if (!d)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	p->digest = d;
	d += p->n_digests;
	memset(d, 0, sizeof(*d));
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strlen(names[i]) == (size_t)(open - line) &&
		    !strncasecmp(line, names[i], strlen(names[i])))
			d->hash = names[i];
	for (at = end + 1; at < line + len && (*at == '=' || *at == ' '); at++)
		;
	for (;
	     at < line + len && isxdigit((unsigned char)*at) && n < sizeof(d->text) - 1;
	     at++)
		d->text[n++] = (char)tolower((unsigned char)*at);
	if (!d->hash || n != 2 * hash_len(d->hash))
		return -EINVAL;
	d->what = strndup(open + 1, (size_t)(end - open - 1));
	if (!d->what)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	p->n_digests++;
	return 0;
}

int package_manifest(struct package *p, const char *text, struct err *err)
{
	unsigned line = 1;

	for (; *text; line++) {
		size_t n = strcspn(text, "\n"), use = n;
		int rc = 0;

		while (use && strchr(" \t\r", text[use - 1]))
			use--;
		if (use && p->n_digests == MAX_FILES)
			return err_set(err, EFBIG,
				       "the manifest of '%s' has too many lines",
				       p->path);
		if (use)
			rc = manifest_line(p, text, use, err);
		if (rc == -EINVAL)
			return err_set(err, EINVAL,
				       "line %u of the manifest of '%s' is not "
				       "'SHA256(FILE)= DIGEST' or the like",
				       line, p->path);
		if (rc)
			return rc;
		text += n + (text[n] == '\n');
	}
	return 0;
}

/* The bytes that a manifest's line is about. */
static int digest_place(struct package *p, const struct package_digest *d, int *fd,
			uint64_t *off, uint64_t *len, struct err *err)
{
	const struct package_file *f;
	char *slash, *folder, *path;
	int rc;

	if (p->n_files) {
		f = package_find_file(p, d->what);
		if (!f)
			return err_set(err, EBADMSG,
				       "'%.80s' is in the manifest of '%s' but not in "
				       "the package",
				       d->what, p->path);
		*off = f->off;
		*len = f->size;
		*fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 3);
		return *fd < 0 ? err_sys(err, errno, "cannot read '%s'", p->path) : 0;
	}
	slash = strrchr(p->path, '/');
	folder = slash ? strndup(p->path, (size_t)(slash - p->path) + 1) : strdup(".");
	rc = folder ? package_beside(p, folder, d->what, &path, err)
		    : err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	free(folder);
	if (rc)
		return rc;
	*off = 0;
	*len = UINT64_MAX;
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	rc = *fd < 0 ? err_sys(err, errno, "cannot open '%s'", path) : 0;
	free(path);
	return rc;
}

int package_verify_files(struct package *p, unsigned *n, struct err *err)
{
	for (unsigned i = 0; i < p->n_digests; i++) {
		const struct package_digest *d = &p->digest[i];
		char text[HASH_TEXT];
		uint64_t off = 0, len = 0;
		int fd = -1, rc = digest_place(p, d, &fd, &off, &len, err);

		if (rc)
			return rc;
		rc = hash_file(d->hash, fd, off, len, p->stop, text);
		close(fd);
		if (rc == -EINTR)
			return err_set(err, EINTR, "interrupted");
		if (rc)
			return err_sys(err, -rc, "cannot read '%.80s' of '%s'", d->what,
				       p->path);
		if (strcmp(text, d->text))
			return err_set(err, EBADMSG,
				       "'%.80s' of '%s' is damaged: its %s is not what "
				       "the manifest says",
				       d->what, p->path, d->hash);
		++*n;
	}
	return 0;
}

int package_verify(struct package *p, unsigned *n, struct err *err)
{
	*n = 0;
	return p->kind->verify ? p->kind->verify(p, n, err) : 0;
}
