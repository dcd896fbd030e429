/* vm-img/map.c - `map`: where an image's bytes are. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/size.h"
#include "vm-img.h"

/* JSON text that is kept before it is printed. */
#define MAX_TEXT (1u << 20)

static struct common c;
static char *start_text, *length_text;

/* One line of the map: extents that are alike and follow each other. */
struct line {
	uint64_t off, len;
	struct img_extent e;
};

static const char *file_of(const struct img *img, const struct img_extent *e)
{
	for (uint32_t d = e->depth; d && img; d--)
		img = img_backing(img);
	return img ? img_extent_path(img, e) : "";
}

static bool has_offset(const struct img_extent *e)
{
	return e->file && e->kind != IMG_PACKED && e->present && !e->crypt;
}

static bool alike(const struct line *l, const struct img_extent *e)
{
	return l->e.kind == e->kind && l->e.depth == e->depth &&
	       l->e.present == e->present && has_offset(&l->e) == has_offset(e) &&
	       (!has_offset(e) ||
		(l->e.file == e->file && l->e.file_off + l->len == e->file_off));
}

/* A hole in the file of an image that has tables: data, as far as they say. */
static bool is_data(const struct img *img, const struct img_extent *e)
{
	if (e->kind != IMG_ZERO)
		return true;
	return e->hole && img_cluster_size(img) > 512;
}

static void print_line(const struct img *img, const struct line *l, struct json *j)
{
	const struct img_extent *e = &l->e;
	bool zero = e->kind == IMG_ZERO;

	if (j) {
		/* One line each, as qemu-img has it: maps are long. */
		str_addf(&j->s,
			 "%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
			 ", \"depth\": %u, \"present\": %s, \"zero\": %s, "
			 "\"data\": %s",
			 j->more ? ",\n" : "", l->off, l->len, e->depth,
			 e->present ? "true" : "false", zero ? "true" : "false",
			 is_data(img, e) ? "true" : "false");
		if (e->kind == IMG_PACKED && !as_qemu_img)
			str_addf(&j->s, ", \"compressed\": true");
		if (has_offset(e))
			str_addf(&j->s, ", \"offset\": %" PRIu64, e->file_off);
		str_addf(&j->s, "}");
		j->more = true;
		return;
	}
	if (zero)
		return;
	if (has_offset(e))
		printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", l->off,
		       l->len, e->file_off, file_of(img, e));
	else
		printf("%#-16" PRIx64 "%#-16" PRIx64 "%-16s%s\n", l->off, l->len,
		       "compressed", file_of(img, e));
}

static int walk(struct img *img, uint64_t at, uint64_t end, struct json *j)
{
	struct line l = {0};
	struct err err;

	while (at < end) {
		struct img_extent e;
		int rc = img_map(img, at, end - at, &e);

		/* A map may be of millions of pieces. */
		if (j && j->s.len > MAX_TEXT && !j->s.failed) {
			fwrite(j->s.p, 1, j->s.len, stdout);
			j->s.len = 0;
		}

		if (rc) {
			err_sys(&err, -rc, "cannot read the tables of '%s'",
				img_path(img));
			return fail(&err);
		}
		if (l.len && alike(&l, &e)) {
			l.len += e.len;
		} else {
			if (l.len)
				print_line(img, &l, j);
			l = (struct line){at, e.len, e};
		}
		at += e.len;
	}
	if (l.len)
		print_line(img, &l, j);
	return 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"start-offset", 's', POPT_ARG_STRING, &start_text, 0, "begin there",
		 "OFFSET"},
		{"max-length", 'l', POPT_ARG_STRING, &length_text, 0,
		 "as many bytes at most", "SIZE"},
		O_JSON(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	uint64_t start = 0, length = INT64_MAX, end;
	struct json j = {0};
	struct img *img;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, NULL, &st))
		return st;
	if (start_text && (st = parse_size("--start-offset", start_text, &start)))
		return st;
	if (length_text && (st = parse_size("--max-length", length_text, &length)))
		return st;
	st = image_open(&c, c.args[0], c.format, 0, NULL, &img);
	if (st)
		return st;
	start = min_u64(start, img_size(img));
	end = start + min_u64(length, img_size(img) - start);
	if (want_json(&c)) {
		str_add(&j.s, "[", 1);
		st = walk(img, start, end, &j);
		str_addf(&j.s, "]\n");
		st = st ? st : print_json(&j);
	} else {
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
		st = walk(img, start, end, NULL);
	}
	json_fini(&j);
	img_close(img);
	return st;
}

const struct command cmd_map = {
	.name = "map",
	.run = run,
	.usage = "[OPTION...] IMAGE",
	.summary = "Tells where an image's bytes are: in which file, at what offset.",
	.examples = "  vm-img map --json disk.qcow2\n",
};
