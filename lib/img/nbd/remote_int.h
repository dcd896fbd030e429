/* img/nbd/remote_int.h - what the connection and the addresses share. */
#ifndef IMG_NBD_REMOTE_INT_H
#define IMG_NBD_REMOTE_INT_H

#include "img/nbd/remote.h"

/* How an address is reached: a libnbd URI, or a server to be started (argv ends with NULL). */
struct remote_route {
	char *uri;      /* owned; NULL: by argv */
	char *argv[16]; /* owned */
	bool read_only; /* nothing else is possible */
};

/* 0, -EINVAL, -ENOMEM, -ENOTSUP. Ends with route_fini(), also on failure. */
int route_find(const char *url, bool read_only, struct remote_route *rt,
	       struct err *err);
void route_fini(struct remote_route *rt);

#endif
