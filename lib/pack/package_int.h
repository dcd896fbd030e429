/* pack/package_int.h - what the kinds of packages share. */
#ifndef PACK_PACKAGE_INT_H
#define PACK_PACKAGE_INT_H

#include "pack/package.h"
#include "pack/tar.h"

#define MAX_DISKS 256
#define MAX_FILES 4096

/* A file inside: of a tar file, or of a folder. */
struct package_file {
	char *name;
	uint64_t off, size; /* tar */
};

/* Something with a digest. */
struct package_digest {
	char *what;
	const char *hash; /* static */
	char text[130];   /* lower-case hexadecimal */
};

/* The bytes of one block in a package whose blocks have digests. */
struct block_digest {
	uint64_t off, text_off; /* of the block; of the digest's text */
	uint32_t len, text_len;
	bool xx; /* XXH64, else SHA-1 */
};

struct package_disk {
	char *name, *format, *bus;
	uint64_t size;
	bool gzip;           /* packed as a whole */
	char *path;          /* a file of its own; or */
	uint64_t off, len;   /* a part of the package's file; or */
	struct img_piece *v; /* pieces of it */
	size_t n, v_size;
};

struct package_kind {
	const char *name, *title;
	/* `head`: the first bytes of a file, at least 512 of them or all; NULL: a folder. */
	bool (*probe)(const char *path, const uint8_t *head, size_t len);
	/* Fills in what it holds; 1: it is none after all. */
	int (*open)(struct package *p, struct err *err);
	int (*verify)(struct package *p, unsigned *n, struct err *err);
};

struct package {
	const struct package_kind *kind;
	char *path;
	int fd; /* -1: a folder */
	const atomic_bool *stop;
	char *name, *os, *firmware;
	uint64_t memory;
	unsigned cpus;
	struct package_disk disk[MAX_DISKS];
	unsigned n_disks;
	struct package_file *file;
	unsigned n_files, file_size;
	struct package_digest *digest;
	unsigned n_digests;
	struct block_digest *block;
	size_t n_blocks, block_size;
	void *priv; /* the kind's, while it opens */
};

extern const struct package_kind package_ova, package_ovf, package_box, package_xva,
	package_vma, package_vmx, package_pvm;

/* A new disk; `name` is copied. NULL: too many, or no memory, with the message set. */
struct package_disk *package_add_disk(struct package *p, const char *name,
				      struct err *err);
int package_add_file(struct package *p, const struct tar_entry *e, struct err *err);
const struct package_file *package_find_file(const struct package *p, const char *name);
/* Adds a piece to a disk: they may come in any order that its image wants them in. 0 or -ENOMEM. */
int package_add_piece(struct package_disk *d, uint64_t off, uint64_t file_off,
		      uint32_t len);
/* A small file of the package in new memory (a 0 byte stands behind it). */
int package_load(const struct package *p, const struct package_file *f, uint64_t max,
		 void **buf, struct err *err);

/* May a package name such a file: relative, no "..", no protocol? */
bool package_name_ok(const char *name);
/* The path of a file beside the package's description, which must lie in that folder; new memory. */
int package_beside(const struct package *p, const char *folder, const char *name,
		   char **out, struct err *err);

/* The lines "SHA256(file)= hex" of a manifest. */
int package_manifest(struct package *p, const char *text, struct err *err);
int package_verify_files(struct package *p, unsigned *n, struct err *err);

/* Reads an OVF description into p: `find` tells whether a file is there, and makes it the disk's. */
int ovf_read(struct package *p, const void *text, size_t len, const char *name,
	     int (*find)(struct package *p, struct package_disk *d, const char *href,
			 struct err *err),
	     struct err *err);

#endif
