/* vm-img/info.c - `info`: what an image is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/size.h"
#include "vm-img.h"

static struct common c;
static int chain;

/* ---- JSON ---- */

static void details_json(struct json *j, const struct details *d)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct detail *x = &d->v[i];

		switch (x->kind) {
		case DETAIL_TEXT: json_text(j, x->key, x->text); break;
		case DETAIL_NUMBER: json_number(j, x->key, x->number); break;
		case DETAIL_BOOL: json_bool(j, x->key, x->number); break;
		case DETAIL_GROUP: json_object(j, x->key); break;
		case DETAIL_LIST: json_list(j, x->key); break;
		case DETAIL_END: json_end(j); break;
		}
	}
}

static void snapshots_json(struct json *j, struct img *img)
{
	struct img_snapshot *v;
	size_t n;

	if (img_snapshots(img, &v, &n, NULL) < 0)
		return;
	if (n)
		json_list(j, "snapshots");
	for (size_t i = 0; i < n; i++) {
		json_object(j, NULL);
		json_text(j, "id", v[i].id);
		json_text(j, "name", v[i].name);
		json_number(j, "vm-state-size", v[i].vm_state_size);
		json_number(j, "date-sec", v[i].date_sec);
		json_number(j, "date-nsec", v[i].date_nsec);
		json_number(j, "vm-clock-sec", v[i].vm_clock_nsec / 1000000000);
		json_number(j, "vm-clock-nsec", v[i].vm_clock_nsec % 1000000000);
		if (v[i].has_icount)
			json_number(j, "icount", v[i].icount);
		json_end(j);
	}
	if (n)
		json_end(j);
	img_snapshots_free(v, n);
}

/* The backing file's name as it will be opened: relative to the image's folder. */
static char *full_backing(const struct img *img, const char *name)
{
	const char *slash = strrchr(img_path(img), '/');
	char *full = NULL;

	if (*name == '/' || !slash)
		return strdup(name);
	if (asprintf(&full, "%.*s/%s", (int)(slash - img_path(img)), img_path(img),
		     name) < 0)
		return NULL;
	return full;
}

static void backing_json(struct json *j, struct img *img, const struct img_info *i)
{
	char *full;

	if (!i->backing_path)
		return;
	full = full_backing(img, i->backing_path);
	json_text(j, "backing-filename", i->backing_path);
	if (full)
		json_text(j, "full-backing-filename", full);
	if (i->backing_format)
		json_text(j, "backing-filename-format", i->backing_format);
	free(full);
}

static void image_json(struct json *j, struct img *img)
{
	struct img_info i;
	struct details d;

	img_info(img, &i);
	img_details(img, &d);
	json_object(j, NULL);
	if (!as_qemu_img)
		json_number(j, "version", 1);
	json_text(j, "filename", img_path(img));
	json_text(j, "format", img_format_name(img));
	json_number(j, "virtual-size", img_size(img));
	json_number(j, "actual-size", i.allocated_bytes);
	if (i.cluster_bytes)
		json_number(j, "cluster-size", i.cluster_bytes);
	if (i.encrypted)
		json_bool(j, "encrypted", true);
	if (i.compressed)
		json_bool(j, "compressed", true);
	json_bool(j, "dirty-flag", i.dirty);
	backing_json(j, img, &i);
	snapshots_json(j, img);
	if (img_n_files(img) > 1 && !as_qemu_img) {
		json_list(j, "files");
		for (unsigned k = 0; k < img_n_files(img); k++)
			json_text(j, NULL, img_file_path(img, k));
		json_end(j);
	}
	if (d.n) {
		json_object(j, "format-specific");
		json_text(j, "type", img_format_name(img));
		json_object(j, "data");
		details_json(j, &d);
		json_end(j);
		json_end(j);
	}
	json_end(j);
	details_fini(&d);
}

/* ---- text ---- */

/* "lazy-refcounts" as people write it. */
static void print_key(const char *key)
{
	for (; *key; key++)
		putchar(*key == '-' ? ' ' : *key);
}

static void details_text(const struct details *d)
{
	unsigned depth = 1, index[32] = {0};

	for (size_t i = 0; i < d->n; i++) {
		const struct detail *x = &d->v[i];

		if (x->kind == DETAIL_END) {
			depth--;
			continue;
		}
		printf("%*s", (int)(4 * depth), "");
		if (x->key)
			print_key(x->key);
		else
			printf("[%u]", index[depth & 31]++);
		switch (x->kind) {
		case DETAIL_TEXT: printf(": %s\n", x->text); break;
		case DETAIL_NUMBER: printf(": %" PRIu64 "\n", x->number); break;
		case DETAIL_BOOL: printf(": %s\n", x->number ? "true" : "false"); break;
		default:
			printf(":\n");
			index[++depth & 31] = 0;
			break;
		}
	}
}

void print_snapshots(const struct img_snapshot *v, size_t n)
{
	printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
	       "VM CLOCK", "ICOUNT");
	for (size_t i = 0; i < n; i++) {
		time_t t = (time_t)v[i].date_sec;
		uint64_t s = v[i].vm_clock_nsec / 1000000000;
		char date[32] = "", size[16], clock[40], icount[24] = "";
		struct tm tm;

		if (localtime_r(&t, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		snprintf(clock, sizeof(clock),
			 "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64,
			 s / 3600, s / 60 % 60, s % 60,
			 v[i].vm_clock_nsec / 1000000 % 1000);
		if (v[i].has_icount)
			snprintf(icount, sizeof(icount), "%" PRIu64, v[i].icount);
		printf("%-9s %-16s %8s%20s%13s%11s\n", v[i].id, v[i].name,
		       size_format(v[i].vm_state_size, size, sizeof(size)), date, clock,
		       icount);
	}
}

static void snapshots_text(struct img *img)
{
	struct img_snapshot *v;
	size_t n;

	if (img_snapshots(img, &v, &n, NULL) < 0)
		return;
	if (n) {
		printf("Snapshot list:\n");
		print_snapshots(v, n);
	}
	img_snapshots_free(v, n);
}

static void backing_text(struct img *img, const struct img_info *i)
{
	char *full;

	if (!i->backing_path)
		return;
	full = full_backing(img, i->backing_path);
	printf("backing file: %s", i->backing_path);
	if (full && strcmp(full, i->backing_path))
		printf(" (actual path: %s)", full);
	printf("\n");
	if (i->backing_format)
		printf("backing file format: %s\n", i->backing_format);
	free(full);
}

/* What qemu-img prints for people is less for some formats. */
static bool qemu_details(const char *format)
{
	return !strcmp(format, "qcow2") || !strcmp(format, "vmdk") ||
	       !strcmp(format, "luks") || !strcmp(format, "raw");
}

/* Three digits, as scripts know them. */
static const char *size_as_ever(uint64_t bytes, char *buf, unsigned len)
{
	static const char *const units[] = {"B",   "KiB", "MiB", "GiB",
					    "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	unsigned u = 0;

	if (!as_qemu_img)
		return size_format(bytes, buf, len);
	for (; v >= 1000 && u + 1 < ARRAY_LEN(units); u++)
		v /= 1024;
	snprintf(buf, len, "%.3g %s", v, units[u]);
	return buf;
}

static bool qemu_without_clusters(const char *format)
{
	return as_qemu_img && (!strcmp(format, "parallels") ||
			       !strcmp(format, "bochs") || !strcmp(format, "cloop"));
}

static void image_text(struct img *img)
{
	struct img_info i;
	struct details d;
	char size[16];
	bool plain = as_qemu_img && !qemu_details(img_format_name(img));

	img_info(img, &i);
	img_details(img, &d);
	printf("image: %s\nfile format: %s\n", img_path(img), img_format_name(img));
	printf("virtual size: %s (%" PRIu64 " bytes)\n",
	       size_as_ever(img_size(img), size, sizeof(size)), img_size(img));
	printf("disk size: %s\n", size_as_ever(i.allocated_bytes, size, sizeof(size)));
	if (i.encrypted)
		printf("encrypted: yes\n");
	if (i.cluster_bytes && !qemu_without_clusters(img_format_name(img)))
		printf("cluster_size: %u\n", i.cluster_bytes);
	if (i.dirty)
		printf("cleanly shut down: no\n");
	backing_text(img, &i);
	snapshots_text(img);
	if (d.n && !plain) {
		printf("Format specific information:\n");
		details_text(&d);
	}
	details_fini(&d);
}

/* ---- the command ---- */

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"backing-chain", 0, POPT_ARG_NONE, &chain, 0,
		 "the images behind it, too", NULL},
		O_JSON(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct package *package = NULL;
	struct json j = {0};
	struct img *img;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, NULL, &st))
		return st;
	/* What the image names is shown, and opened only where it must be. */
	st = image_open_any(&c, c.args[0], c.format, chain ? 0 : OPEN_NO_BACKING, NULL,
			    &package, &img);
	if (st)
		return st;
	if (package) {
		if (want_json(&c))
			st = package_json(package, c.args[0]);
		else
			package_text(package, c.args[0]);
		package_close(package);
		return st;
	}
	if (want_json(&c) && chain)
		json_list(&j, NULL);
	for (struct img *i = img; i; i = img_backing(i)) {
		if (want_json(&c))
			image_json(&j, i);
		else {
			if (i != img)
				printf("\n");
			image_text(i);
		}
	}
	if (want_json(&c) && chain)
		json_end(&j);
	if (want_json(&c))
		st = print_json(&j);
	img_close(img);
	return st;
}

const struct command cmd_info = {
	.name = "info",
	.run = run,
	.usage = "[OPTION...] IMAGE",
	.summary = "Tells what an image is: format, sizes, backing file, snapshots.",
	.examples = "  vm-img info disk.vmdk\n"
		    "  vm-img info --backing-chain --json overlay.qcow2\n",
};
