/*
 * img/busy.c - which requests are under way: ranges whose mapping is being changed, and generations of
 * requests that may still use places which were unlinked meanwhile. Any thread.
 */
#include "base/bits.h"
#include "img/img_int.h"

/* ---- generations ---- */

unsigned grace_enter(struct img_grace *g)
{
	for (;;) {
		unsigned epoch = atomic_load(&g->epoch);

		atomic_fetch_add(&g->active[epoch & 1], 1);
		if (atomic_load(&g->epoch) == epoch)
			return epoch;
		/* It was turned in between: whoever turned it may not have seen us. */
		atomic_fetch_sub(&g->active[epoch & 1], 1);
	}
}

void grace_exit(struct img_grace *g, unsigned ticket)
{
	atomic_fetch_sub(&g->active[ticket & 1], 1);
}

bool grace_old_gone(struct img_grace *g)
{
	return !atomic_load(&g->active[!(atomic_load(&g->epoch) & 1)]);
}

void grace_turn(struct img_grace *g)
{
	atomic_fetch_add(&g->epoch, 1);
}

/* ---- ranges ---- */

static bool busy_meets(const struct img *img, uint64_t off, uint64_t end)
{
	for (const struct img_busy *b = img->busy; b; b = b->next)
		if (range_overlap(off, end - off, b->off, b->end - b->off))
			return true;
	return false;
}

void busy_lock(struct img *img, struct img_busy *b, uint64_t off, uint64_t end)
{
	pthread_mutex_lock(&img->busy_lock);
	while (busy_meets(img, off, end))
		pthread_cond_wait(&img->busy_gone, &img->busy_lock);
	*b = (struct img_busy){off, end, img->busy};
	img->busy = b;
	pthread_mutex_unlock(&img->busy_lock);
}

void busy_unlock(struct img *img, struct img_busy *b)
{
	struct img_busy **at = &img->busy;

	pthread_mutex_lock(&img->busy_lock);
	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	pthread_cond_broadcast(&img->busy_gone);
	pthread_mutex_unlock(&img->busy_lock);
}
