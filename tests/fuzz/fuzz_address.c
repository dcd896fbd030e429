/*
 * tests/fuzz/fuzz_address.c - addresses of remote disks, as an image may name one: what is made of them for libnbd or nbdkit
 * stays one argument each, and nothing becomes an option.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/nbd/remote_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const begin[] = {"ssh://", "http://",
					    "nbd:", "nbd:unix:", ""};
	size_t pick = len ? data[0] % ARRAY_LEN(begin) : 0;
	struct remote_route rt;
	struct err err;
	char *url;

	if (!len || !(url = malloc(strlen(begin[pick]) + len)))
		return 0;
	strcpy(url, begin[pick]);
	memcpy(url + strlen(begin[pick]), data + 1, len - 1);
	url[strlen(begin[pick]) + len - 1] = 0;
	if (remote_is_url(url)) {
		int rc = route_find(url, true, &rt, &err);

		if (!rc && !rt.uri == !rt.argv[0])
			abort(); /* one of both */
		for (size_t i = 5; !rc && i < ARRAY_LEN(rt.argv) && rt.argv[i]; i++)
			if (rt.argv[i][0] == '-' || !strchr(rt.argv[i], '='))
				abort();
		if (!rc && rt.uri && strncmp(rt.uri, "nbd", 3))
			abort();
		route_fini(&rt);
	}
	free(url);
	return 0;
}
