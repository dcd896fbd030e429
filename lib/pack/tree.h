/*
 * pack/tree.h - a file system tree put together from layers: tar files of any packing, or a folder. A layer's entries replace those
 * of the layers before it; ".wh.NAME" takes NAME away, ".wh..wh..opq" all that was in its folder. Names never lead
 * out of the tree, and no link is followed. One thread.
 */
#ifndef PACK_TREE_H
#define PACK_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define TREE_MAX  (4u << 20) /* entries */
#define TREE_ROOT 0
#define TREE_NONE UINT32_MAX

/* Where a layer comes from. */
struct tree_layer {
	int fd;            /* borrowed; -1: `path` */
	uint64_t off, len; /* of it; len UINT64_MAX: up to the end */
	const char *path;  /* a folder; borrowed */
	const char *name;  /* for messages; borrowed */
};

/* What an inode will hold. */
struct tree_object {
	uint32_t layer, seq; /* which entry of which layer */
	mode_t mode;
	uint32_t uid, gid;
	int64_t mtime;
	uint64_t size;
	uint32_t major, minor;
	char *target; /* symbolic link; owned */
	uint32_t names;
	uint32_t ino; /* for the writer */
};

struct tree_node {
	char *name; /* owned */
	uint32_t parent, object;
	uint32_t child, next; /* first child, next one of the same folder */
	uint32_t hash_next;
};

struct tree {
	struct tree_node *node;
	uint32_t n_nodes, node_size;
	struct tree_object *object;
	uint32_t n_objects, object_size;
	uint32_t *table; /* of names */
	uint32_t table_size;
	const atomic_bool *stop;
};

/* Free it with tree_fini(), also after a failure. */
int tree_build(struct tree *t, const struct tree_layer *v, unsigned n,
	       const atomic_bool *stop, struct err *err);
void tree_fini(struct tree *t);

struct archive;
struct archive_entry;

/* Reads the layers again, and calls each() for every regular file that is left, with the archive for its content. */
int tree_files(struct tree *t, const struct tree_layer *v, unsigned n,
	       int (*each)(void *ctx, struct tree_object *o, uint32_t object,
			   struct archive *a, struct archive_entry *e, struct err *err),
	       void *ctx, struct err *err);

#endif
