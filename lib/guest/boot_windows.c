/*
 * guest/boot_windows.c - which disk drivers a Windows starts, by its SYSTEM hive. A driver is loaded by the boot loader
 * with Start 0; in Windows 8 and later StartOverride\0 can take that back.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "guest/boot_int.h"

#include "base/bits.h"
#include "guest/hive.h"

/* clang-format off */
static const struct driver {
	const char *service;
	enum boot_controller controller;
	bool raid;
} drivers[] = {
	/* the first one that starts is taken */
	{"storahci", CONTROLLER_AHCI, false},
	{"msahci", CONTROLLER_AHCI, false},
	{"intelide", CONTROLLER_IDE, false},
	{"pciide", CONTROLLER_IDE, false},
	{"viostor", CONTROLLER_VIRTIO, false},
	{"vioscsi", CONTROLLER_VIRTIO, false},
	/* firmware RAID: there is none in a virtual machine */
	{"iaStorVD", CONTROLLER_ANY, true},
	{"iaStorAVC", CONTROLLER_ANY, true},
	{"iaStorAC", CONTROLLER_ANY, true},
	{"iaStorA", CONTROLLER_ANY, true},
	{"iaStorV", CONTROLLER_ANY, true},
	{"iaStor", CONTROLLER_ANY, true},
	{"rcraid", CONTROLLER_ANY, true},
	{"amdsata", CONTROLLER_ANY, true},
	{"nvraid", CONTROLLER_ANY, true},
};
/* clang-format on */

static bool starts(struct hive *h, uint32_t services, const char *name)
{
	uint32_t key, over, n;

	if (hive_find(h, services, name, &key) || hive_number(h, key, "Start", &n) || n)
		return false;
	return hive_find(h, key, "StartOverride", &over) ||
	       hive_number(h, over, "0", &n) || !n;
}

static void judge(struct guest_boot *b, const struct guest_volume *v, struct hive *h,
		  uint32_t services)
{
	const char *raid = NULL;

	for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
		const struct driver *d = &drivers[i];

		if (!starts(h, services, d->service))
			continue;
		if (d->raid && !raid)
			raid = d->service;
		else if (!d->raid && !b->controller)
			b->controller = d->controller;
	}
	if (b->controller == CONTROLLER_IDE && raid)
		boot_say(b, BOOT_PROBLEM, "raid-driver", v,
			 "switch it to AHCI before it is moved",
			 "Windows starts its disk by the RAID driver '%s'", raid);
	else if (!b->controller)
		boot_say(
			b, BOOT_STOP, "no-disk-driver", v,
			"have it start storahci (msahci in Windows 7): a start in safe "
			"mode with an AHCI disk does it",
			raid ? "Windows starts only the RAID driver '%s': it would "
			       "stop "
			       "with 0x7B"
			     : "Windows starts no driver for AHCI, IDE or virtio "
			       "disks: it would stop with 0x7B%s",
			raid ? raid : "");
}

void boot_windows(struct guest_boot *b, struct guest_volume *v)
{
	static const char *const paths[] = {"/Windows/System32/config/SYSTEM",
					    "/WINNT/System32/config/SYSTEM"};
	struct fs_file *f = NULL;
	uint32_t key, n = 1;
	char path[64];
	struct hive h;

	for (size_t i = 0; i < ARRAY_LEN(paths) && !f; i++)
		if (fs_file_open(v->fs, paths[i], &f))
			f = NULL;
	if (!f || hive_open(&h, f)) {
		boot_say(b, BOOT_PROBLEM, "no-registry", v, NULL,
			 "the registry cannot be read: its drivers are not known");
		fs_file_close(f);
		return;
	}
	if (h.torn)
		boot_say(
			b, BOOT_NOTE, "registry-log", v, NULL,
			"the registry's last changes are in its log: what is told here "
			"is without them");
	if (!hive_find(&h, h.root, "Select", &key))
		hive_number(&h, key, "Current", &n);
	snprintf(path, sizeof(path), "ControlSet%03u\\Services", n % 1000);
	if (hive_find(&h, h.root, path, &key))
		boot_say(b, BOOT_PROBLEM, "no-registry", v, NULL,
			 "the registry has no list of drivers");
	else
		judge(b, v, &h, key);
	fs_file_close(f);
}
