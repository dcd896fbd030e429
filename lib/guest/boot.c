/* guest/boot.c - will it start: boot loaders, controllers, and what stands in the way. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/boot_int.h"

#include "base/bits.h"
#include "img/img.h"

#define TYPE_ESP       "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
#define TYPE_BIOS_BOOT "21686148-6449-6e6f-744e-656564454649"
#define TYPE_LDM_META  "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"
#define TYPE_LDM_DATA  "af9b60a0-1431-4f62-bc68-3311714a69ad"

void boot_say(struct guest_boot *b, enum boot_weight weight, const char *id,
	      const struct guest_volume *v, const char *remedy, const char *fmt, ...)
{
	struct boot_finding *f = &b->v[b->n];
	va_list ap;

	if (weight > b->worst)
		b->worst = weight;
	if (b->n == BOOT_FINDINGS)
		return;
	b->n++;
	*f = (struct boot_finding){weight, id, v ? v->part.number : 0, "", remedy};
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
}

/* ---- boot loaders ---- */

static bool has_file(struct fs *fs, const char *path)
{
	struct fs_file *f;

	if (fs_file_open(fs, path, &f))
		return false;
	fs_file_close(f);
	return true;
}

static bool is_esp(const struct guest_volume *v)
{
	return !strcmp(v->part.type, TYPE_ESP) || !strcmp(v->part.type, "0xef");
}

/* Loaders that firmware finds only by an entry of its own. */
static const char *named_loader(struct fs *fs)
{
	static const char *const paths[] = {
		"/EFI/Microsoft/Boot/bootmgfw.efi",
		"/EFI/debian/grubx64.efi",
		"/EFI/ubuntu/shimx64.efi",
		"/EFI/ubuntu/grubx64.efi",
		"/EFI/fedora/shimx64.efi",
		"/EFI/redhat/shimx64.efi",
		"/EFI/centos/shimx64.efi",
		"/EFI/rocky/shimx64.efi",
		"/EFI/almalinux/shimx64.efi",
		"/EFI/opensuse/grubx64.efi",
		"/EFI/arch/grubx64.efi",
		"/EFI/GRUB/grubx64.efi",
		"/EFI/systemd/systemd-bootx64.efi",
		"/EFI/alpine/grubx64.efi",
	};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (has_file(fs, paths[i]))
			return paths[i];
	return NULL;
}

static void look_at_esp(struct guest_boot *b, struct guest_volume *v)
{
	const char *named;

	if (!v->fs || strcmp(fs_info(v->fs)->type, "vfat")) {
		boot_say(b, BOOT_PROBLEM, "esp-unreadable", v, NULL,
			 "the EFI system partition has no FAT file system%s%s",
			 *v->error ? ": " : "", v->error);
		return;
	}
	if (has_file(v->fs, "/EFI/BOOT/BOOTX64.EFI")) {
		b->uefi = true;
		return;
	}
	named = named_loader(v->fs);
	if (named) {
		b->uefi = true;
		boot_say(b, BOOT_PROBLEM, "no-fallback-loader", v,
			 "copy it to /EFI/BOOT/BOOTX64.EFI, or add an entry to the "
			 "firmware's list",
			 "the boot loader is '%s': new firmware does not find it",
			 named);
	} else if (has_file(v->fs, "/EFI/BOOT/BOOTIA32.EFI")) {
		boot_say(b, BOOT_PROBLEM, "uefi-32", v, NULL,
			 "the boot loader is for 32-bit UEFI");
	}
}

/* Boot code in the first sector, and what it goes on with. */
static void look_at_mbr(struct guest_boot *b, const struct guest_disk *d)
{
	uint8_t s[512];
	bool grub, gpt = !strcmp(d->table.type, "gpt"), next = false;

	if (img_size(d->img) < sizeof(s) || img_read(d->img, s, 0, sizeof(s)) ||
	    s[510] != 0x55 || s[511] != 0xaa)
		return;
	grub = memmem(s, 440, "GRUB", 4);
	for (unsigned i = 0; i < d->n; i++) {
		const struct part *p = &d->v[i].part;

		next |= gpt ? !strcmp(p->type, TYPE_BIOS_BOOT) || p->active : p->active;
	}
	if (!d->table.boot_code && strcmp(d->table.type, "none"))
		return;
	if (grub || next || !strcmp(d->table.type, "none"))
		b->bios = true;
	else if (!gpt)
		boot_say(b, BOOT_PROBLEM, "no-active-partition", NULL,
			 "mark the system's partition active",
			 "there is boot code, but no partition is active");
}

/* A disk without a table: the file system's boot sector may be only a message. */
static void look_at_plain(struct guest_boot *b, const struct guest_disk *d)
{
	if (strcmp(d->table.type, "none") || !b->bios)
		return;
	if (!strcmp(d->v[0].content.type, "vfat") ||
	    !strcmp(d->v[0].content.type, "ntfs") ||
	    !strcmp(d->v[0].content.type, "exfat"))
		boot_say(b, BOOT_NOTE, "superfloppy", NULL, NULL,
			 "the disk is one file system without a partition table");
}

static void find_loaders(struct guest_boot *b, struct guest_disk *d)
{
	for (unsigned i = 0; i < d->n; i++)
		if (is_esp(&d->v[i]))
			look_at_esp(b, &d->v[i]);
	look_at_mbr(b, d);
	look_at_plain(b, d);
	b->firmware = b->uefi ? FIRMWARE_UEFI : b->bios ? FIRMWARE_BIOS : FIRMWARE_NONE;
	if (!b->firmware)
		boot_say(b, BOOT_STOP, "no-boot-loader", NULL, NULL,
			 "no boot loader was found: no code in the first sector, no "
			 "loader in an EFI system partition");
}

/* ---- what is in the volumes ---- */

static bool is_ldm(const struct part *p)
{
	return !strcmp(p->type, TYPE_LDM_META) || !strcmp(p->type, TYPE_LDM_DATA) ||
	       !strcmp(p->type, "0x42");
}

static void look_at_content(struct guest_boot *b, const struct guest_volume *v)
{
	const char *type = v->content.type;

	if (!strcmp(type, "BitLocker"))
		boot_say(b, BOOT_PROBLEM, "bitlocker", v,
			 "before: 'manage-bde -protectors -disable C:', or have the "
			 "48-digit key at hand",
			 "it is encrypted by BitLocker: Windows will ask for the "
			 "recovery key");
	else if (!strcmp(type, "crypto_LUKS"))
		boot_say(
			b, BOOT_NOTE, "luks", v, NULL,
			"it is encrypted (LUKS): a passphrase will be asked for; a key "
			"in this computer's TPM is not there");
	else if (!strcmp(type, "LVM2_member"))
		boot_say(b, BOOT_NOTE, "lvm", v, NULL,
			 "it is a volume group (LVM): what is in it was not looked at");
	else if (!strcmp(v->content.usage, "raid"))
		boot_say(b, BOOT_PROBLEM, "raid-member", v,
			 "all disks of the array are needed",
			 "it is a member of a RAID array (%s)", type);
	if (is_ldm(&v->part))
		boot_say(b, BOOT_NOTE, "dynamic-disk", v, NULL,
			 "it belongs to a dynamic disk of Windows: what is in it was "
			 "not looked at");
	if (v->part.cut)
		boot_say(b, BOOT_PROBLEM, "cut", v, NULL,
			 "it ends behind the end of the disk: the disk is not whole");
}

static void look_at_state(struct guest_boot *b, const struct guest_volume *v)
{
	const struct fs_info *i = v->fs ? fs_info(v->fs) : NULL;

	if (*v->error)
		boot_say(b, BOOT_PROBLEM, "damaged", v, NULL, "%s", v->error);
	if (!i || i->state == FS_CLEAN)
		return;
	if (i->state == FS_HIBERNATED)
		boot_say(b, BOOT_PROBLEM, "hibernated", v,
			 !strcmp(i->type, "ntfs")
				 ? "shut it down whole: 'shutdown /s /f /t 0', and "
				   "'powercfg /h off' against fast startup"
				 : "start and shut it down once more where it ran",
			 "%s: it would wake up in another computer", i->why);
	else
		boot_say(b, BOOT_NOTE, "not-clean", v, NULL,
			 "%s: it will be put in order when it starts", i->why);
}

/* Names that are others in a virtual machine. */
static void look_at_fstab(struct guest_boot *b, struct guest_volume *v)
{
	char *text = fs_load(v->fs, "/etc/fstab", 65536, NULL);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		p += strspn(p, " \t");
		if (!strncmp(p, "/dev/nvme", 9) || !strncmp(p, "/dev/sd", 7) ||
		    !strncmp(p, "/dev/hd", 7) || !strncmp(p, "/dev/mmcblk", 11) ||
		    !strncmp(p, "/dev/xvd", 8)) {
			bool sd = !strncmp(p, "/dev/sd", 7);

			boot_say(b, sd ? BOOT_NOTE : BOOT_PROBLEM, "fstab-names", v,
				 "write UUID= names (blkid tells them)",
				 "/etc/fstab has '%.*s': that disk has another name in "
				 "a "
				 "virtual machine%s",
				 (int)min_u64(strcspn(p, " \t\n"), 60), p,
				 sd ? " with virtio" : "");
			break;
		}
	}
	free(text);
}

static void look_at_system(struct guest_boot *b, struct guest_volume *v)
{
	if (!v->os.kind)
		return;
	if (b->os) {
		boot_say(b, BOOT_NOTE, "several-systems", v, NULL, "here is also: %s",
			 v->os.name);
		return;
	}
	b->os = &v->os;
	if (v->os.kind == OS_WINDOWS)
		boot_windows(b, v);
	else if (v->os.kind == OS_LINUX)
		look_at_fstab(b, v);
}

void guest_boot_judge(struct guest_disk *d, struct guest_boot *b)
{
	*b = (struct guest_boot){0};
	if (d->table.sector != 512)
		boot_say(b, BOOT_STOP, "sector-size", NULL, NULL,
			 "the partition table counts in sectors of %u bytes: the disk "
			 "has "
			 "to be given as one of such sectors",
			 d->table.sector);
	find_loaders(b, d);
	for (unsigned i = 0; i < d->n; i++) {
		look_at_content(b, &d->v[i]);
		look_at_state(b, &d->v[i]);
		look_at_system(b, &d->v[i]);
	}
	if (!b->os)
		boot_say(b, BOOT_NOTE, "no-system", NULL, NULL,
			 "no operating system was recognized");
}
