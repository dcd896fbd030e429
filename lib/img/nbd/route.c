/*
 * img/nbd/route.c - addresses of remote disks: which libnbd opens itself, and for which a server is started. While
 * an image is opened; one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "img/nbd/remote_int.h"

enum how { BY_LIBNBD, BY_CURL, BY_SSH };

static const struct scheme {
	const char *prefix;
	enum how how;
} schemes[] = {
	{"nbd://", BY_LIBNBD},       {"nbds://", BY_LIBNBD}, {"nbd+unix://", BY_LIBNBD},
	{"nbds+unix://", BY_LIBNBD}, {"http://", BY_CURL},   {"https://", BY_CURL},
	{"ftp://", BY_CURL},         {"ssh://", BY_SSH},
};

static const struct scheme *scheme_of(const char *path)
{
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		if (!strncmp(path, schemes[i].prefix, strlen(schemes[i].prefix)))
			return &schemes[i];
	return NULL;
}

/* QEMU's older form: "nbd:HOST:PORT" or "nbd:unix:SOCKET". */
static bool is_short(const char *path)
{
	return !strncmp(path, "nbd:", 4) && strchr(path + 4, ':') &&
	       strncmp(path + 4, "//", 2);
}

bool remote_is_url(const char *path)
{
	return scheme_of(path) || is_short(path);
}

void route_fini(struct remote_route *rt)
{
	free(rt->uri);
	for (size_t i = 0; i < ARRAY_LEN(rt->argv); i++)
		free(rt->argv[i]);
	*rt = (struct remote_route){0};
}

/* ---- libnbd's own ---- */

/* Writes `len` bytes with all that has a meaning in a URI escaped; new memory. */
static char *escape(const char *text, size_t len)
{
	char *out = malloc(len * 3 + 1), *to = out;

	for (size_t i = 0; out && i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		    (c >= '0' && c <= '9') || strchr("-._~/", c))
			*to++ = (char)c;
		else
			to += sprintf(to, "%%%02X", c);
	}
	if (out)
		*to = 0;
	return out;
}

static int route_short(const char *url, struct remote_route *rt)
{
	const char *where = url + 4, *end = strstr(where, ":exportname=");
	const char *name = end ? end + strlen(":exportname=") : "";
	size_t len = end ? (size_t)(end - where) : strlen(where);
	char *export = escape(name, strlen(name)), *path = NULL;
	int n = -1;

	if (export && len > 5 && !strncmp(where, "unix:", 5)) {
		path = escape(where + 5, len - 5);
		if (path)
			n = asprintf(&rt->uri, "nbd+unix:///%s?socket=%s", export,
				     path);
	} else if (export) {
		n = asprintf(&rt->uri, "nbd://%.*s/%s", (int)len, where, export);
	}
	if (n < 0)
		rt->uri = NULL;
	free(path);
	free(export);
	return n < 0 ? -ENOMEM : 0;
}

/* ---- nbdkit ---- */

static bool in_path(const char *program)
{
	const char *path = getenv("PATH");
	bool found = false;

	while (path && *path && !found) {
		size_t n = strcspn(path, ":");
		char full[4096];

		if (n && snprintf(full, sizeof(full), "%.*s/%s", (int)n, path,
				  program) < (int)sizeof(full))
			found = !access(full, X_OK);
		path += n + (path[n] == ':');
	}
	return found;
}

static int arg_add(struct remote_route *rt, const char *key, const char *value,
		   size_t len)
{
	size_t n = 0;

	while (rt->argv[n])
		n++;
	if (n + 1 >= ARRAY_LEN(rt->argv))
		return -EINVAL;
	if (asprintf(&rt->argv[n], "%s%.*s", key, (int)len, value) < 0) {
		rt->argv[n] = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int hex_of(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Adds "key=value", of which %XX are resolved. */
static int arg_add_plain(struct remote_route *rt, const char *key, const char *value,
			 size_t len)
{
	char *plain = malloc(len + 1);
	size_t n = 0;
	int rc;

	if (!plain)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		int hi = i + 2 < len ? hex_of(value[i + 1]) : -1;
		int lo = hi >= 0 ? hex_of(value[i + 2]) : -1;

		if (value[i] == '%' && lo >= 0 && (hi || lo)) {
			plain[n++] = (char)(hi << 4 | lo);
			i += 2;
		} else {
			plain[n++] = value[i];
		}
	}
	rc = arg_add(rt, key, plain, n);
	free(plain);
	return rc;
}

/* ssh://[USER@]HOST[:PORT]/PATH */
static int route_ssh(const char *url, struct remote_route *rt)
{
	const char *host = url + strlen("ssh://"), *path = strchr(host, '/'), *at,
		   *port;
	size_t n;
	int rc = 0;

	if (!path || path == host || !path[1])
		return -EINVAL;
	n = (size_t)(path - host);
	at = memrchr(host, '@', n);
	if (at) {
		rc = arg_add_plain(rt, "user=", host, (size_t)(at - host));
		n -= (size_t)(at + 1 - host);
		host = at + 1;
	}
	port = n && host[0] == '[' ? memchr(host, ']', n) : host;
	port = port ? memchr(port, ':', n - (size_t)(port - host)) : NULL;
	if (!rc && port)
		rc = arg_add(rt, "port=", port + 1, (size_t)(path - port - 1));
	if (port)
		n = (size_t)(port - host);
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host++;
		n -= 2;
	}
	if (!n)
		return -EINVAL;
	if (!rc)
		rc = arg_add(rt, "host=", host, n);
	return rc ? rc : arg_add_plain(rt, "path=", path, strlen(path));
}

static int route_nbdkit(const char *url, enum how how, struct remote_route *rt)
{
	static const char *const first[] = {"nbdkit", "--exit-with-parent",
					    "--foreground"};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(first) && !rc; i++)
		rc = arg_add(rt, "", first[i], strlen(first[i]));
	if (!rc && rt->read_only)
		rc = arg_add(rt, "", "--readonly", 10);
	if (!rc)
		rc = arg_add(rt, "", how == BY_CURL ? "curl" : "ssh",
			     how == BY_CURL ? 4 : 3);
	if (rc || how == BY_SSH)
		return rc ? rc : route_ssh(url, rt);
	rc = arg_add(rt, "url=", url, strlen(url));
	/* It must not be led to the files of this computer. */
	return rc ? rc : arg_add(rt, "protocols=", "http,https,ftp", 14);
}

int route_find(const char *url, bool read_only, struct remote_route *rt,
	       struct err *err)
{
	const struct scheme *s = scheme_of(url);
	int rc;

	*rt = (struct remote_route){.read_only = read_only};
	if (s && s->how == BY_CURL && !read_only)
		return err_set(err, EROFS,
			       "cannot open '%s' for writing: it can only "
			       "be read",
			       url);
	if (s && s->how != BY_LIBNBD && !in_path("nbdkit"))
		return err_set(err, ENOTSUP,
			       "cannot open '%s': that needs nbdkit, which is not "
			       "installed",
			       url);
	if (s && s->how == BY_LIBNBD)
		rc = (rt->uri = strdup(url)) ? 0 : -ENOMEM;
	else if (s)
		rc = route_nbdkit(url, s->how, rt);
	else
		rc = route_short(url, rt);
	if (rc == -EINVAL)
		return err_set(err, EINVAL, "cannot open '%s': it is no whole address",
			       url);
	return rc ? err_set(err, ENOMEM, "no memory to open '%s'", url) : 0;
}
