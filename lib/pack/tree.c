/* pack/tree.c - puts layers together. One thread. Whiteouts: the OCI image layer specification. */
#include "pack/tree.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"

#define BLOCK     65536
#define MAX_NAME  255
#define MAX_DEPTH 200
#define MAX_LINK  4096

/* ---- names ---- */

static uint32_t hash_name(uint32_t parent, const char *name, size_t len)
{
	uint32_t h = 2166136261u ^ parent * 16777619u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 16777619u;
	return h;
}

static uint32_t find(const struct tree *t, uint32_t parent, const char *name,
		     size_t len)
{
	uint32_t i =
		t->table_size
			? t->table[hash_name(parent, name, len) & (t->table_size - 1)]
			: TREE_NONE;

	while (i != TREE_NONE &&
	       (t->node[i].parent != parent || strncmp(t->node[i].name, name, len) ||
		t->node[i].name[len]))
		i = t->node[i].hash_next;
	return i;
}

static void enter(struct tree *t, uint32_t i)
{
	const char *name = t->node[i].name;
	uint32_t *slot = &t->table[hash_name(t->node[i].parent, name, strlen(name)) &
				   (t->table_size - 1)];

	t->node[i].hash_next = *slot;
	*slot = i;
}

static int grow_table(struct tree *t)
{
	uint32_t size = t->table_size ? t->table_size * 2 : 1024;
	uint32_t *v = mem_resize(t->table, size, sizeof(*v));

	if (!v)
		return -ENOMEM;
	t->table = v;
	t->table_size = size;
	memset(v, 0xff, size * sizeof(*v));
	for (uint32_t i = 1; i < t->n_nodes; i++)
		if (t->node[i].parent != TREE_NONE)
			enter(t, i);
	return 0;
}

static int add_object(struct tree *t, const struct tree_object *o, uint32_t *out)
{
	if (t->n_objects == t->object_size) {
		uint32_t more = t->object_size ? t->object_size * 2 : 1024;
		struct tree_object *v = mem_resize(t->object, more, sizeof(*v));

		if (!v || more > TREE_MAX)
			return v ? -EFBIG : -ENOMEM;
		t->object = v;
		t->object_size = more;
	}
	*out = t->n_objects++;
	t->object[*out] = *o;
	return 0;
}

static int add_node(struct tree *t, uint32_t parent, const char *name, size_t len,
		    uint32_t *out)
{
	struct tree_node *x;

	if (t->n_nodes == t->node_size) {
		uint32_t more = t->node_size ? t->node_size * 2 : 1024;
		struct tree_node *v = mem_resize(t->node, more, sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->node = v;
		t->node_size = more;
		if (more > TREE_MAX)
			return -EFBIG;
	}
	*out = t->n_nodes;
	x = &t->node[t->n_nodes];
	*x = (struct tree_node){.name = strndup(name, len),
				.parent = parent,
				.object = TREE_NONE,
				.child = TREE_NONE,
				.next = TREE_NONE,
				.hash_next = TREE_NONE};
	if (!x->name)
		return -ENOMEM;
	t->n_nodes++;
	if (parent == TREE_NONE)
		return 0;
	x->next = t->node[parent].child;
	t->node[parent].child = *out;
	if (t->n_nodes > t->table_size)
		return grow_table(t);
	enter(t, *out);
	return 0;
}

static void set_object(struct tree *t, uint32_t node, uint32_t object)
{
	uint32_t old = t->node[node].object;

	if (old != TREE_NONE)
		t->object[old].names--;
	if (object != TREE_NONE)
		t->object[object].names++;
	t->node[node].object = object;
}

/* Takes away what is below a node, and with `self` the node's own object: nodes stay, without objects. */
static void clear(struct tree *t, uint32_t top, uint32_t before, bool self)
{
	uint32_t i = top;

	for (;;) {
		uint32_t o = t->node[i].object;

		/* what this layer brought stays */
		if ((i != top || self) && o != TREE_NONE && t->object[o].layer < before)
			set_object(t, i, TREE_NONE);
		if (t->node[i].child != TREE_NONE) {
			i = t->node[i].child;
			continue;
		}
		while (i != top && t->node[i].next == TREE_NONE)
			i = t->node[i].parent;
		if (i == top)
			break;
		i = t->node[i].next;
	}
}

/* ---- entries ---- */

struct reader {
	struct tree *t;
	const struct tree_layer *layer;
	uint32_t index, seq; /* of the layer, of the entry */
};

static int refuse(const struct reader *r, const char *path, const char *why,
		  struct err *err)
{
	return err_set(err, EINVAL, "'%.80s' in '%.60s' %s", path, r->layer->name, why);
}

static bool is_dir(const struct tree *t, uint32_t node)
{
	uint32_t o = t->node[node].object;

	return o != TREE_NONE && S_ISDIR(t->object[o].mode);
}

/* A folder that no entry was there for. */
static int imply_dir(struct reader *r, uint32_t node)
{
	struct tree_object o = {
		.layer = r->index, .seq = TREE_NONE, .mode = S_IFDIR | 0755};
	uint32_t i;
	int rc = add_object(r->t, &o, &i);

	if (!rc)
		set_object(r->t, node, i);
	return rc;
}

/* Finds or makes the node for `path`; its folders are made. *last: the last part of the name. -ENOENT: it is not there,
 * without `make`. */
static int walk(struct reader *r, const char *path, bool make, uint32_t *out,
		struct err *err)
{
	uint32_t at = TREE_ROOT, depth = 0;
	const char *s = path;
	int rc = 0;

	for (;;) {
		size_t n;
		uint32_t next;

		s += strspn(s, "/");
		n = strcspn(s, "/");
		if (!n)
			break;
		if (n == 1 && *s == '.') {
			s++;
			continue;
		}
		if (n == 2 && !memcmp(s, "..", 2))
			return refuse(r, path, "leads out of the tree", err);
		if (n > MAX_NAME || ++depth > MAX_DEPTH)
			return refuse(r, path, "is too long a name", err);
		if (!is_dir(r->t, at)) {
			if (r->t->node[at].object != TREE_NONE)
				return refuse(r, path, "lies below what is no folder",
					      err);
			if (!make)
				return -ENOENT;
			rc = imply_dir(r, at);
		}
		next = find(r->t, at, s, n);
		if (!rc && next == TREE_NONE && !make)
			return -ENOENT;
		if (!rc && next == TREE_NONE)
			rc = add_node(r->t, at, s, n, &next);
		if (rc)
			return err_set(err, -rc, "'%s' holds too many files",
				       r->layer->name);
		at = next;
		s += n;
	}
	*out = at;
	return 0;
}

/* ".wh.NAME" */
static int whiteout(struct reader *r, const char *path, const char *base,
		    struct err *err)
{
	char *dir = strndup(path, (size_t)(base - path)), *full = NULL;
	bool all = !strcmp(base, ".wh..wh..opq");
	uint32_t node;
	int rc;

	if (!dir || (!all && asprintf(&full, "%s%s", dir, base + 4) < 0)) {
		free(dir);
		return err_set(err, ENOMEM, "no memory to read '%s'", r->layer->name);
	}
	rc = walk(r, all ? dir : full, false, &node, err);
	if (!rc && (all || node != TREE_ROOT))
		clear(r->t, node, r->index, !all);
	free(dir);
	free(full);
	return rc == -ENOENT ? 0 : rc;
}

static int hard_link(struct reader *r, const char *path, uint32_t node,
		     const char *target, struct err *err)
{
	uint32_t to, object;
	int rc = walk(r, target, false, &to, err);

	if (rc == -ENOENT || (!rc && r->t->node[to].object == TREE_NONE))
		return refuse(r, path, "is a link to what is not there", err);
	if (rc)
		return rc;
	object = r->t->node[to].object;
	if (S_ISDIR(r->t->object[object].mode))
		return refuse(r, path, "is a link to a folder", err);
	if (r->t->object[object].names >= 60000)
		return refuse(r, path, "is one link too many", err);
	set_object(r->t, node, object);
	return 0;
}

/* What replaces a folder takes away all that was in it. */
static int replace(struct reader *r, const char *path, uint32_t node, bool dir,
		   struct err *err)
{
	if (dir || !is_dir(r->t, node))
		return 0;
	if (node == TREE_ROOT)
		return refuse(r, path, "is not a folder", err);
	clear(r->t, node, UINT32_MAX, true);
	return 0;
}

static int take_entry(struct reader *r, const char *path, struct archive_entry *e,
		      struct err *err)
{
	const char *link = archive_entry_hardlink(e), *target;
	struct tree_object o = {.layer = r->index,
				.seq = r->seq,
				.mode = archive_entry_mode(e),
				.uid = (uint32_t)archive_entry_uid(e),
				.gid = (uint32_t)archive_entry_gid(e),
				.mtime = archive_entry_mtime(e)};
	uint32_t node, object;
	int rc = walk(r, path, true, &node, err);

	if (!rc)
		rc = replace(r, path, node, S_ISDIR(o.mode) && !link, err);
	if (rc || link)
		return rc ? rc : hard_link(r, path, node, link, err);
	if (S_ISREG(o.mode))
		o.size =
			archive_entry_size(e) > 0 ? (uint64_t)archive_entry_size(e) : 0;
	o.major = (uint32_t)archive_entry_rdevmajor(e);
	o.minor = (uint32_t)archive_entry_rdevminor(e);
	if (S_ISLNK(o.mode)) {
		target = archive_entry_symlink(e);
		if (!target || !*target || strlen(target) >= MAX_LINK)
			return refuse(r, path, "is a link without a target", err);
		o.target = strdup(target);
		if (!o.target)
			return err_set(err, ENOMEM, "no memory to read '%s'",
				       r->layer->name);
	}
	rc = add_object(r->t, &o, &object);
	if (rc) {
		free(o.target);
		return err_set(err, -rc, "'%s' holds too many files", r->layer->name);
	}
	set_object(r->t, node, object);
	return 0;
}

static int plan_entry(struct reader *r, struct archive_entry *e, struct err *err)
{
	const char *path = archive_entry_pathname(e), *base;
	mode_t mode = archive_entry_mode(e);

	if (!path)
		return err_set(err, EINVAL, "a file in '%s' has no name",
			       r->layer->name);
	base = strrchr(path, '/');
	base = base ? base + 1 : path;
	if (r->layer->fd >= 0 && !strncmp(base, ".wh.", 4) && base[4])
		return whiteout(r, path, base, err);
	if (!archive_entry_hardlink(e) && !S_ISREG(mode) && !S_ISDIR(mode) &&
	    !S_ISLNK(mode) && !S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode))
		return 0; /* sockets are nobody's */
	return take_entry(r, path, e, err);
}

/* ---- layers ---- */

struct source {
	int fd;
	uint64_t at, end;
	uint8_t buf[BLOCK];
};

static la_ssize_t source_read(struct archive *a, void *ctx, const void **buf)
{
	struct source *s = ctx;
	int64_t n = fd_pread_full(s->fd, s->buf, min_u64(BLOCK, s->end - s->at), s->at);

	if (n < 0) {
		archive_set_error(a, (int)-n, "%s", strerror((int)-n));
		return -1;
	}
	s->at += (uint64_t)n;
	*buf = s->buf;
	return (la_ssize_t)n;
}

static la_int64_t source_skip(struct archive *a, void *ctx, la_int64_t want)
{
	struct source *s = ctx;
	struct stat st;
	uint64_t end = s->end;

	(void)a;
	if (!fstat(s->fd, &st))
		end = min_u64(end, (uint64_t)st.st_size);
	if (want < 0 || s->at >= end)
		return 0;
	want = (la_int64_t)min_u64((uint64_t)want, end - s->at);
	s->at += (uint64_t)want;
	return want;
}

static int open_layer(struct archive *a, const struct tree_layer *l, struct source *s)
{
	if (l->fd < 0) {
		archive_read_disk_set_symlink_physical(a);
		archive_read_disk_set_behavior(a, ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS);
		return archive_read_disk_open(a, l->path);
	}
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_lz4(a);
	archive_read_support_format_tar(a);
	archive_read_support_format_empty(a);
	s->fd = l->fd;
	s->at = l->off;
	s->end = l->len == UINT64_MAX ? UINT64_MAX : l->off + l->len;
	return archive_read_open2(a, s, NULL, source_read, source_skip, NULL);
}

typedef int entry_fn(void *ctx, struct archive *a, struct archive_entry *e,
		     struct err *err);

/* Folders give their files with the folder's own name in front. */
static void strip(const struct tree_layer *l, struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e), *link;
	size_t n = l->path ? strlen(l->path) : 0;
	char *copy;

	if (l->fd >= 0 || !path || strncmp(path, l->path, n))
		return;
	copy = strdup(path + n);
	if (copy)
		archive_entry_set_pathname(e, *copy ? copy : ".");
	free(copy);
	link = archive_entry_hardlink(e);
	if (link && !strncmp(link, l->path, n) && (copy = strdup(link + n))) {
		archive_entry_set_hardlink(e, copy);
		free(copy);
	}
}

/* The next entry: those of a folder may be links to one before. */
static int next_entry(struct archive *a, const struct tree_layer *l,
		      struct archive_entry_linkresolver *links,
		      struct archive_entry **out)
{
	struct archive_entry *e = *out, *spare = NULL;
	int rc;

	if (l->fd >= 0)
		return archive_read_next_header(a, out);
	archive_entry_clear(e);
	rc = archive_read_next_header2(a, e);
	if (rc < ARCHIVE_WARN || rc == ARCHIVE_EOF)
		return rc;
	archive_read_disk_descend(a);
	archive_entry_linkify(links, &e, &spare);
	archive_entry_free(spare);
	strip(l, *out);
	return rc;
}

static int read_layer(const struct tree_layer *l, const atomic_bool *stop,
		      entry_fn *each, void *ctx, struct err *err)
{
	struct archive *a = l->fd < 0 ? archive_read_disk_new() : archive_read_new();
	struct archive_entry_linkresolver *links = archive_entry_linkresolver_new();
	struct archive_entry *own = archive_entry_new(), *e = own;
	struct source *s = malloc(sizeof(*s));
	int rc = 0, got = ARCHIVE_OK;

	if (!a || !s || !links || !own) {
		rc = err_set(err, ENOMEM, "no memory to read '%s'", l->name);
		goto out;
	}
	archive_entry_linkresolver_set_strategy(links, ARCHIVE_FORMAT_TAR_USTAR);
	got = open_layer(a, l, s);
	while (!rc && got >= ARCHIVE_WARN) {
		got = next_entry(a, l, links, &e);
		if (got == ARCHIVE_EOF || got < ARCHIVE_WARN)
			break;
		rc = each(ctx, a, e, err);
		if (!rc && stop && atomic_load(stop))
			rc = err_set(err, EINTR, "interrupted");
	}
	if (!rc && got < ARCHIVE_WARN)
		rc = err_set(err, EINVAL, "cannot read '%s': %.120s", l->name,
			     archive_error_string(a));
out:
	archive_entry_linkresolver_free(links);
	archive_entry_free(own);
	archive_read_free(a);
	free(s);
	return rc;
}

static int plan_each(void *ctx, struct archive *a, struct archive_entry *e,
		     struct err *err)
{
	struct reader *r = ctx;
	int rc = plan_entry(r, e, err);

	(void)a;
	r->seq++;
	return rc;
}

int tree_build(struct tree *t, const struct tree_layer *v, unsigned n,
	       const atomic_bool *stop, struct err *err)
{
	struct tree_object root = {.seq = TREE_NONE, .mode = S_IFDIR | 0755};
	uint32_t node, object;
	int rc;

	*t = (struct tree){.stop = stop};
	rc = add_node(t, TREE_NONE, "", 0, &node);
	if (!rc)
		rc = add_object(t, &root, &object);
	if (rc)
		return err_set(err, ENOMEM, "no memory for a tree");
	set_object(t, node, object);
	for (unsigned i = 0; i < n && !rc; i++) {
		struct reader r = {t, &v[i], i, 0};

		rc = read_layer(&v[i], stop, plan_each, &r, err);
	}
	return rc;
}

void tree_fini(struct tree *t)
{
	for (uint32_t i = 0; i < t->n_nodes; i++)
		free(t->node[i].name);
	for (uint32_t i = 0; i < t->n_objects; i++)
		free(t->object[i].target);
	free(t->node);
	free(t->object);
	free(t->table);
	*t = (struct tree){0};
}

/* ---- content ---- */

struct second {
	struct tree *t;
	uint32_t layer, seq, next; /* the object that comes next */
	int (*each)(void *ctx, struct tree_object *o, uint32_t object,
		    struct archive *a, struct archive_entry *e, struct err *err);
	void *ctx;
};

/* Objects stand in the order in which their entries were read. */
static int file_each(void *ctx, struct archive *a, struct archive_entry *e,
		     struct err *err)
{
	struct second *s = ctx;
	struct tree *t = s->t;
	uint32_t seq = s->seq++;
	struct tree_object *o;

	while (s->next < t->n_objects &&
	       (t->object[s->next].seq == TREE_NONE ||
		t->object[s->next].layer < s->layer ||
		(t->object[s->next].layer == s->layer && t->object[s->next].seq < seq)))
		s->next++;
	o = s->next < t->n_objects ? &t->object[s->next] : NULL;
	if (!o || o->layer != s->layer || o->seq != seq || !o->names ||
	    !S_ISREG(o->mode))
		return 0;
	return s->each(s->ctx, o, s->next, a, e, err);
}

int tree_files(struct tree *t, const struct tree_layer *v, unsigned n,
	       int (*each)(void *ctx, struct tree_object *o, uint32_t object,
			   struct archive *a, struct archive_entry *e, struct err *err),
	       void *ctx, struct err *err)
{
	struct second s = {.t = t, .each = each, .ctx = ctx};
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++) {
		s.layer = i;
		s.seq = 0;
		rc = read_layer(&v[i], t->stop, file_each, &s, err);
	}
	return rc;
}
