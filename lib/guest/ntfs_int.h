/* guest/ntfs_int.h - NTFS: records of the master file table and their streams. Private to lib/guest. */
#ifndef GUEST_NTFS_INT_H
#define GUEST_NTFS_INT_H

#include "guest/fs_int.h"

enum {
	NTFS_LIST = 0x20,
	NTFS_NAME = 0x30,
	NTFS_VOLUME_NAME = 0x60,
	NTFS_VOLUME_INFO = 0x70,
	NTFS_DATA = 0x80,
	NTFS_INDEX_ROOT = 0x90,
	NTFS_INDEX = 0xa0,
};

enum { REC_MFT = 0, REC_LOG = 2, REC_VOLUME = 3, REC_ROOT = 5, REC_BITMAP = 6 };

/* Clusters of a stream: lcn NTFS_HOLE is a hole. */
struct ntfs_run {
	uint64_t lcn, n;
};
#define NTFS_HOLE UINT64_MAX

struct ntfs_stream {
	struct fs *fs;        /* borrowed */
	struct ntfs_run *run; /* owned */
	size_t n, size_runs;
	uint64_t vcn;        /* clusters in the runs */
	uint8_t *resident;   /* owned; the content if it has no runs */
	uint64_t size, init; /* bytes; behind init it reads as zeros */
	bool packed;         /* compressed or encrypted: not to be read */
};

struct ntfs {
	uint32_t sector, cluster, record; /* bytes */
	uint64_t clusters;
	struct ntfs_stream mft;
};

/*
 * Opens the stream of a record: type, and name ("$I30" or "" for none). 0 (ntfs_stream_fini()), -ENOENT: there is
 * none; -EUCLEAN.
 */
int ntfs_stream_open(struct fs *fs, uint64_t record, uint32_t type, const char *name,
		     struct ntfs_stream *s);
void ntfs_stream_fini(struct ntfs_stream *s);
/* Reads exactly len bytes. -ENXIO, -EIO, -ENOTSUP. */
int ntfs_stream_read(struct ntfs_stream *s, void *buf, uint64_t off, size_t len);

/* Opens the master file table, which begins at this cluster. */
int ntfs_mft_open(struct fs *fs, uint64_t lcn);

/* Puts the last bytes of each sector back ("fixup"). Are they what they have to be? */
bool ntfs_fixup(uint8_t *p, uint32_t len, const char magic[4]);

int ntfs_file_open(struct fs *fs, const char *path, struct fs_file *f);
int ntfs_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len);
void ntfs_file_close(struct fs_file *f);
int ntfs_file_ranges(struct fs_file *f, struct ranges *r);

#endif
