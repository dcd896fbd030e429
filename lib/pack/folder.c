/*
 * pack/folder.c - machines that are folders: VMware's (.vmwarevm, or any with a .vmx file, or that file), Parallels' (.pvm, with
 * config.pvs). One thread.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "pack/package_int.h"
#include "pack/xml.h"

#define MAX_TEXT (1u << 20)

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), e = strlen(end);

	return n > e && !strcasecmp(name + n - e, end);
}

/* The first file of the folder with that ending, in the order of names: "dir/x.vmx"; NULL. */
static char *file_in(const char *folder, const char *end)
{
	DIR *d = opendir(folder);
	char *best = NULL, *path = NULL;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' || !ends_with(e->d_name, end) ||
		    (best && strcmp(best, e->d_name) <= 0))
			continue;
		free(best);
		best = strdup(e->d_name);
	}
	if (d)
		closedir(d);
	if (best && asprintf(&path, "%s/%s", folder, best) < 0)
		path = NULL;
	free(best);
	return path;
}

/* ---- VMware ---- */

static bool vmx_probe(const char *path, const uint8_t *head, size_t len)
{
	char *vmx;
	bool is;

	if (head)
		return ends_with(path, ".vmx") && memmem(head, len, "=", 1) &&
		       !memchr(head, 0, len);
	vmx = file_in(path, ".vmx");
	is = vmx;
	free(vmx);
	return is;
}

/* The value of `key = "value"` lines in the text, new memory; the last one counts. NULL: none. */
static char *vmx_value(const char *text, const char *key)
{
	size_t n = strlen(key);
	char *found = NULL;

	for (const char *s = text; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		const char *at = s + strspn(s, " \t"), *end;

		if (strncasecmp(at, key, n))
			continue;
		at += n;
		at += strspn(at, " \t");
		if (*at++ != '=')
			continue;
		at += strspn(at, " \t");
		if (*at++ != '"')
			continue;
		end = at + strcspn(at, "\"\n");
		free(found);
		found = strndup(at, (size_t)(end - at));
	}
	return found;
}

static bool vmx_is(const char *text, const char *device, const char *key,
		   const char *want, bool usual)
{
	char *name, *v;
	bool is = usual;

	if (asprintf(&name, "%s.%s", device, key) < 0)
		return usual;
	v = vmx_value(text, name);
	if (v)
		is = !strncasecmp(v, want, strlen(want));
	free(name);
	free(v);
	return is;
}

static int vmx_disk(struct package *p, const char *folder, const char *text,
		    const char *bus, unsigned slot, unsigned unit, struct err *err)
{
	char device[32], key[48], *name;
	struct package_disk *d;
	int rc = 0;

	snprintf(device, sizeof(device), "%s%u:%u", bus, slot, unit);
	snprintf(key, sizeof(key), "%s.filename", device);
	name = vmx_value(text, key);
	if (!name || !ends_with(name, ".vmdk") ||
	    !vmx_is(text, device, "present", "true", true) ||
	    vmx_is(text, device, "deviceType", "cdrom", false)) {
		free(name);
		return 0;
	}
	d = package_add_disk(p, name, err);
	if (!d)
		rc = -err->code;
	else if (!(d->format = strdup("vmdk")) || !(d->bus = strdup(bus)))
		rc = err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	else
		rc = package_beside(p, folder, name, &d->path, err);
	free(name);
	return rc;
}

static void vmx_machine(struct package *p, const char *text)
{
	uint64_t v;

	p->name = vmx_value(text, "displayName");
	p->os = vmx_value(text, "guestOS");
	p->firmware = vmx_value(text, "firmware");
	if (xml_number(vmx_value(text, "memsize"), &v) && v < 1 << 30)
		p->memory = v << 20;
	if (xml_number(vmx_value(text, "numvcpus"), &v) && v <= 4096)
		p->cpus = (unsigned)v;
}

static int vmx_read(struct package *p, const char *folder, const char *text,
		    struct err *err)
{
	/* clang-format off */
	static const struct {
		const char *bus;
		unsigned slots, units;
	} buses[] = {{"ide", 2, 2}, {"scsi", 4, 16}, {"sata", 4, 30}, {"nvme", 4, 15}};
	/* clang-format on */
	int rc = 0;

	vmx_machine(p, text);
	for (size_t b = 0; b < ARRAY_LEN(buses); b++)
		for (unsigned i = 0; i < buses[b].slots * buses[b].units && !rc; i++)
			rc = vmx_disk(p, folder, text, buses[b].bus, i / buses[b].units,
				      i % buses[b].units, err);
	return rc;
}

static int vmx_open(struct package *p, struct err *err)
{
	char *vmx = p->fd < 0 ? file_in(p->path, ".vmx") : strdup(p->path);
	char *folder = p->fd < 0 ? strdup(p->path) : NULL, *slash;
	void *text = NULL;
	size_t len;
	int rc;

	if (p->fd >= 0 && vmx) {
		slash = strrchr(vmx, '/');
		folder = slash ? strndup(vmx, (size_t)(slash - vmx) + 1) : strdup(".");
	}
	rc = vmx && folder ? fd_load_file(vmx, MAX_TEXT, &text, &len, err)
			   : err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	if (!rc && strlen(text) != len)
		rc = err_set(err, EINVAL, "'%s' is not a text", vmx);
	if (!rc)
		rc = vmx_read(p, folder, text, err);
	free(text);
	free(vmx);
	free(folder);
	return rc;
}

const struct package_kind package_vmx = {
	.name = "vmwarevm",
	.title = "VMware machine",
	.probe = vmx_probe,
	.open = vmx_open,
};

/* ---- Parallels ---- */

static bool pvm_probe(const char *path, const uint8_t *head, size_t len)
{
	struct stat st;
	char *pvs;
	bool is;

	(void)len;
	if (head || asprintf(&pvs, "%s/config.pvs", path) < 0)
		return false;
	is = !stat(pvs, &st) && S_ISREG(st.st_mode);
	free(pvs);
	return is;
}

static xmlDoc *load_xml(const char *path, struct err *err)
{
	xmlDoc *doc;
	size_t len;
	void *text;

	if (fd_load_file(path, MAX_TEXT, &text, &len, err))
		return NULL;
	doc = xml_parse(text, len, path, err);
	free(text);
	return doc;
}

/* The disk's folder is a bundle, which img_open() knows. */
static int pvm_disk(struct package *p, const xmlNode *hdd, struct err *err)
{
	static const char *const buses[] = {"ide", "scsi", "sata"};
	char *name = xml_text(xml_child(hdd, "SystemName"));
	uint64_t bus = ARRAY_LEN(buses), enabled = 1;
	struct package_disk *d;
	int rc;

	if (xml_child(hdd, "Enabled"))
		xml_number(xml_text(xml_child(hdd, "Enabled")), &enabled);
	if (!name || !*name || !enabled) {
		free(name);
		return 0;
	}
	d = package_add_disk(p, name, err);
	rc = d ? package_beside(p, p->path, name, &d->path, err) : -err->code;
	if (!rc && !(d->format = strdup("parallels")))
		rc = err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	if (!rc && xml_number(xml_text(xml_child(hdd, "InterfaceType")), &bus) &&
	    bus < ARRAY_LEN(buses))
		d->bus = strdup(buses[bus]);
	free(name);
	return rc;
}

static uint64_t pvm_number(const xmlNode *hw, const char *group, const char *name)
{
	const xmlNode *n = xml_child(xml_child(hw, group), name);
	uint64_t v = 0;

	if (n)
		xml_number(xml_text(n), &v);
	return v < 1 << 30 ? v : 0;
}

static int pvm_open(struct package *p, struct err *err)
{
	const xmlNode *top, *hw, *n;
	xmlDoc *doc;
	char *pvs;
	int rc = 0;

	if (asprintf(&pvs, "%s/config.pvs", p->path) < 0)
		return err_set(err, ENOMEM, "no memory to open '%s'", p->path);
	doc = load_xml(pvs, err);
	free(pvs);
	if (!doc)
		return -err->code;
	top = xmlDocGetRootElement(doc);
	hw = xml_child(top, "Hardware");
	p->name = xml_text(xml_child(xml_child(top, "Identification"), "VmName"));
	p->memory = pvm_number(hw, "Memory", "RAM") << 20;
	p->cpus = (unsigned)pvm_number(hw, "Cpu", "Number");
	for (n = xml_child(hw, "Hdd"); n && !rc; n = xml_next(n, "Hdd"))
		rc = pvm_disk(p, n, err);
	xmlFreeDoc(doc);
	return rc;
}

const struct package_kind package_pvm = {
	.name = "pvm",
	.title = "Parallels machine",
	.probe = pvm_probe,
	.open = pvm_open,
};
