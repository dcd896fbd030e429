/*
 * tests/progs/mkinitramfs.c - makes an initramfs for the demo and the guest tests.
 * Usage: mkinitramfs OUT ENTRY...   ENTRY: DIR/ (a directory), NAME=FILE (a file, executable when
 * FILE is), NAME@TARGET (a symbolic link), NAME#MAJOR:MINOR (a character device).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pack/initramfs.h"

static int add_entry(struct initramfs *a, char *spec, struct err *err)
{
	size_t len = strlen(spec), n = strcspn(spec, "=@#");
	unsigned major, minor;
	char kind = spec[n], *arg = spec + n + 1;

	if (len && spec[len - 1] == '/' && !kind) {
		spec[len - 1] = 0;
		return initramfs_dir(a, spec, err);
	}
	spec[n] = 0;
	switch (kind) {
	case '=':
		return initramfs_file(a, spec, arg, access(arg, X_OK) ? 0644 : 0755,
				      err);
	case '@': return initramfs_link(a, spec, arg, err);
	case '#':
		if (sscanf(arg, "%u:%u", &major, &minor) == 2)
			return initramfs_chardev(a, spec, major, minor, err);
		break;
	}
	return err_set(err, EINVAL, "'%s' is no entry", spec);
}

int main(int argc, char **argv)
{
	struct initramfs *a;
	struct err err = {0};

	if (argc < 3) {
		fprintf(stderr, "usage: mkinitramfs OUT ENTRY...\n");
		return 2;
	}
	a = initramfs_new(argv[1], &err);
	for (int i = 2; a && i < argc; i++)
		if (add_entry(a, argv[i], &err) < 0) {
			initramfs_abort(a);
			a = NULL;
		}
	if (!a || initramfs_close(a, &err) < 0) {
		fprintf(stderr, "mkinitramfs: %s\n", err.msg);
		return 1;
	}
	return 0;
}
