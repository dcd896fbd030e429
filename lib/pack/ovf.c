/*
 * pack/ovf.c - reads the description of an OVF package (DMTF DSP0243): its files, disks, and what it says about the machine.
 * Any thread, one package per thread.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "pack/package_int.h"
#include "pack/xml.h"

/* CIM_ResourceAllocationSettingData.ResourceType */
enum {
	RES_CPU = 3,
	RES_MEMORY = 4,
	RES_IDE = 5,
	RES_SCSI = 6,
	RES_DISK = 17,
	RES_STORAGE = 20
};

#define MAX_STEPS 8

typedef int find_fn(struct package *p, struct package_disk *d, const char *href,
		    struct err *err);

static bool text_is(char *text, const char *want)
{
	bool is = text && !strcmp(text, want);

	free(text);
	return is;
}

/* The child's text as a number; 0 if it has none. */
static uint64_t number_of(const xmlNode *n, const char *name)
{
	xmlNode *c = xml_child(n, name);
	uint64_t v = 0;

	if (c)
		xml_number(xml_text(c), &v);
	return v;
}

/* "byte * 2^30", "byte*1024", "byte", "MegaBytes" (before version 1.0), ...: bytes; 0: not known. */
static uint64_t units(const char *text)
{
	/* clang-format off */
	static const struct {
		const char *name;
		uint64_t bytes;
	} old[] = {
		{"byte", 1}, {"bytes", 1}, {"kilobytes", 1 << 10}, {"megabytes", 1 << 20}, {"gigabytes", 1 << 30},
		{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30},
	};
	/* clang-format on */
	uint64_t base, power = 1, v = 1;
	char *end;

	for (size_t i = 0; i < ARRAY_LEN(old); i++)
		if (!strcasecmp(text, old[i].name))
			return old[i].bytes;
	text += strspn(text, " ");
	if (strncasecmp(text, "byte", 4))
		return 0;
	text += 4;
	text += strspn(text, " ");
	if (*text++ != '*')
		return 0;
	base = strtoull(text, &end, 10);
	if (*end == '^')
		power = strtoull(end + 1, &end, 10);
	if (*end || !base || base > 1 << 30 || power > 60)
		return 0;
	while (power--)
		if (__builtin_mul_overflow(v, base, &v))
			return 0;
	return v;
}

static uint64_t in_units(uint64_t v, char *text, uint64_t usual)
{
	uint64_t u = text ? units(text) : usual;

	free(text);
	return u && !__builtin_mul_overflow(v, u, &v) ? v : 0;
}

/* ---- disks ---- */

static xmlNode *find_by_attr(const xmlNode *top, const char *element, const char *attr,
			     const char *value)
{
	xmlNode *n = NULL;

	while ((n = xml_find(top, n, element)))
		if (text_is(xml_attr(n, attr), value))
			break;
	return n;
}

/* What of files is not handled must not look like data. */
static int check_file(struct package *p, const xmlNode *file, const char *href,
		      bool *gzip, struct err *err)
{
	char *chunk = xml_attr(file, "chunkSize"), *how = xml_attr(file, "compression");
	int rc = 0;

	*gzip = how && !strcmp(how, "gzip");
	if (chunk)
		rc = err_set(err, ENOTSUP, "'%.80s' of '%s' is cut into chunks", href,
			     p->path);
	else if (how && *how && !*gzip && strcmp(how, "identity"))
		rc = err_set(err, ENOTSUP, "'%.60s' of '%s' is compressed by '%.40s'",
			     href, p->path, how);
	free(chunk);
	free(how);
	return rc;
}

static int disk_file(struct package *p, const xmlNode *top, struct package_disk *d,
		     const char *ref, find_fn *find, struct err *err)
{
	xmlNode *file =
		find_by_attr(xml_find(top, NULL, "References"), "File", "id", ref);
	char *href = file ? xml_attr(file, "href") : NULL;
	int rc;

	if (!href)
		return err_set(err, EINVAL,
			       "'%s' is damaged: disk '%.60s' is in file '%.60s', "
			       "which is not listed",
			       p->path, d->name, ref);
	rc = check_file(p, file, href, &d->gzip, err);
	if (!rc)
		rc = find(p, d, href, err);
	if (!rc) {
		free(d->name);
		d->name = strdup(href);
		if (!d->name)
			rc = err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	}
	free(href);
	return rc;
}

static int set_format(struct package_disk *d, const xmlNode *n)
{
	char *uri = xml_attr(n, "format");
	size_t len = uri ? strlen(uri) : 0;
	bool raw = len > 4 && (!strcasecmp(uri + len - 4, "byte") ||
			       !strcasecmp(uri + len - 3, "raw"));

	free(uri);
	if (raw && !(d->format = strdup("raw")))
		return -ENOMEM;
	return 0;
}

static int read_disk(struct package *p, const xmlNode *top, const xmlNode *n,
		     find_fn *find, struct err *err)
{
	char *id = xml_attr(n, "diskId"), *ref = xml_attr(n, "fileRef");
	char *parent = xml_attr(n, "parentRef");
	struct package_disk *d = NULL;
	uint64_t capacity = 0;
	int rc = 0;

	if (!id)
		rc = err_set(err, EINVAL, "'%s' is damaged: a disk has no name",
			     p->path);
	else if (parent && *parent)
		rc = err_set(err, ENOTSUP,
			     "disk '%.60s' of '%s' lies in front of another one", id,
			     p->path);
	else if (!(d = package_add_disk(p, id, err)))
		rc = -err->code;
	if (!rc && xml_number(xml_attr(n, "capacity"), &capacity))
		d->size = in_units(capacity, xml_attr(n, "capacityAllocationUnits"), 1);
	if (!rc && ref && *ref)
		rc = disk_file(p, top, d, ref, find, err);
	if (!rc && set_format(d, n))
		rc = err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	free(id);
	free(ref);
	free(parent);
	return rc;
}

/* ---- the machine ---- */

/* The kind of the controller with that InstanceID. */
static const char *controller(const xmlNode *hw, const char *id)
{
	for (const xmlNode *i = xml_child(hw, NULL); i; i = xml_next(i, NULL)) {
		char *sub;
		const char *is;

		if (!text_is(xml_text(xml_child(i, "InstanceID")), id) &&
		    !text_is(xml_text(xml_child(i, "InstanceId")), id))
			continue;
		switch (number_of(i, "ResourceType")) {
		case RES_IDE: return "ide";
		case RES_SCSI: return "scsi";
		case RES_STORAGE:
			sub = xml_text(xml_child(i, "ResourceSubType"));
			is = sub && strcasestr(sub, "nvme")   ? "nvme"
			     : sub && strcasestr(sub, "virt") ? "virtio"
							      : "sata";
			free(sub);
			return is;
		}
	}
	return NULL;
}

/* A drive: which disk hangs on what. */
static void read_drive(struct package *p, const xmlNode *top, const xmlNode *hw,
		       const xmlNode *item)
{
	char *host = xml_text(xml_child(item, "HostResource"));
	char *parent = xml_text(xml_child(item, "Parent"));
	const char *bus = parent ? controller(hw, parent) : NULL;
	const char *id = host ? strrchr(host, '/') : NULL;
	const xmlNode *n = xml_find(top, NULL, "DiskSection");
	unsigned i = 0;

	for (n = xml_child(n, "Disk"); id && bus && n && i < p->n_disks;
	     n = xml_next(n, "Disk"), i++)
		if (text_is(xml_attr(n, "diskId"), id + 1) && !p->disk[i].bus)
			p->disk[i].bus = strdup(bus);
	free(host);
	free(parent);
}

static void read_hardware(struct package *p, const xmlNode *top, const xmlNode *hw)
{
	unsigned drives = 0;
	uint64_t v;

	for (const xmlNode *i = xml_child(hw, NULL); i; i = xml_next(i, NULL)) {
		switch (number_of(i, "ResourceType")) {
		case RES_CPU:
			v = number_of(i, "VirtualQuantity");
			p->cpus = v <= 4096 ? (unsigned)v : 0;
			break;
		case RES_MEMORY:
			v = number_of(i, "VirtualQuantity");
			p->memory = in_units(
				v, xml_text(xml_child(i, "AllocationUnits")), 1 << 20);
			break;
		case RES_DISK:
			if (drives++ < MAX_DISKS)
				read_drive(p, top, hw, i);
			break;
		}
	}
}

static char *firmware(const xmlNode *sys)
{
	const xmlNode *n = NULL;
	char *text;

	while ((n = xml_find(sys, n, "Config")))
		if (text_is(xml_attr(n, "key"), "firmware"))
			return xml_attr(n, "value");
	n = xml_find(sys, NULL, "Firmware"); /* VirtualBox */
	text = n ? xml_attr(n, "type") : NULL;
	for (char *s = text; s && *s; s++)
		*s = (char)(*s >= 'A' && *s <= 'Z' ? *s + 32 : *s);
	return text;
}

static void read_system(struct package *p, const xmlNode *top)
{
	const xmlNode *sys = xml_find(top, NULL, "VirtualSystem"), *os;

	if (!sys)
		return;
	p->name = xml_text(xml_child(sys, "Name"));
	if (!p->name)
		p->name = xml_attr(sys, "id");
	os = xml_child(sys, "OperatingSystemSection");
	p->os = os ? xml_text(xml_child(os, "Description")) : NULL;
	if (os && !p->os)
		p->os = xml_attr(os, "osType");
	p->firmware = firmware(sys);
	read_hardware(p, top, xml_child(sys, "VirtualHardwareSection"));
}

int ovf_read(struct package *p, const void *text, size_t len, const char *name,
	     find_fn *find, struct err *err)
{
	xmlDoc *doc = xml_parse(text, len, name, err);
	const xmlNode *top = doc ? xmlDocGetRootElement(doc) : NULL, *n;
	int rc = doc ? 0 : -err->code;

	if (!rc && !xml_is(top, "Envelope"))
		rc = err_set(err, EINVAL, "'%s' is not an OVF description", name);
	n = rc ? NULL : xml_child(xml_find(top, NULL, "DiskSection"), "Disk");
	for (; n && !rc; n = xml_next(n, "Disk"))
		rc = read_disk(p, top, n, find, err);
	if (!rc)
		read_system(p, top);
	if (doc)
		xmlFreeDoc(doc);
	return rc;
}
