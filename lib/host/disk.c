/*
 * host/disk.c - a disk image as a block device. Requests wait in one queue for the first free worker;
 * they are done in any order, as virtio allows. A flush waits for nothing: it covers the requests
 * that were answered before it came.
 */
#include "host/disk.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img.h"

#define MAX_WORKERS 16

struct disk {
	struct blk blk;
	struct img *img; /* owned */
	pthread_t worker[MAX_WORKERS];
	unsigned n_workers;
	pthread_mutex_t mutex; /* guards what follows; innermost */
	pthread_cond_t work, idle;
	struct blk_req *head, **tail;
	unsigned under_way; /* queued or being done */
	bool quit;
	bool remote;
};

static struct disk *disk_of(struct blk *b)
{
	return container_of(b, struct disk, blk);
}

static int perform(struct disk *d, const struct blk_req *r)
{
	if (r->op != BLK_FLUSH && !range_ok(r->off, r->len, d->blk.size))
		return -EINVAL;
	switch (r->op) {
	case BLK_READ: return img_readv(d->img, r->iov, r->n_iov, r->off, r->len);
	case BLK_WRITE: return img_writev(d->img, r->iov, r->n_iov, r->off, r->len);
	case BLK_FLUSH: return img_flush(d->img);
	case BLK_DISCARD: return img_discard(d->img, r->off, r->len);
	case BLK_WRITE_ZEROES:
		return img_write_zeroes(d->img, r->off, r->len, r->unmap);
	}
	return -ENOTSUP;
}

static void *worker_main(void *arg)
{
	struct disk *d = arg;

	pthread_mutex_lock(&d->mutex);
	for (;;) {
		struct blk_req *r;

		while (!d->head && !d->quit)
			pthread_cond_wait(&d->work, &d->mutex);
		r = d->head;
		if (!r)
			break;
		d->head = r->next;
		if (!d->head)
			d->tail = &d->head;
		pthread_mutex_unlock(&d->mutex);
		r->done(r, perform(d, r));
		pthread_mutex_lock(&d->mutex);
		if (!--d->under_way)
			pthread_cond_broadcast(&d->idle);
	}
	pthread_mutex_unlock(&d->mutex);
	return NULL;
}

static void disk_submit(struct blk *b, struct blk_req *r)
{
	struct disk *d = disk_of(b);

	r->next = NULL;
	pthread_mutex_lock(&d->mutex);
	*d->tail = r;
	d->tail = &r->next;
	d->under_way++;
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->mutex);
}

static void disk_drain(struct blk *b)
{
	struct disk *d = disk_of(b);

	pthread_mutex_lock(&d->mutex);
	while (d->under_way)
		pthread_cond_wait(&d->idle, &d->mutex);
	pthread_mutex_unlock(&d->mutex);
}

static void disk_close(struct blk *b)
{
	struct disk *d = disk_of(b);

	disk_drain(b);
	pthread_mutex_lock(&d->mutex);
	d->quit = true;
	pthread_cond_broadcast(&d->work);
	pthread_mutex_unlock(&d->mutex);
	for (unsigned i = 0; i < d->n_workers; i++)
		pthread_join(d->worker[i], NULL);
	img_close(d->img);
	pthread_cond_destroy(&d->work);
	pthread_cond_destroy(&d->idle);
	pthread_mutex_destroy(&d->mutex);
	free(d);
}

static const struct blk_ops disk_ops = {
	.submit = disk_submit,
	.drain = disk_drain,
	.close = disk_close,
};

struct blk *disk_open(const struct disk_opts *o, unsigned workers, struct err *err)
{
	const struct img_opts io = {
		.format = o->format,
		.read_only = o->read_only,
		.snapshot = o->snapshot,
		.allow_external = o->allow_external,
		.secret = o->secret,
		.secret_len = o->secret_len,
	};
	struct disk *d = NEW(struct disk);

	if (!d) {
		err_set(err, ENOMEM, "no memory for disk '%s'", o->path);
		return NULL;
	}
	d->blk.ops = &disk_ops;
	d->tail = &d->head;
	pthread_mutex_init(&d->mutex, NULL);
	pthread_cond_init(&d->work, NULL);
	pthread_cond_init(&d->idle, NULL);
	if ((o->open ? o->open : img_open)(o->path, &io, &d->img, err) < 0)
		goto fail;
	d->remote = img_settle(d->img);
	d->blk.size = img_size(d->img) & ~511ull;
	d->blk.read_only = o->read_only;
	d->blk.can_discard = !o->read_only && img_can_discard(d->img);
	d->blk.block_size = 512;
	memcpy(d->blk.serial, o->serial, sizeof(d->blk.serial));
	if (!d->blk.size) {
		err_set(err, EINVAL, "disk '%s' is smaller than a sector", o->path);
		goto fail;
	}
	for (; d->n_workers < min_u64(workers, MAX_WORKERS); d->n_workers++) {
		int rc = pthread_create(&d->worker[d->n_workers], NULL, worker_main, d);

		if (rc) {
			err_sys(err, rc, "cannot start a worker of disk '%s'", o->path);
			goto fail;
		}
	}
	return &d->blk;
fail:
	disk_close(&d->blk);
	return NULL;
}

bool disk_is_remote(struct blk *b)
{
	return disk_of(b)->remote;
}

/* One option behind the file name. */
static int parse_option(const char *text, struct disk_opts *o, struct err *err)
{
	if (!strcmp(text, "ro")) {
		o->read_only = true;
	} else if (!strcmp(text, "snapshot")) {
		o->snapshot = true;
	} else if (!strncmp(text, "format=", 7)) {
		free(o->format);
		o->format = strdup(text + 7);
		return o->format ? 0 : err_set(err, ENOMEM, "no memory");
	} else if (!strncmp(text, "allow-external=", 15)) {
		free(o->allow_external);
		o->allow_external = strdup(text + 15);
		return o->allow_external ? 0 : err_set(err, ENOMEM, "no memory");
	} else if (!strncmp(text, "key-file=", 9)) {
		free(o->key_file);
		o->key_file = strdup(text + 9);
		return o->key_file ? 0 : err_set(err, ENOMEM, "no memory");
	} else if (!strncmp(text, "serial=", 7)) {
		if (strlen(text + 7) >= sizeof(o->serial))
			return err_set(err, EINVAL,
				       "serial '%s' is longer than %zu characters",
				       text + 7, sizeof(o->serial) - 1);
		strcpy(o->serial, text + 7);
	} else {
		return err_set(err, EINVAL,
			       "disk option '%s' is not known: ro, snapshot, format=, "
			       "allow-external=, key-file= or serial= "
			       "(a comma in the file's name is written twice)",
			       text);
	}
	return 0;
}

void disk_opts_free(struct disk_opts *o)
{
	free(o->path);
	free(o->format);
	free(o->allow_external);
	free(o->key_file);
	if (o->secret)
		explicit_bzero(o->secret, o->secret_len);
	free(o->secret);
}

int disk_opts_parse(const char *text, struct disk_opts *o, struct err *err)
{
	char *copy = strdup(text), *out, *in, *opt;
	int rc = 0;

	*o = (struct disk_opts){0};
	if (!copy)
		return err_set(err, ENOMEM, "no memory");
	for (in = out = copy; *in && (*in != ',' || in[1] == ','); in++) {
		if (*in == ',')
			in++;
		*out++ = *in;
	}
	opt = *in ? in + 1 : NULL;
	*out = 0;
	o->path = strdup(copy);
	if (!o->path)
		rc = err_set(err, ENOMEM, "no memory");
	else if (!*o->path)
		rc = err_set(err, EINVAL, "'%s' names no file", text);
	while (opt && !rc) {
		char *word = strsep(&opt, ",");

		rc = parse_option(word, o, err);
	}
	free(copy);
	return rc;
}
