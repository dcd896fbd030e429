/* vm-img/list.c - `list`: what is on a disk: partitions, file systems, operating systems. */
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "guest/scan.h"
#include "vm-img.h"

static struct common c;

static const char *const os_kinds[] = {
	[OS_LINUX] = "linux", [OS_WINDOWS] = "windows", [OS_OTHER] = "other"};
static const char *const states[] = {
	[FS_CLEAN] = "clean", [FS_DIRTY] = "dirty", [FS_HIBERNATED] = "hibernated"};

/* The file system's own reader knows more than the recognition. */
static const char *label_of(const struct guest_volume *v)
{
	return v->fs && *fs_info(v->fs)->label ? fs_info(v->fs)->label
					       : v->content.label;
}

static const char *uuid_of(const struct guest_volume *v)
{
	return *v->content.uuid || !v->fs ? v->content.uuid : fs_info(v->fs)->uuid;
}

/* ---- JSON ---- */

static void text_if(struct json *j, const char *key, const char *text)
{
	if (*text)
		json_text(j, key, text);
}

static void fs_json(struct json *j, const struct guest_volume *v)
{
	const struct fs_info *i = v->fs ? fs_info(v->fs) : NULL;

	text_if(j, "content", v->content.type);
	text_if(j, "content-usage", v->content.usage);
	text_if(j, "content-version", v->content.version);
	text_if(j, "label", label_of(v));
	text_if(j, "uuid", uuid_of(v));
	text_if(j, "error", v->error);
	if (!i)
		return;
	json_object(j, "file-system");
	json_number(j, "size", i->size);
	json_number(j, "block-size", i->block);
	if (i->has_free) {
		json_number(j, "used", i->size - i->free);
		json_number(j, "free", i->free);
	}
	json_text(j, "state", states[i->state]);
	text_if(j, "reason", i->why);
	json_end(j);
}

static void volume_json(struct json *j, const struct guest_volume *v)
{
	const struct part *p = &v->part;

	json_object(j, NULL);
	if (p->number)
		json_number(j, "number", p->number);
	json_number(j, "start", p->off);
	json_number(j, "size", p->len);
	if (p->number) {
		json_text(j, "type", p->type);
		text_if(j, "type-name", p->type_name);
		text_if(j, "name", p->name);
		text_if(j, "partition-uuid", p->uuid);
		json_bool(j, "active", p->active);
		json_bool(j, "logical", p->logical);
		json_bool(j, "ends-behind-disk", p->cut);
	}
	fs_json(j, v);
	if (v->os.kind) {
		json_object(j, "operating-system");
		json_text(j, "kind", os_kinds[v->os.kind]);
		json_text(j, "name", v->os.name);
		text_if(j, "version", v->os.version);
		json_end(j);
	}
	json_end(j);
}

static int print_as_json(const struct guest_disk *d)
{
	struct json j = {0};

	json_object(&j, NULL);
	json_number(&j, "version", 1);
	json_text(&j, "filename", img_path(d->img));
	json_text(&j, "format", img_format_name(d->img));
	json_number(&j, "virtual-size", img_size(d->img));
	json_object(&j, "partition-table");
	json_text(&j, "type", d->table.type);
	text_if(&j, "id", d->table.id);
	json_number(&j, "sector-size", d->table.sector);
	json_bool(&j, "boot-code", d->table.boot_code);
	json_end(&j);
	json_list(&j, "volumes");
	for (unsigned i = 0; i < d->n; i++)
		volume_json(&j, &d->v[i]);
	json_end(&j);
	json_end(&j);
	return print_json(&j);
}

/* ---- text ---- */

static void print_volume(const struct guest_volume *v)
{
	const struct fs_info *i = v->fs ? fs_info(v->fs) : NULL;
	const char *type = *v->content.type ? v->content.type : "-";
	char size[16], used[16] = "-", free_[16] = "-", number[16] = "-";
	const char *kind = *v->part.type_name ? v->part.type_name : v->part.type;

	size_format(v->part.len, size, sizeof(size));
	if (i && i->has_free) {
		size_format(i->size - i->free, used, sizeof(used));
		size_format(i->free, free_, sizeof(free_));
	}
	if (v->part.number)
		snprintf(number, sizeof(number), "%u%s", v->part.number,
			 v->part.active ? "*" : "");
	printf("%-4s %10s  %-12s %10s %10s  %-16s %s\n", number, size, type, used,
	       free_, *label_of(v) ? label_of(v) : "-",
	       v->part.number ? kind : "(the whole disk)");
}

static void print_remarks(const struct guest_volume *v)
{
	const struct fs_info *i = v->fs ? fs_info(v->fs) : NULL;
	char name[24] = "disk";

	if (v->part.number)
		snprintf(name, sizeof(name), "partition %u", v->part.number);
	if (v->os.kind)
		printf("%s: %s%s%s%s\n", name, v->os.name, *v->os.version ? " (" : "",
		       v->os.version, *v->os.version ? ")" : "");
	if (*v->error)
		printf("%s: %s\n", name, v->error);
	if (i && i->state != FS_CLEAN)
		printf("%s: %s\n", name, i->why);
	if (v->part.cut)
		printf("%s: it ends behind the end of the disk\n", name);
	if (v->content.ambivalent)
		printf("%s: it has the marks of several file systems\n", name);
}

static int print_as_text(const struct guest_disk *d)
{
	char size[16];

	size_format(img_size(d->img), size, sizeof(size));
	printf("%s: %s, partition table %s%s%s\n", img_path(d->img), size,
	       d->table.type, *d->table.id ? " " : "", d->table.id);
	if (d->n)
		printf("%-4s %10s  %-12s %10s %10s  %-16s %s\n", "No", "Size",
		       "Content", "Used", "Free", "Label", "Type");
	for (unsigned i = 0; i < d->n; i++)
		print_volume(&d->v[i]);
	for (unsigned i = 0; i < d->n; i++)
		print_remarks(&d->v[i]);
	return CLI_DONE;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c), O_JSON(&c), O_SHARE(&c), O_EXTERN(&c), O_COMMON(&c),
	};
	struct guest_disk d;
	struct err err = {0};
	struct img *img;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, NULL, &st))
		return st;
	st = image_open(&c, c.args[0], c.format, 0, NULL, &img);
	if (st)
		return st;
	if (guest_disk_open(img, &d, &err) < 0) {
		st = fail(&err);
	} else {
		st = want_json(&c) ? print_as_json(&d) : print_as_text(&d);
		guest_disk_close(&d);
	}
	img_close(img);
	return st;
}

const struct command cmd_list = {
	.name = "list",
	.run = run,
	.usage = "[OPTION...] IMAGE",
	.summary = "Tells what is on a disk: partitions, file systems, space, systems.",
	.examples = "  vm-img list disk.vmdk\n"
		    "  vm-img list --json disk.qcow2\n",
};
