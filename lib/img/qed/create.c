/* img/qed/create.c - makes empty QED images. One thread. */
#include <string.h>

#include "img/parent.h"
#include "img/qed/qed_int.h"

enum { USUAL_CLUSTER = 65536, USUAL_TABLE = 4 };

/* clang-format off */
const struct img_option_desc qed_options[] = {
	{"cluster_size", OPTION_SIZE, NULL, "64k", "4k to 64M"},
	{"table_size", OPTION_NUMBER, NULL, "4", "clusters of a table: 2, 4, 8, 16, or 1, which QEMU does not open"},
	{0},
};
/* clang-format on */

struct layout {
	uint64_t size, table_len;
	uint32_t cluster, table;
};

static int layout_plan(struct layout *l, const struct img_create_opts *opts,
		       struct err *err)
{
	const struct img_option *o = opts->options;
	unsigned n = opts->n_options;
	uint64_t cluster = img_option_number(o, n, "cluster_size",
					     opts->cluster_size ? opts->cluster_size
								: USUAL_CLUSTER);
	uint64_t table = img_option_number(o, n, "table_size", USUAL_TABLE), most;

	if (!is_pow2(cluster) || cluster < QED_MIN_CLUSTER || cluster > QED_MAX_CLUSTER)
		return err_set(
			err, EINVAL,
			"clusters of %llu bytes: a power of two from 4 KiB to 64 "
			"MiB is needed",
			(unsigned long long)cluster);
	if (!is_pow2(table) || table > QED_MAX_TABLE)
		return err_set(
			err, EINVAL,
			"tables of %llu clusters: 1, 2, 4, 8 and 16 are possible",
			(unsigned long long)table);
	l->cluster = (uint32_t)cluster;
	l->table = (uint32_t)table;
	l->table_len = cluster * table;
	most = qed_most(l->table_len / 8, l->cluster);
	if (opts->size > most)
		return err_set(
			err, EFBIG,
			"%llu bytes: tables of %u clusters of %u bytes hold %llu",
			(unsigned long long)opts->size, l->table, l->cluster,
			(unsigned long long)most);
	l->size = align_up(opts->size, 512);
	return 0;
}

int qed_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err)
{
	struct layout l;
	uint64_t span, head;
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	span = l.table_len / 8 * l.cluster; /* of the disk, by a table */
	head = l.cluster + l.table_len;
	m->required = head + plan_blocks(plan, span) * l.table_len +
		      plan_blocks(plan, l.cluster) * l.cluster;
	m->fully_allocated = head + (l.size / span + !!(l.size % span)) * l.table_len +
			     align_up(l.size, l.cluster);
	return 0;
}

int qed_header_backing(struct qed_header *h, const char *path, const char *format,
		       uint32_t at, struct err *err)
{
	uint64_t features =
		le64_get(h->features) & ~(uint64_t)(QED_BACKING | QED_RAW_BACKING);
	size_t len = path ? strlen(path) : 0;

	if (len > QED_MAX_NAME)
		return err_set(err, EINVAL,
			       "the backing file's name has %zu bytes, %u are possible",
			       len, QED_MAX_NAME);
	/* Only that it is raw can be said: others are recognized. */
	if (len)
		features |= QED_BACKING;
	if (len && format && !strcmp(format, "raw"))
		features |= QED_RAW_BACKING;
	h->features = le64_make(features);
	h->backing_off = le32_make(len ? at : 0);
	h->backing_len = le32_make((uint32_t)len);
	return 0;
}

int qed_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err)
{
	struct qed_header h = {.magic = "QED"};
	struct layout l;
	int rc = layout_plan(&l, opts, err);

	if (!rc)
		rc = qed_header_backing(&h, opts->backing_path, opts->backing_format,
					sizeof(h), err);
	if (rc)
		return rc;
	h.cluster = le32_make(l.cluster);
	h.table = le32_make(l.table);
	h.header = le32_make(1);
	h.l1_off = le64_make(l.cluster);
	h.size = le64_make(l.size);
	rc = file_zero(t->file, 0, l.cluster + l.table_len, false);
	if (!rc && opts->backing_path)
		rc = file_write(t->file, opts->backing_path, sizeof(h),
				strlen(opts->backing_path));
	/* The header, which makes it an image, is last. */
	if (!rc)
		rc = file_write(t->file, &h, 0, sizeof(h));
	return rc ? err_sys(err, -rc, "cannot write '%s'", t->path) : 0;
}
