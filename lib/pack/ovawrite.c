/*
 * pack/ovawrite.c - writes OVA packages (DMTF DSP0243, with what VMware and VirtualBox add). The description and the manifest
 * stand first and are known last: both have a fixed length, and are written over when the disks are there. One thread.
 */
#include "pack/ovawrite.h"

#include <archive.h>
#include <archive_entry.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/str.h"
#include "pack/hash.h"
#include "pack/newfile.h"

#define TAR_BLOCK 512
#define MAX_USTAR (8ull << 30)
#define MAX_NAME  80

/* CIM_OperatingSystem.OSType */
static const struct {
	const char *name, *title;
	unsigned id;
} systems[] = {
	{"other", "Other 64-bit", 102},
	{"linux", "Linux 64-bit", 101},
	{"debian", "Debian 64-bit", 96},
	{"ubuntu", "Ubuntu 64-bit", 94},
	{"rhel", "Red Hat Enterprise Linux 64-bit", 80},
	{"windows7", "Microsoft Windows 7", 105},
};

struct out_disk {
	char name[MAX_NAME + 16];
	uint64_t at, len;  /* of the content in the tar file */
	uint64_t capacity; /* bytes */
	char hash[HASH_TEXT];
};

struct out {
	struct newfile file;
	const struct ova_machine *m;
	struct out_disk disk[OVA_MAX_DISKS];
	unsigned n;
	char base[MAX_NAME + 1]; /* of the members' names */
	char *name;              /* of the machine, as XML text */
	struct str ovf, mf;
	uint64_t ovf_at, mf_at, end;
	const struct img_copy_opts *how;
};

const char *ova_os_at(unsigned i)
{
	return i < ARRAY_LEN(systems) ? systems[i].name : NULL;
}

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "no memory to write a package");
}

/* ---- tar ---- */

/* One header, made by libarchive, whose attempt to fill up the content ends at the end of `buf`. */
static int tar_header(const char *name, uint64_t size, uint8_t out[TAR_BLOCK])
{
	struct archive *a = archive_write_new();
	struct archive_entry *e = archive_entry_new();
	uint8_t buf[4 * TAR_BLOCK];
	size_t used = 0;
	bool ok = a && e;

	if (ok) {
		archive_write_set_bytes_per_block(a, 0);
		archive_entry_set_pathname(e, name);
		archive_entry_set_size(e, (la_int64_t)size);
		archive_entry_set_filetype(e, AE_IFREG);
		archive_entry_set_perm(e, 0644);
		archive_entry_set_mtime(e, time(NULL), 0);
		ok = (size < MAX_USTAR
			      ? archive_write_set_format_ustar(a)
			      : archive_write_set_format_gnutar(a)) == ARCHIVE_OK &&
		     archive_write_open_memory(a, buf, sizeof(buf), &used) ==
			     ARCHIVE_OK &&
		     archive_write_header(a, e) == ARCHIVE_OK && used == TAR_BLOCK;
		memcpy(out, buf, TAR_BLOCK);
	}
	archive_entry_free(e);
	archive_write_free(a);
	return ok ? 0 : -EIO;
}

/* A header and its content, `at` their place; *at moves behind them. */
static int put_member(struct out *o, const char *name, const struct str *s,
		      uint64_t *at, struct err *err)
{
	uint8_t block[TAR_BLOCK];
	int rc = tar_header(name, s->len, block);

	if (!rc)
		rc = fd_pwrite_full(o->file.fd, block, TAR_BLOCK, *at);
	if (!rc)
		rc = fd_pwrite_full(o->file.fd, s->p, s->len, *at + TAR_BLOCK);
	*at += TAR_BLOCK + align_up(s->len, TAR_BLOCK);
	return rc ? err_sys(err, -rc, "cannot write '%s'", name) : 0;
}

/* ---- the description ---- */

/* Text for XML, on the heap; NULL: no memory, or not UTF-8. */
static char *escape(const char *text)
{
	struct str s = {0};

	if (!xmlCheckUTF8((const xmlChar *)text))
		return NULL;
	for (; *text; text++) {
		switch (*text) {
		case '&': str_addf(&s, "&amp;"); break;
		case '<': str_addf(&s, "&lt;"); break;
		case '>': str_addf(&s, "&gt;"); break;
		case '"': str_addf(&s, "&quot;"); break;
		default:
			if ((unsigned char)*text >= ' ')
				str_add(&s, text, 1);
		}
	}
	if (!s.p)
		str_addf(&s, "machine");
	if (s.failed)
		str_fini(&s);
	return s.p;
}

/* "12" and as many blanks behind the quotation mark as make the length always the same. */
static void add_number(struct str *s, const char *name, uint64_t v)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)v);

	str_addf(s, " ovf:%s=\"%s\"%*s", name, text, 20 - n, "");
}

static void add_files(struct out *o)
{
	struct str *s = &o->ovf;

	str_addf(s, "  <References>\n");
	for (unsigned i = 0; i < o->n; i++) {
		str_addf(s, "    <File ovf:id=\"file%u\" ovf:href=\"%s\"", i + 1,
			 o->disk[i].name);
		add_number(s, "size", o->disk[i].len);
		str_addf(s, "/>\n");
	}
	str_addf(s, "  </References>\n  <DiskSection>\n    <Info>Virtual "
		    "disks</Info>\n");
	for (unsigned i = 0; i < o->n; i++) {
		str_addf(s,
			 "    <Disk ovf:diskId=\"vmdisk%u\" ovf:fileRef=\"file%u\" "
			 "ovf:format=\"http://www.vmware.com/interfaces/specifications/"
			 "vmdk.html#streamOptimized\"",
			 i + 1, i + 1);
		add_number(s, "capacity", o->disk[i].capacity);
		str_addf(s, "/>\n");
	}
	str_addf(
		s,
		"  </DiskSection>\n  <NetworkSection>\n    <Info>Networks</Info>\n"
		"    <Network ovf:name=\"NAT\">\n      <Description>NAT</Description>\n"
		"    </Network>\n  </NetworkSection>\n");
}

/* One <Item>: its parts stand in the order of their names, as the schema wants it. NULL: left out. */
struct item {
	const char *units, *caption, *host, *sub, *connection;
	int address, on_parent, parent; /* -1: none */
	unsigned type, id;
	uint64_t quantity; /* 0: none */
};

static void add_item(struct str *s, const struct item *i)
{
	str_addf(s, "      <Item>\n");
	if (i->address >= 0)
		str_addf(s, "        <rasd:Address>%d</rasd:Address>\n", i->address);
	if (i->on_parent >= 0)
		str_addf(s, "        <rasd:AddressOnParent>%d</rasd:AddressOnParent>\n",
			 i->on_parent);
	if (i->units)
		str_addf(s, "        <rasd:AllocationUnits>%s</rasd:AllocationUnits>\n",
			 i->units);
	if (i->connection)
		str_addf(s,
			 "        <rasd:AutomaticAllocation>true"
			 "</rasd:AutomaticAllocation>\n"
			 "        <rasd:Connection>%s</rasd:Connection>\n",
			 i->connection);
	str_addf(s, "        <rasd:ElementName>%s</rasd:ElementName>\n", i->caption);
	if (i->host)
		str_addf(s, "        <rasd:HostResource>%s</rasd:HostResource>\n",
			 i->host);
	str_addf(s, "        <rasd:InstanceID>%u</rasd:InstanceID>\n", i->id);
	if (i->parent >= 0)
		str_addf(s, "        <rasd:Parent>%d</rasd:Parent>\n", i->parent);
	if (i->sub)
		str_addf(s, "        <rasd:ResourceSubType>%s</rasd:ResourceSubType>\n",
			 i->sub);
	str_addf(s, "        <rasd:ResourceType>%u</rasd:ResourceType>\n", i->type);
	if (i->quantity)
		str_addf(s,
			 "        <rasd:VirtualQuantity>%llu</rasd:VirtualQuantity>\n",
			 (unsigned long long)i->quantity);
	str_addf(s, "      </Item>\n");
}

static const struct bus {
	const char *name, *caption, *sub;
	unsigned type, per; /* disks to a controller */
} buses[] = {
	{"sata", "SATA controller", "vmware.sata.ahci", 20, 30},
	{"ide", "IDE controller", "PIIX4", 5, 2},
	{"scsi", "SCSI controller", "lsilogic", 6, 15},
};

static void add_disks(struct out *o, const struct bus *bus)
{
	unsigned n = (o->n + bus->per - 1) / bus->per;

	for (unsigned i = 0; i < n; i++)
		add_item(&o->ovf, &(struct item){.address = (int)i,
						 .on_parent = -1,
						 .parent = -1,
						 .caption = bus->caption,
						 .id = 10 + i,
						 .sub = bus->sub,
						 .type = bus->type});
	for (unsigned i = 0; i < o->n; i++) {
		char host[40], caption[20];
		unsigned unit = i % bus->per;

		snprintf(host, sizeof(host), "ovf:/disk/vmdisk%u", i + 1);
		snprintf(caption, sizeof(caption), "Disk %u", i + 1);
		/* unit 7 is the SCSI controller itself */
		unit += bus->type == 6 && unit >= 7;
		add_item(&o->ovf, &(struct item){.address = -1,
						 .on_parent = (int)unit,
						 .parent = (int)(10 + i / bus->per),
						 .caption = caption,
						 .host = host,
						 .id = 100 + i,
						 .type = 17});
	}
}

static void add_system(struct out *o, const struct bus *bus, unsigned os)
{
	struct str *s = &o->ovf;

	str_addf(s,
		 "  <VirtualSystem ovf:id=\"%s\">\n    <Info>A virtual machine</Info>\n"
		 "    <Name>%s</Name>\n    <OperatingSystemSection ovf:id=\"%u\">\n"
		 "      <Info>The operating system</Info>\n"
		 "      <Description>%s</Description>\n    </OperatingSystemSection>\n"
		 "    <VirtualHardwareSection>\n      <Info>Virtual hardware</Info>\n"
		 "      <System>\n        <vssd:ElementName>Virtual Hardware "
		 "Family</vssd:ElementName>\n"
		 "        <vssd:InstanceID>0</vssd:InstanceID>\n"
		 "        <vssd:VirtualSystemIdentifier>%s"
		 "</vssd:VirtualSystemIdentifier>\n"
		 "        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>\n"
		 "      </System>\n",
		 o->name, o->name, systems[os].id, systems[os].title, o->name);
	add_item(s, &(struct item){.address = -1,
				   .on_parent = -1,
				   .parent = -1,
				   .units = "hertz * 10^6",
				   .caption = "Processors",
				   .id = 1,
				   .type = 3,
				   .quantity = o->m->cpus});
	add_item(s, &(struct item){.address = -1,
				   .on_parent = -1,
				   .parent = -1,
				   .units = "byte * 2^20",
				   .caption = "Memory",
				   .id = 2,
				   .type = 4,
				   .quantity = o->m->memory >> 20});
	add_disks(o, bus);
	add_item(s, &(struct item){.address = -1,
				   .on_parent = -1,
				   .parent = -1,
				   .caption = "Network card",
				   .connection = "NAT",
				   .sub = "E1000",
				   .id = 3,
				   .type = 10});
	str_addf(s,
		 "      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" "
		 "vmw:value=\"%s\"/>\n"
		 "    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n",
		 o->m->firmware);
}

/* The description, always of the same length. */
static int make_ovf(struct out *o, struct err *err)
{
	const struct bus *bus = buses;
	unsigned os = 0;

	while (strcmp(systems[os].name, o->m->os))
		os++;
	while (strcmp(bus->name, o->m->bus))
		bus++;
	str_fini(&o->ovf);
	o->ovf = (struct str){0};
	str_addf(&o->ovf,
		 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Envelope "
		 "xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" "
		 "xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" "
		 "xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
		 "CIM_ResourceAllocationSettingData\" "
		 "xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
		 "CIM_VirtualSystemSettingData\" "
		 "xmlns:vmw=\"http://www.vmware.com/schema/ovf\">\n");
	add_files(o);
	add_system(o, bus, os);
	return o->ovf.failed ? no_memory(err) : 0;
}

/* The manifest, always of the same length. */
static int make_manifest(struct out *o, struct err *err)
{
	uint8_t sum[HASH_MAX];
	char text[HASH_TEXT];

	hash_memory("sha256", o->ovf.p, o->ovf.len, sum);
	for (unsigned i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", sum[i]);
	str_fini(&o->mf);
	o->mf = (struct str){0};
	str_addf(&o->mf, "SHA256(%s.ovf)= %s\n", o->base, text);
	for (unsigned i = 0; i < o->n; i++)
		str_addf(&o->mf, "SHA256(%s)= %64s\n", o->disk[i].name,
			 o->disk[i].hash);
	return o->mf.failed ? no_memory(err) : 0;
}

/* ---- disks ---- */

static int copy_disk(struct out *o, struct out_disk *d, struct img *in,
		     struct img_work_list *w, struct err *err)
{
	static const struct img_option stream = {"subformat", "streamOptimized"};
	struct img_create_opts create = {
		.format = "vmdk", .size = w->size, .options = &stream, .n_options = 1};
	struct img_plan plan = {w->data, w->n_data, true};
	struct img_source src = {.img = &in, .n = 1};
	struct img_copy_opts how = *o->how;
	struct img_target *t = NULL;
	struct img *out = NULL;
	int rc = img_target_new_fd(o->file.fd, d->name, &create, &plan, &t, &out, err);

	how.packed = true;
	how.zero_known = true;
	if (rc)
		return rc;
	rc = img_copy(&src, out, w, &how, err);
	if (rc)
		img_target_drop(t, out);
	else
		rc = img_target_commit(t, out, err);
	return rc;
}

static int put_disk(struct out *o, unsigned i, struct img *in, struct err *err)
{
	struct out_disk *d = &o->disk[i];
	struct img_source src = {.img = &in, .n = 1};
	struct img_work_list w;
	uint8_t block[TAR_BLOCK];
	off_t end = -1;
	int rc = img_work_list(&src, false, &w, err);

	if (rc)
		return rc;
	d->at = o->end + TAR_BLOCK;
	if (lseek(o->file.fd, (off_t)d->at, SEEK_SET) < 0)
		rc = err_sys(err, errno, "cannot write '%s'", d->name);
	else
		rc = copy_disk(o, d, in, &w, err);
	img_work_free(&w);
	if (rc)
		return rc;
	end = lseek(o->file.fd, 0, SEEK_CUR);
	d->len = (uint64_t)end - d->at;
	rc = end < 0 ? -errno : tar_header(d->name, d->len, block);
	if (!rc)
		rc = fd_pwrite_full(o->file.fd, block, TAR_BLOCK, d->at - TAR_BLOCK);
	if (!rc)
		rc = hash_file("sha256", o->file.fd, d->at, d->len, o->how->stop,
			       d->hash);
	o->end = d->at + align_up(d->len, TAR_BLOCK);
	return rc == -EINTR ? err_set(err, EINTR, "interrupted")
	       : rc         ? err_sys(err, -rc, "cannot write '%s'", d->name)
			    : 0;
}

/* ---- all of it ---- */

static int put_texts(struct out *o, struct err *err)
{
	char name[MAX_NAME + 8];
	uint64_t at = 0;
	int rc = make_ovf(o, err);

	if (!rc)
		rc = make_manifest(o, err);
	snprintf(name, sizeof(name), "%s.ovf", o->base);
	if (!rc)
		rc = put_member(o, name, &o->ovf, &at, err);
	snprintf(name, sizeof(name), "%s.mf", o->base);
	if (!rc)
		rc = put_member(o, name, &o->mf, &at, err);
	if (!rc && !o->end)
		o->end = at;
	return rc;
}

static int put_all(struct out *o, struct img *const *disk, struct err *err)
{
	int rc = put_texts(o, err);

	for (unsigned i = 0; i < o->n && !rc; i++)
		rc = put_disk(o, i, disk[i], err);
	if (!rc)
		rc = put_texts(o, err);
	/* Two blocks of zeros are the end; some readers want whole records. */
	if (!rc && ftruncate(o->file.fd, (off_t)align_up(o->end + 2 * TAR_BLOCK,
							 20 * TAR_BLOCK)) < 0)
		rc = err_sys(err, errno, "cannot write a package");
	return rc;
}

/* Names of members: letters, digits and a few signs. */
static void fill_names(struct out *o, struct img *const *disk)
{
	size_t n = 0;

	for (const char *s = o->m->name; *s && n < MAX_NAME; s++)
		o->base[n++] = (*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') ||
					       (*s >= 'A' && *s <= 'Z') ||
					       strchr("-_.", *s)
				       ? *s
				       : '_';
	if (!n || o->base[0] == '.')
		strcpy(o->base, "machine");
	for (unsigned i = 0; i < o->n; i++) {
		snprintf(o->disk[i].name, sizeof(o->disk[i].name), "%s-disk%u.vmdk",
			 o->base, i + 1);
		o->disk[i].capacity = align_up(img_size(disk[i]), 512);
	}
}

static bool known(const struct ova_machine *m)
{
	bool os = false, bus = false;

	for (size_t i = 0; i < ARRAY_LEN(systems); i++)
		os |= !strcmp(systems[i].name, m->os);
	for (size_t i = 0; i < ARRAY_LEN(buses); i++)
		bus |= !strcmp(buses[i].name, m->bus);
	return os && bus &&
	       (!strcmp(m->firmware, "bios") || !strcmp(m->firmware, "efi"));
}

int ova_write(const char *path, bool replace, const struct ova_machine *m,
	      struct img *const *disk, unsigned n, const struct img_copy_opts *how,
	      struct err *err)
{
	struct out *o;
	int rc;

	if (!n || n > OVA_MAX_DISKS || !known(m) || (n > 4 && !strcmp(m->bus, "ide")))
		return err_set(err, EINVAL,
			       "a package cannot have %u disks on %s, firmware %s, and "
			       "system '%s'",
			       n, m->bus, m->firmware, m->os);
	o = calloc(1, sizeof(*o));
	if (!o)
		return no_memory(err);
	o->m = m;
	o->n = n;
	o->how = how;
	o->name = escape(m->name);
	fill_names(o, disk);
	rc = o->name ? newfile_begin(&o->file, path, replace, err)
		     : err_set(err, EINVAL, "the machine's name is not UTF-8");
	if (!rc) {
		rc = put_all(o, disk, err);
		if (rc)
			newfile_drop(&o->file);
		else
			rc = newfile_commit(&o->file, err);
	}
	str_fini(&o->ovf);
	str_fini(&o->mf);
	free(o->name);
	free(o);
	return rc;
}
