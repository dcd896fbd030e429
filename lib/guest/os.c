/* guest/os.c - which operating system is installed in a file system: os-release(5), the Windows registry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/os.h"

#include "base/bits.h"
#include "guest/hive.h"

#define MAX_RELEASE 65536

/* The value of KEY= in os-release, without quotes. */
static void release_value(const char *text, const char *key, char *to, size_t size)
{
	size_t n = strlen(key), k = 0;

	for (const char *p = text; p; p = strchr(p, '\n')) {
		char quote = 0;

		p += *p == '\n';
		if (strncmp(p, key, n) || p[n] != '=')
			continue;
		p += n + 1;
		if (*p == '"' || *p == '\'')
			quote = *p++;
		for (; *p && *p != '\n' && *p != quote && k + 1 < size; p++) {
			if (*p == '\\' && p[1] && quote == '"')
				p++;
			to[k++] = (unsigned char)*p < 0x20 ? ' ' : *p;
		}
		to[k] = 0;
		return;
	}
}

static bool find_linux(struct fs *fs, struct guest_os *os)
{
	static const char *const paths[] = {"/etc/os-release", "/usr/lib/os-release",
					    "/os-release"};
	char *text = NULL;

	for (size_t i = 0; i < ARRAY_LEN(paths) && !text; i++)
		text = fs_load(fs, paths[i], MAX_RELEASE, NULL);
	if (!text)
		return false;
	os->kind = OS_LINUX;
	release_value(text, "PRETTY_NAME", os->name, sizeof(os->name));
	if (!*os->name)
		release_value(text, "NAME", os->name, sizeof(os->name));
	release_value(text, "VERSION_ID", os->version, sizeof(os->version));
	free(text);
	if (!*os->name)
		snprintf(os->name, sizeof(os->name), "Linux");
	return true;
}

static void take(char *to, size_t size, char *from)
{
	if (from)
		snprintf(to, size, "%s", from);
	free(from);
}

/* "Windows 11" calls itself "Windows 10" in the registry. */
static void correct_name(struct guest_os *os, const char *build)
{
	char *ten = strstr(os->name, "Windows 10");

	if (ten && atoi(build) >= 22000)
		ten[9] = '1';
}

static void read_version(struct hive *h, struct guest_os *os)
{
	uint32_t key, major, minor;
	char build[16] = "", old[16] = "";

	if (hive_find(h, h->root, "Microsoft\\Windows NT\\CurrentVersion", &key))
		return;
	take(os->name, sizeof(os->name), hive_text(h, key, "ProductName"));
	take(build, sizeof(build), hive_text(h, key, "CurrentBuildNumber"));
	take(old, sizeof(old), hive_text(h, key, "CurrentVersion"));
	if (!hive_number(h, key, "CurrentMajorVersionNumber", &major) &&
	    !hive_number(h, key, "CurrentMinorVersionNumber", &minor))
		snprintf(os->version, sizeof(os->version), "%u.%u.%s", major, minor,
			 build);
	else if (*old)
		snprintf(os->version, sizeof(os->version), "%s.%s", old, build);
	correct_name(os, build);
}

static bool find_windows(struct fs *fs, struct guest_os *os)
{
	static const char *const folders[] = {"Windows", "WINNT"};
	struct fs_file *f = NULL;
	struct hive h;

	for (size_t i = 0; i < ARRAY_LEN(folders) && !f; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/%s/System32/config/SOFTWARE",
			 folders[i]);
		if (fs_file_open(fs, path, &f))
			f = NULL;
	}
	if (!f)
		return false;
	os->kind = OS_WINDOWS;
	if (!hive_open(&h, f))
		read_version(&h, os);
	if (!*os->name)
		snprintf(os->name, sizeof(os->name), "Windows");
	fs_file_close(f);
	return true;
}

void os_find(struct fs *fs, struct guest_os *os)
{
	*os = (struct guest_os){0};
	if (!find_linux(fs, os))
		find_windows(fs, os);
}
