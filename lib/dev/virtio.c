/*
 * dev/virtio.c - a virtio device without its transport (virtio 1.2, chapters 2 and 3).
 *
 * A reset by the driver does not wait in its vCPU: while workers still have chains the status reads
 * as before, and becomes 0 when the last one is back (2.1.2 makes the driver wait for that).
 */
#include "dev/virtio.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

/* ---- interrupts ---- */

static void raise_queue(struct virtio *v, unsigned queue, uint16_t vector)
{
	if (v->irq.raise)
		v->irq.raise(v->irq.ctx, (int)queue, vector);
}

static void raise_config(struct virtio *v)
{
	if (v->irq.raise)
		v->irq.raise(v->irq.ctx, -1, v->config_vector);
}

/* Lock held. Returns whether the driver must be told (2.1.2: only after DRIVER_OK). */
static bool break_locked(struct virtio *v, const char *why)
{
	if (v->status & VIRTIO_S_NEEDS_RESET || v->resetting)
		return false;
	v->status |= VIRTIO_S_NEEDS_RESET;
	log_msg(v->env->log, LOG_DEBUG, "%s: the driver %s: it needs a reset",
		v->ops->name, why);
	return v->status & VIRTIO_S_DRIVER_OK;
}

static void break_device(struct virtio *v, const char *why)
{
	bool tell;

	pthread_mutex_lock(&v->lock);
	tell = break_locked(v, why);
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
}

void virtio_break(struct virtio *v)
{
	break_device(v, "sent a malformed request");
}

void virtio_config_changed(struct virtio *v)
{
	bool tell;

	pthread_mutex_lock(&v->lock);
	v->config_gen++;
	tell = v->status & VIRTIO_S_DRIVER_OK && !v->resetting;
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
}

/* ---- queues ---- */

/* Lock held. */
static bool running(const struct virtio *v)
{
	return v->status & VIRTIO_S_DRIVER_OK && !(v->status & VIRTIO_S_NEEDS_RESET) &&
	       !v->resetting && v->dma_ok;
}

bool virtio_pop(struct virtio *v, unsigned queue, struct virtq_chain *c)
{
	enum virtq_result r = VIRTQ_EMPTY;
	bool tell = false;

	pthread_mutex_lock(&v->lock);
	if (running(v))
		r = virtq_pop(&v->q[queue], c);
	if (r == VIRTQ_BROKEN)
		tell = break_locked(v, "built a bad queue");
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
	return r == VIRTQ_OK;
}

void virtio_unpop(struct virtio *v, unsigned queue, unsigned n)
{
	pthread_mutex_lock(&v->lock);
	virtq_unpop(&v->q[queue], n);
	pthread_mutex_unlock(&v->lock);
}

static unsigned in_flight(const struct virtio *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < v->n_queues; i++)
		n += v->q[i].in_flight;
	return n;
}

/* Lock held. */
static void reset_now(struct virtio *v)
{
	v->resetting = false;
	v->status = 0;
	v->accepted = 0;
	v->config_vector = VIRTIO_NO_VECTOR;
	for (unsigned i = 0; i < v->n_queues; i++)
		virtq_reset(&v->q[i]);
	if (v->ops->reset)
		v->ops->reset(v->dev);
}

/* Lock held; false when the rings are out of reach. */
static bool give_back(struct virtio *v, struct virtq *q, uint16_t head, uint32_t len)
{
	if (!v->resetting && !(v->status & VIRTIO_S_NEEDS_RESET))
		return virtq_fill(q, head, len);
	if (q->in_flight)
		q->in_flight--;
	if (v->resetting && !in_flight(v))
		reset_now(v);
	return true;
}

void virtio_fill(struct virtio *v, unsigned queue, uint16_t head, uint32_t len)
{
	bool tell = false;

	pthread_mutex_lock(&v->lock);
	if (!give_back(v, &v->q[queue], head, len))
		tell = break_locked(v, "moved its rings");
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
}

void virtio_flush(struct virtio *v, unsigned queue)
{
	struct virtq *q = &v->q[queue];
	bool irq = false;
	uint16_t vector;

	pthread_mutex_lock(&v->lock);
	vector = q->vector;
	if (q->enabled && !v->resetting && !(v->status & VIRTIO_S_NEEDS_RESET))
		irq = virtq_publish(q) && virtq_wants_irq(q);
	pthread_mutex_unlock(&v->lock);
	if (irq)
		raise_queue(v, queue, vector);
}

void virtio_push(struct virtio *v, unsigned queue, uint16_t head, uint32_t len)
{
	virtio_fill(v, queue, head, len);
	virtio_flush(v, queue);
}

bool virtio_kicks(struct virtio *v, unsigned queue, bool on)
{
	bool more = false;

	pthread_mutex_lock(&v->lock);
	if (running(v)) {
		virtq_set_kicks(&v->q[queue], on);
		more = on && virtq_has_more(&v->q[queue]);
	}
	pthread_mutex_unlock(&v->lock);
	return more;
}

bool virtio_has_chain(struct virtio *v, unsigned queue)
{
	bool more;

	pthread_mutex_lock(&v->lock);
	more = running(v) && virtq_has_more(&v->q[queue]);
	pthread_mutex_unlock(&v->lock);
	return more;
}

/* ---- notifications ---- */

static void run_kicks(void *ctx)
{
	struct virtio *v = ctx;
	uint64_t mask = atomic_exchange(&v->kicked, 0);

	for (unsigned i = 0; i < v->n_queues; i++)
		if (mask & BIT(i))
			v->ops->kick(v->dev, i);
}

void virtio_kick_later(struct virtio *v, unsigned queue)
{
	if (!atomic_fetch_or(&v->kicked, BIT(queue)) &&
	    loop_post(v->env->loop, run_kicks, v) < 0)
		atomic_store(&v->kicked, 0);
}

void virtio_kick(struct virtio *v, unsigned queue)
{
	if (queue >= v->n_queues)
		return;
	if (v->ops->kick_any_thread)
		v->ops->kick(v->dev, queue);
	else
		virtio_kick_later(v, queue);
}

static void kick_all(struct virtio *v)
{
	for (unsigned i = 0; i < v->n_queues; i++)
		if (v->q[i].enabled)
			virtio_kick_later(v, i);
}

/* ---- what the transport's registers do; machine lock held ---- */

uint8_t virtio_status(struct virtio *v)
{
	uint8_t s;

	pthread_mutex_lock(&v->lock);
	s = v->status;
	pthread_mutex_unlock(&v->lock);
	return s;
}

/* Lock held. */
static bool features_ok(const struct virtio *v)
{
	return !(v->accepted & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1);
}

static void start_reset(struct virtio *v)
{
	pthread_mutex_lock(&v->lock);
	if (in_flight(v))
		v->resetting = true;
	else
		reset_now(v);
	pthread_mutex_unlock(&v->lock);
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
	bool start = false;

	if (!status) {
		start_reset(v);
		return;
	}
	pthread_mutex_lock(&v->lock);
	if (v->resetting)
		goto out;
	if (status & VIRTIO_S_FEATURES_OK && !(v->status & VIRTIO_S_FEATURES_OK) &&
	    !features_ok(v))
		status &= (uint8_t)~VIRTIO_S_FEATURES_OK;
	if (!(status & VIRTIO_S_FEATURES_OK))
		status &= (uint8_t)~VIRTIO_S_DRIVER_OK;
	start = status & VIRTIO_S_DRIVER_OK && !(v->status & VIRTIO_S_DRIVER_OK);
	v->status = status | (v->status & VIRTIO_S_NEEDS_RESET);
out:
	pthread_mutex_unlock(&v->lock);
	if (!start)
		return;
	if (v->ops->started)
		v->ops->started(v->dev);
	kick_all(v);
}

void virtio_set_features(struct virtio *v, unsigned word, uint32_t val)
{
	pthread_mutex_lock(&v->lock);
	if (word < 2 && !(v->status & VIRTIO_S_FEATURES_OK) && !v->resetting)
		v->accepted = (v->accepted & ~(0xffffffffull << 32 * word)) |
			      (uint64_t)val << 32 * word;
	else if (word >= 2 && val)
		v->accepted |= ~v->offered; /* a feature we never offered */
	pthread_mutex_unlock(&v->lock);
}

/* Lock held; *tell as of break_locked(). */
static void enable_queue(struct virtio *v, struct virtq *q, bool *tell)
{
	if (v->resetting || q->enabled)
		return;
	if (!virtq_usable(q)) {
		*tell = break_locked(v, "put a queue outside of memory");
		return;
	}
	q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
	q->enabled = 1;
}

void virtio_set_queue_enable(struct virtio *v, unsigned queue, uint16_t val)
{
	bool tell = false;

	if (queue >= v->n_queues || val != 1)
		return;
	pthread_mutex_lock(&v->lock);
	enable_queue(v, &v->q[queue], &tell);
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
}

/* May this queue's set-up change? Lock held; *tell as of break_locked(). */
static bool may_change(struct virtio *v, unsigned queue, bool *tell)
{
	if (v->resetting)
		return false;
	if (v->q[queue].enabled)
		*tell = break_locked(v, "moved a queue in use");
	return !v->q[queue].enabled;
}

void virtio_set_queue_addr(struct virtio *v, unsigned queue, unsigned part,
			   unsigned half, uint32_t val)
{
	uint64_t mask = 0xffffffffull << 32 * half;
	bool tell = false;

	if (queue >= v->n_queues)
		return;
	pthread_mutex_lock(&v->lock);
	if (may_change(v, queue, &tell)) {
		struct virtq *q = &v->q[queue];
		uint64_t *a = part == 0 ? &q->desc : part == 1 ? &q->avail : &q->used;

		*a = (*a & ~mask) | (uint64_t)val << 32 * half;
	}
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
}

void virtio_set_queue_size(struct virtio *v, unsigned queue, uint16_t size)
{
	bool tell = false;

	if (queue >= v->n_queues)
		return;
	pthread_mutex_lock(&v->lock);
	if (may_change(v, queue, &tell))
		v->q[queue].size = size; /* checked when it is enabled */
	pthread_mutex_unlock(&v->lock);
	if (tell)
		raise_config(v);
}

void virtio_set_dma(struct virtio *v, bool on)
{
	bool start;

	pthread_mutex_lock(&v->lock);
	start = on && !v->dma_ok;
	v->dma_ok = on;
	start = start && running(v);
	pthread_mutex_unlock(&v->lock);
	if (start)
		kick_all(v);
}

void virtio_reset(struct virtio *v)
{
	if (v->ops->drain)
		v->ops->drain(v->dev);
	pthread_mutex_lock(&v->lock);
	reset_now(v);
	pthread_mutex_unlock(&v->lock);
}

/* ---- saved state ---- */

static const struct state_field virtio_fields[] = {
	STATE(struct virtio, accepted),
	STATE(struct virtio, status),
	STATE(struct virtio, config_gen),
	STATE(struct virtio, config_vector),
	STATE(struct virtio, saved.desc),
	STATE(struct virtio, saved.avail),
	STATE(struct virtio, saved.used),
	STATE(struct virtio, saved.size),
	STATE(struct virtio, saved.vector),
	STATE(struct virtio, saved.next_avail),
	STATE(struct virtio, saved.next_used),
	STATE(struct virtio, saved.enabled),
	{0},
};

static void virtio_save(void *dev)
{
	struct virtio *v = dev;

	if (v->ops->drain)
		v->ops->drain(v->dev);
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < v->n_queues; i++) {
		const struct virtq *q = &v->q[i];

		v->saved.desc[i] = q->desc;
		v->saved.avail[i] = q->avail;
		v->saved.used[i] = q->used;
		v->saved.size[i] = q->size;
		v->saved.vector[i] = q->vector;
		v->saved.next_avail[i] = q->next_avail;
		v->saved.next_used[i] = q->next_used;
		v->saved.enabled[i] = q->enabled;
	}
	pthread_mutex_unlock(&v->lock);
}

static int queue_loaded(struct virtio *v, unsigned i)
{
	struct virtq *q = &v->q[i];

	virtq_reset(q);
	q->desc = v->saved.desc[i];
	q->avail = v->saved.avail[i];
	q->used = v->saved.used[i];
	q->size = v->saved.size[i];
	q->vector = v->saved.vector[i];
	q->next_avail = v->saved.next_avail[i];
	q->next_used = v->saved.next_used[i];
	q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
	if (v->saved.enabled[i] && !virtq_usable(q))
		return -EINVAL;
	q->enabled = v->saved.enabled[i] != 0;
	return 0;
}

static int virtio_loaded(void *dev)
{
	struct virtio *v = dev;
	int rc = 0;

	pthread_mutex_lock(&v->lock);
	v->resetting = false;
	if (v->status & (VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK) &&
	    (!(v->status & VIRTIO_S_FEATURES_OK) || !features_ok(v)))
		rc = -EINVAL;
	for (unsigned i = 0; i < v->n_queues && !rc; i++)
		rc = queue_loaded(v, i);
	if (v->ops->reset)
		v->ops->reset(v->dev);
	pthread_mutex_unlock(&v->lock);
	if (!rc)
		kick_all(v);
	return rc;
}

/* ---- life ---- */

void virtio_init(struct virtio *v, const struct virtio_ops *ops, void *dev,
		 const struct vm_env *env, uint64_t features, unsigned n_queues,
		 uint16_t queue_size, void *config, unsigned config_len)
{
	assert(n_queues <= VIRTIO_MAX_QUEUES && queue_size <= VIRTQ_MAX_SIZE);
	*v = (struct virtio){
		.ops = ops,
		.dev = dev,
		.env = env,
		.offered = features | BIT(VIRTIO_F_VERSION_1) |
			   BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT),
		.config_vector = VIRTIO_NO_VECTOR,
		.n_queues = n_queues,
		.config = config,
		.config_len = config_len,
	};
	pthread_mutex_init(&v->lock, NULL);
	for (unsigned i = 0; i < n_queues; i++) {
		v->q[i].ram = env->ram;
		v->q[i].max = queue_size;
		virtq_reset(&v->q[i]);
	}
}

void virtio_add_state(struct virtio *v, int instance)
{
	state_add(v->env->state, "virtio", instance, v, virtio_fields, virtio_save,
		  virtio_loaded);
}

void virtio_fini(struct virtio *v)
{
	if (v->ops)
		pthread_mutex_destroy(&v->lock);
}
