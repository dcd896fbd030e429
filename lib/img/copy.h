/*
 * img/copy.h - copies and compares whole images on all processors. One thread calls; the work is done by threads
 * of its own.
 */
#ifndef IMG_COPY_H
#define IMG_COPY_H

#include <stdatomic.h>

#include "img/img.h"

/* What a copy tells while it runs: called by any of its threads, one at a time. Bytes of data. */
typedef void img_progress(void *ctx, uint64_t done, uint64_t total);

/* The images that are copied, one behind the other as if they were one. */
struct img_source {
	struct img *const *img;
	unsigned n;
	uint64_t skip; /* bytes that are left out at the beginning */
};

/*
 * What has to be copied: ranges of data, and of zeros that are to hide a backing file (`top_only`: only what is
 * in the images themselves, and not in their backing files). Free with img_work_free().
 */
struct img_work_list {
	struct img_range *data, *zero;
	size_t n_data, n_zero, data_size, zero_size;
	uint64_t data_bytes, size; /* of all data; of all images together */
	bool chosen;  /* what is in no range becomes zeros, even if there is data */
	uint64_t gap; /* there were too many ranges: zeros up to this count as data */
};

int img_work_list(const struct img_source *src, bool top_only, struct img_work_list *w,
		  struct err *err);
void img_work_free(struct img_work_list *w);
/*
 * Leaves only what is in the n sorted ranges of `keep`, too: the rest becomes zeros. 0 or -ENOMEM.
 */
int img_work_keep(struct img_work_list *w, const struct img_range *keep, size_t n,
		  struct err *err);
/* Leaves only [off, off + len), which becomes the whole: src->skip has to be `off`, then. */
void img_work_cut(struct img_work_list *w, uint64_t off, uint64_t len);
/* Adds what is neither data nor zeros up to `size` to the zeros. */
int img_work_fill(struct img_work_list *w, uint64_t size, struct err *err);

struct img_copy_opts {
	unsigned threads; /* 0: one per processor */
	uint32_t
		sparse; /* as many zero bytes in a row are not written; 0: all are written */
	bool packed;     /* compressed, in the target's own way */
	bool zero_known; /* what is not written reads as zeros: zeros in data are skipped */
	bool clone;      /* let files share blocks where the host can do it */
	bool offload;  /* and have the host copy where it can do that */
	bool salvage;  /* unreadable parts are zeros, and *bad counts them */
	uint64_t rate; /* at most so many bytes a second; 0: no limit */
	img_progress *progress;
	void *ctx;
	const atomic_bool *stop; /* set: give up with -EINTR; may be NULL */
	uint64_t *bad;           /* bytes that could not be read */
};

/* Copies what the list says. 0, or -errno with what failed where. */
int img_copy(const struct img_source *src, struct img *dst,
	     const struct img_work_list *w, const struct img_copy_opts *o,
	     struct err *err);

struct img_compare_opts {
	unsigned threads;
	bool strict; /* allocation counts, too */
	img_progress *progress;
	void *ctx;
	const atomic_bool *stop;
};

struct img_compare {
	bool differ;
	bool allocation; /* not in content, but in what is allocated */
	uint64_t offset; /* of the first difference */
};

/* Compares two images; behind the end of the shorter one counts as zeros. */
int img_compare(struct img *a, struct img *b, const struct img_compare_opts *o,
		struct img_compare *c, struct err *err);

/* Processors that this process may use. */
unsigned img_processors(void);

#endif
