/*
 * dev/virtio_pci.c - the PCI transport of virtio devices (virtio 1.2, 4.1), modern interface only.
 *
 * BAR 0 holds all structures. Registers run under the machine lock; queue notifications do not: where the
 * engine has ioeventfd they arrive in the loop, else in the vCPU's thread, which only kicks.
 */
#include "dev/virtio_pci.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "dev/msix.h"

#define BAR           0
#define BAR_SIZE      0x8000
#define COMMON_OFF    0x0000
#define ISR_OFF       0x1000
#define CONFIG_OFF    0x2000
#define NOTIFY_OFF    0x3000
#define MSIX_OFF      0x4000 /* table and pending bits, 8 KiB */
#define PART_LEN      0x1000
#define NOTIFY_STRIDE 4

#define CAP_VENDOR 0x09

/* 4.1.4 */
enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI };

struct virtio_cap {
	uint8_t vndr, next, len, type, bar, id, pad[2];
	le32 offset, length;
};
_Static_assert(sizeof(struct virtio_cap) == 16, "layout of a capability");

/* 4.1.4.3; what is behind queue_device needs features that are not offered. */
struct virtio_common {
	le32 device_feature_select, device_feature;
	le32 driver_feature_select, driver_feature;
	le16 config_vector, num_queues;
	uint8_t device_status, config_generation;
	le16 queue_select, queue_size, queue_vector, queue_enable, queue_notify_off;
	le64 queue_desc, queue_driver, queue_device;
};
_Static_assert(sizeof(struct virtio_common) == 56, "layout of the common structure");

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* A queue's eventfd, as the loop calls it. */
struct doorbell {
	struct virtio_pci *t;
	unsigned queue;
	int fd;        /* -1: none */
	uint64_t addr; /* where the engine watches, 0: nowhere */
};

struct virtio_pci {
	struct pci_dev pci;
	struct virtio *v;         /* borrowed */
	const struct vm_env *env; /* borrowed */
	struct msix msix;
	struct io_range common, isr_range, config, notify;
	unsigned cfg_cap; /* the capability with the window to the BAR */
	uint32_t device_select, driver_select;
	uint16_t queue_select;
	_Atomic uint8_t isr;
	atomic_bool intx_posted;
	uint8_t saved_isr;
	struct doorbell bell[VIRTIO_MAX_QUEUES];
};

/* ---- interrupts ---- */

/* Loop thread or machine lock held. */
static void intx_update(void *ctx)
{
	struct virtio_pci *t = ctx;

	atomic_store(&t->intx_posted, false);
	pci_intx_set(&t->pci, atomic_load(&t->isr) && !msix_enabled(&t->msix));
}

/* Any thread: the interrupt pin needs the machine lock, so the loop drives it. */
static void on_irq(void *ctx, int queue, uint16_t vector)
{
	struct virtio_pci *t = ctx;

	if (msix_enabled(&t->msix)) {
		msix_notify(&t->msix, vector);
		return;
	}
	atomic_fetch_or(&t->isr, queue < 0 ? ISR_CONFIG : ISR_QUEUE);
	if (!atomic_exchange(&t->intx_posted, true) &&
	    loop_post(t->env->loop, intx_update, t) < 0)
		atomic_store(&t->intx_posted, false);
}

static uint64_t isr_read(void *dev, uint64_t off, unsigned size)
{
	struct virtio_pci *t = dev;
	uint8_t isr;

	(void)size;
	if (off)
		return 0;
	isr = atomic_exchange(&t->isr, 0);
	intx_update(t);
	return isr;
}

static const struct io_ops isr_ops = {.read = isr_read, .min = 1, .max = 4};

/* ---- notifications ---- */

static void notify_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct virtio_pci *t = dev;

	(void)size;
	(void)val; /* the address tells the queue */
	if (off % NOTIFY_STRIDE == 0)
		virtio_kick(t->v, (unsigned)(off / NOTIFY_STRIDE));
}

static uint64_t notify_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return 0;
}

static const struct io_ops notify_ops = {.read = notify_read,
					 .write = notify_write,
					 .min = 1,
					 .max = 4,
					 .unlocked = true};

static void on_doorbell(void *ctx, uint32_t events)
{
	struct doorbell *b = ctx;
	uint64_t count;

	(void)events;
	if (read(b->fd, &count, sizeof(count)) == sizeof(count))
		virtio_kick(b->t->v, b->queue);
}

/* Has the engine watch where the queues' doorbells are now; machine lock held. */
static void doorbells_update(struct virtio_pci *t)
{
	const struct vm_env *env = t->env;
	uint64_t bar = pci_bar_at(&t->pci, BAR);
	bool on = bar != PCI_NOT_MAPPED && virtio_status(t->v) & VIRTIO_S_DRIVER_OK;

	for (unsigned i = 0; i < t->v->n_queues; i++) {
		struct doorbell *b = &t->bell[i];
		uint64_t addr = on && t->v->q[i].enabled
					? bar + NOTIFY_OFF + NOTIFY_STRIDE * i
					: 0;

		if (b->fd < 0 || addr == b->addr)
			continue;
		if (b->addr)
			env->ioeventfd(env->ioeventfd_ctx, b->addr, 2, b->fd, false);
		b->addr = 0;
		if (addr &&
		    env->ioeventfd(env->ioeventfd_ctx, addr, 2, b->fd, true) == 0)
			b->addr = addr;
	}
}

static void doorbells_open(struct virtio_pci *t)
{
	for (unsigned i = 0; i < t->v->n_queues; i++) {
		struct doorbell *b = &t->bell[i];

		*b = (struct doorbell){.t = t, .queue = i, .fd = -1};
		if (!t->env->ioeventfd)
			continue;
		b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (b->fd >= 0 &&
		    loop_fd_set(t->env->loop, b->fd, EPOLLIN, on_doorbell, b) < 0) {
			close(b->fd);
			b->fd = -1; /* notifications will be exits */
		}
	}
}

static void doorbells_close(struct virtio_pci *t)
{
	for (unsigned i = 0; i < t->v->n_queues; i++) {
		struct doorbell *b = &t->bell[i];

		if (b->fd < 0)
			continue;
		if (b->addr)
			t->env->ioeventfd(t->env->ioeventfd_ctx, b->addr, 2, b->fd,
					  false);
		loop_fd_remove(t->env->loop, b->fd);
		close(b->fd);
	}
}

/* ---- common configuration ---- */

static void common_queue(struct virtio_pci *t, struct virtio_common *c)
{
	const struct virtq *q = &t->v->q[t->queue_select];

	c->queue_size = le16_make(q->size);
	c->queue_vector = le16_make(q->vector);
	c->queue_enable = le16_make(q->enabled);
	c->queue_notify_off = le16_make(t->queue_select);
	c->queue_desc = le64_make(q->desc);
	c->queue_driver = le64_make(q->avail);
	c->queue_device = le64_make(q->used);
}

static uint64_t common_read(void *dev, uint64_t off, unsigned size)
{
	struct virtio_pci *t = dev;
	struct virtio *v = t->v;
	struct virtio_common c = {0};
	uint64_t val = 0;

	pthread_mutex_lock(&v->lock);
	c.device_feature_select = le32_make(t->device_select);
	if (t->device_select < 2)
		c.device_feature =
			le32_make((uint32_t)(v->offered >> 32 * t->device_select));
	c.driver_feature_select = le32_make(t->driver_select);
	if (t->driver_select < 2)
		c.driver_feature =
			le32_make((uint32_t)(v->accepted >> 32 * t->driver_select));
	c.config_vector = le16_make(v->config_vector);
	c.num_queues = le16_make((uint16_t)v->n_queues);
	c.device_status = v->status;
	c.config_generation = v->config_gen;
	c.queue_select = le16_make(t->queue_select);
	if (t->queue_select < v->n_queues)
		common_queue(t, &c);
	pthread_mutex_unlock(&v->lock);
	if (range_ok(off, size, sizeof(c)))
		memcpy(&val, (uint8_t *)&c + off, size);
	return val;
}

static uint16_t valid_vector(const struct virtio_pci *t, uint64_t val)
{
	return val < t->msix.n ? (uint16_t)val : VIRTIO_NO_VECTOR;
}

static void set_queue_vector(struct virtio_pci *t, uint64_t val)
{
	struct virtio *v = t->v;

	if (t->queue_select >= v->n_queues)
		return;
	pthread_mutex_lock(&v->lock);
	v->q[t->queue_select].vector = valid_vector(t, val);
	pthread_mutex_unlock(&v->lock);
}

static void set_config_vector(struct virtio_pci *t, uint64_t val)
{
	pthread_mutex_lock(&t->v->lock);
	t->v->config_vector = valid_vector(t, val);
	pthread_mutex_unlock(&t->v->lock);
}

static void set_status(struct virtio_pci *t, uint8_t val)
{
	virtio_set_status(t->v, val);
	if (!val) {
		atomic_store(&t->isr, 0);
		intx_update(t);
	}
	doorbells_update(t);
}

#define FIELD(m) offsetof(struct virtio_common, m)

static void write16(struct virtio_pci *t, uint64_t off, uint16_t val)
{
	switch (off) {
	case FIELD(config_vector): set_config_vector(t, val); break;
	case FIELD(queue_select): t->queue_select = val; break;
	case FIELD(queue_size):
		virtio_set_queue_size(t->v, t->queue_select, val);
		break;
	case FIELD(queue_vector): set_queue_vector(t, val); break;
	case FIELD(queue_enable):
		virtio_set_queue_enable(t->v, t->queue_select, val);
		doorbells_update(t);
		break;
	}
}

static void write32(struct virtio_pci *t, uint64_t off, uint32_t val)
{
	unsigned part;

	switch (off) {
	case FIELD(device_feature_select): t->device_select = val; return;
	case FIELD(driver_feature_select): t->driver_select = val; return;
	case FIELD(driver_feature):
		virtio_set_features(t->v, t->driver_select, val);
		return;
	}
	if (off < FIELD(queue_desc) || off % 4)
		return;
	part = (unsigned)(off - FIELD(queue_desc)) / 4;
	if (part < 6)
		virtio_set_queue_addr(t->v, t->queue_select, part / 2, part % 2, val);
}

/* 4.1.3.1: a field is accessed by its own size, 64-bit ones by halves. */
static void common_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct virtio_pci *t = dev;

	if (size == 1 && off == FIELD(device_status))
		set_status(t, (uint8_t)val);
	else if (size == 2)
		write16(t, off, (uint16_t)val);
	else if (size == 4)
		write32(t, off, (uint32_t)val);
}

static const struct io_ops common_ops = {
	.read = common_read, .write = common_write, .min = 1, .max = 4};

/* ---- device configuration ---- */

static uint64_t config_read(void *dev, uint64_t off, unsigned size)
{
	struct virtio_pci *t = dev;
	struct virtio *v = t->v;
	uint64_t val = 0;

	if (v->ops->config_read)
		v->ops->config_read(v->dev);
	if (off < v->config_len)
		memcpy(&val, v->config + off, min_u64(size, v->config_len - off));
	return val;
}

static void config_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct virtio_pci *t = dev;
	struct virtio *v = t->v;

	if (v->ops->config_write && range_ok(off, size, v->config_len))
		v->ops->config_write(v->dev, (unsigned)off, size, (uint32_t)val);
}

static const struct io_ops config_ops = {
	.read = config_read, .write = config_write, .min = 1, .max = 4};

/* ---- PCI configuration space ---- */

/* The BAR access that the capability of 4.1.4.9 describes; false: none that is valid. */
static bool window(const struct virtio_pci *t, uint32_t *off, unsigned *size)
{
	const uint8_t *c = t->pci.cfg + t->cfg_cap;
	uint32_t len = load_u32(c + 12);

	*off = load_u32(c + 8);
	*size = len;
	return c[4] == BAR && (len == 1 || len == 2 || len == 4) && !(*off % len);
}

static bool touches_window(const struct virtio_pci *t, unsigned off, unsigned len)
{
	return range_overlap(off, len, t->cfg_cap + 16, 4);
}

static void pci_reading(void *dev, unsigned off, unsigned len)
{
	struct virtio_pci *t = dev;
	uint32_t at, val;
	unsigned size;

	if (!touches_window(t, off, len) || !window(t, &at, &size))
		return;
	val = pci_bar_read(&t->pci, BAR, at, size);
	memcpy(t->pci.cfg + t->cfg_cap + 16, &val, size);
}

static void pci_written(void *dev, unsigned off, unsigned len)
{
	struct virtio_pci *t = dev;
	uint32_t at;
	unsigned size;

	if (touches_window(t, off, len)) {
		if (window(t, &at, &size))
			pci_bar_write(&t->pci, BAR, at, size,
				      load_u32(t->pci.cfg + t->cfg_cap + 16));
		return;
	}
	msix_cfg_written(&t->msix);
	intx_update(t);
	virtio_set_dma(t->v, pci_command(&t->pci) & PCI_CMD_MASTER);
}

static void pci_moved(void *dev)
{
	doorbells_update(dev);
}

static void pci_reset(void *dev)
{
	struct virtio_pci *t = dev;

	virtio_reset(t->v);
	virtio_set_dma(t->v, false);
	t->device_select = t->driver_select = t->queue_select = 0;
	atomic_store(&t->isr, 0);
	msix_reset(&t->msix);
	doorbells_update(t);
}

static const struct pci_dev_ops pci_ops = {
	.reading = pci_reading,
	.written = pci_written,
	.moved = pci_moved,
	.reset = pci_reset,
};

/* ---- saved state ---- */

static const struct state_field transport_fields[] = {
	STATE(struct virtio_pci, device_select),
	STATE(struct virtio_pci, driver_select),
	STATE(struct virtio_pci, queue_select),
	STATE(struct virtio_pci, saved_isr),
	{0},
};

static void transport_save(void *dev)
{
	struct virtio_pci *t = dev;

	t->saved_isr = atomic_load(&t->isr);
}

/* The last of the device's sections: all others are in place. */
static int transport_loaded(void *dev)
{
	struct virtio_pci *t = dev;
	struct virtio *v = t->v;

	v->config_vector = valid_vector(t, v->config_vector);
	for (unsigned i = 0; i < v->n_queues; i++)
		v->q[i].vector = valid_vector(t, v->q[i].vector);
	atomic_store(&t->isr, t->saved_isr & (ISR_QUEUE | ISR_CONFIG));
	virtio_set_dma(v, pci_command(&t->pci) & PCI_CMD_MASTER);
	intx_update(t);
	doorbells_update(t);
	return 0;
}

/* ---- life ---- */

static unsigned add_cap(struct pci_dev *d, uint8_t type, uint32_t off, uint32_t len,
			unsigned extra)
{
	unsigned at = pci_cap_add(d, CAP_VENDOR, sizeof(struct virtio_cap) + extra);

	pci_reg8(d, at + 2, (uint8_t)(sizeof(struct virtio_cap) + extra), 0);
	pci_reg8(d, at + 3, type, 0);
	pci_reg8(d, at + 4, BAR, 0);
	pci_reg32(d, at + 8, off, 0);
	pci_reg32(d, at + 12, len, 0);
	return at;
}

static void add_part(struct virtio_pci *t, struct io_range *r, const struct io_ops *ops,
		     uint64_t off)
{
	*r = (struct io_range){.ops = ops, .dev = t, .name = t->v->ops->name};
	pci_bar_add_part(&t->pci, BAR, r, off, PART_LEN);
}

static void make_function(struct virtio_pci *t)
{
	struct virtio *v = t->v;
	struct pci_dev *d = &t->pci;
	/* The sub-system ids are what the drivers for Windows look for. */
	const struct pci_ident id = {
		.vendor = 0x1af4,
		.device = (uint16_t)(0x1040 + v->ops->id),
		.sub_vendor = 0x1af4,
		.sub_device = 0x1100,
		.class_code = v->ops->class_code,
		.revision = 1,
		.pin = 1,
	};
	unsigned at;

	pci_dev_init(d, v->ops->name, &id, &pci_ops, t);
	pci_bar_set(d, BAR, PCI_BAR_MEM32, false, BAR_SIZE);
	add_part(t, &t->common, &common_ops, COMMON_OFF);
	add_part(t, &t->isr_range, &isr_ops, ISR_OFF);
	add_part(t, &t->config, &config_ops, CONFIG_OFF);
	add_part(t, &t->notify, &notify_ops, NOTIFY_OFF);
	msix_init(&t->msix, d, t->env, v->n_queues + 1, BAR, MSIX_OFF);
	add_cap(d, CFG_COMMON, COMMON_OFF, sizeof(struct virtio_common), 0);
	add_cap(d, CFG_ISR, ISR_OFF, 1, 0);
	if (v->config_len)
		add_cap(d, CFG_DEVICE, CONFIG_OFF, v->config_len, 0);
	at = add_cap(d, CFG_NOTIFY, NOTIFY_OFF, NOTIFY_STRIDE * v->n_queues, 4);
	pci_reg32(d, at + 16, NOTIFY_STRIDE, 0);
	at = add_cap(d, CFG_PCI, 0, 0, 4);
	pci_reg8(d, at + 4, 0, 0xff);
	pci_reg32(d, at + 8, 0, UINT32_MAX);
	pci_reg32(d, at + 12, 0, UINT32_MAX);
	pci_reg32(d, at + 16, 0, UINT32_MAX);
	t->cfg_cap = at;
}

struct virtio_pci *virtio_pci_new(struct virtio *v, struct pci_bus *bus, unsigned devfn,
				  struct err *err)
{
	struct virtio_pci *t = NEW(struct virtio_pci);

	if (!t) {
		err_set(err, ENOMEM, "no memory for %s", v->ops->name);
		return NULL;
	}
	t->v = v;
	t->env = v->env;
	make_function(t);
	doorbells_open(t);
	if (pci_dev_add(bus, &t->pci, devfn) < 0) {
		err_set(err, EEXIST, "PCI slot %u is taken, there is no room for %s",
			PCI_SLOT(devfn), v->ops->name);
		virtio_pci_free(t);
		return NULL;
	}
	v->irq = (struct virtio_irq){.raise = on_irq, .ctx = t};
	msix_add_state(&t->msix, v->env->state);
	virtio_add_state(v, (int)devfn);
	state_add(v->env->state, "virtio-pci", (int)devfn, t, transport_fields,
		  transport_save, transport_loaded);
	return t;
}

void virtio_pci_free(struct virtio_pci *t)
{
	if (!t)
		return;
	doorbells_close(t);
	pci_dev_remove(&t->pci);
	msix_fini(&t->msix);
	free(t);
}

struct pci_dev *virtio_pci_dev(struct virtio_pci *t)
{
	return &t->pci;
}
