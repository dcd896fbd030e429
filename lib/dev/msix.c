/* dev/msix.c - MSI-X (PCI Local Bus Specification 3.0, 6.8.2). Any thread. */
#include "dev/msix.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define CAP_MSIX 0x11
#define CAP_LEN  12

/* Message control (6.8.2.3), in its upper byte. */
#define CTRL_ENABLE 0x80
#define CTRL_MASK   0x40

/* A table entry (6.8.2.6 - 6.8.2.9). */
enum { ENTRY_ADDR = 0, ENTRY_DATA = 8, ENTRY_CTRL = 12, ENTRY_SIZE = 16 };
#define ENTRY_MASKED 1u

static const uint8_t *entry(const struct msix *m, unsigned v)
{
	return m->table + v * ENTRY_SIZE;
}

static bool is_masked(const struct msix *m, unsigned v)
{
	return m->masked || (load_u32(entry(m, v) + ENTRY_CTRL) & ENTRY_MASKED);
}

/* Takes one vector that is pending and may leave now; lock held. Returns n when there is none. */
static unsigned take_pending(struct msix *m)
{
	if (!m->pending || !m->enabled || !m->master || m->masked)
		return m->n;
	for (unsigned v = 0; v < m->n; v++)
		if ((m->pending & BIT(v)) && !is_masked(m, v)) {
			m->pending &= ~BIT(v);
			return v;
		}
	return m->n;
}

/* Sends what has become unmasked. */
static void flush(struct msix *m)
{
	for (;;) {
		uint64_t addr = 0;
		uint32_t data = 0;
		unsigned v;

		pthread_mutex_lock(&m->lock);
		v = take_pending(m);
		if (v < m->n) {
			addr = load_u64(entry(m, v) + ENTRY_ADDR);
			data = load_u32(entry(m, v) + ENTRY_DATA);
		}
		pthread_mutex_unlock(&m->lock);
		if (v >= m->n)
			return;
		msi_send(&m->msi, addr, data);
	}
}

void msix_notify(struct msix *m, unsigned vector)
{
	bool send = false;
	uint64_t addr = 0;
	uint32_t data = 0;

	if (vector >= m->n)
		return;
	pthread_mutex_lock(&m->lock);
	if (m->enabled) {
		send = m->master && !is_masked(m, vector);
		if (!send)
			m->pending |= BIT(vector);
		addr = load_u64(entry(m, vector) + ENTRY_ADDR);
		data = load_u32(entry(m, vector) + ENTRY_DATA);
	}
	pthread_mutex_unlock(&m->lock);
	if (send)
		msi_send(&m->msi, addr, data);
}

bool msix_enabled(struct msix *m)
{
	bool on;

	pthread_mutex_lock(&m->lock);
	on = m->enabled;
	pthread_mutex_unlock(&m->lock);
	return on;
}

/* ---- table and pending bits: doublewords and quadwords (6.8.2) ---- */

static uint64_t table_read(void *dev, uint64_t off, unsigned size)
{
	struct msix *m = dev;
	uint64_t v = 0;

	pthread_mutex_lock(&m->lock);
	if (range_ok(off, size, m->n * ENTRY_SIZE))
		memcpy(&v, m->table + off, size);
	pthread_mutex_unlock(&m->lock);
	return v;
}

static void table_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct msix *m = dev;

	pthread_mutex_lock(&m->lock);
	if (range_ok(off, size, m->n * ENTRY_SIZE))
		memcpy(m->table + off, &val, size);
	pthread_mutex_unlock(&m->lock);
	flush(m);
}

static uint64_t pba_read(void *dev, uint64_t off, unsigned size)
{
	struct msix *m = dev;
	uint64_t v = 0;

	pthread_mutex_lock(&m->lock);
	if (range_ok(off, size, sizeof(m->pending)))
		memcpy(&v, (uint8_t *)&m->pending + off, size);
	pthread_mutex_unlock(&m->lock);
	return v;
}

static const struct io_ops table_ops = {
	.read = table_read, .write = table_write, .min = 4, .max = 8};
static const struct io_ops pba_ops = {.read = pba_read, .min = 4, .max = 8};

/* ---- configuration space ---- */

void msix_cfg_written(struct msix *m)
{
	uint8_t ctrl = m->pci->cfg[m->cap + 3];

	pthread_mutex_lock(&m->lock);
	m->enabled = ctrl & CTRL_ENABLE;
	m->masked = ctrl & CTRL_MASK;
	m->master = pci_command(m->pci) & PCI_CMD_MASTER;
	if (!m->enabled)
		m->pending = 0;
	pthread_mutex_unlock(&m->lock);
	flush(m);
}

void msix_reset(struct msix *m)
{
	pthread_mutex_lock(&m->lock);
	memset(m->table, 0, sizeof(m->table));
	for (unsigned v = 0; v < m->n; v++)
		m->table[v * ENTRY_SIZE + ENTRY_CTRL] = ENTRY_MASKED;
	m->pending = 0;
	pthread_mutex_unlock(&m->lock);
	msix_cfg_written(m);
}

static const struct state_field msix_fields[] = {
	STATE(struct msix, table),
	STATE(struct msix, pending),
	{0},
};

static int msix_loaded(void *dev)
{
	struct msix *m = dev;

	if (m->n < 64)
		m->pending &= BIT(m->n) - 1;
	msix_cfg_written(m);
	return 0;
}

void msix_init(struct msix *m, struct pci_dev *pci, const struct vm_env *env,
	       unsigned n, unsigned bar, uint32_t off)
{
	unsigned cap = pci_cap_add(pci, CAP_MSIX, CAP_LEN);

	assert(n && n <= MSIX_MAX_VECTORS);
	*m = (struct msix){.pci = pci, .msi = env->msi, .n = n, .cap = cap};
	pthread_mutex_init(&m->lock, NULL);
	pci_reg16(pci, cap + 2, (uint16_t)(n - 1), (CTRL_ENABLE | CTRL_MASK) << 8);
	pci_reg32(pci, cap + 4, off | bar, 0);
	pci_reg32(pci, cap + 8, (off + MSIX_TABLE_LEN) | bar, 0);
	m->table_range =
		(struct io_range){.ops = &table_ops, .dev = m, .name = "msi-x table"};
	m->pba_range =
		(struct io_range){.ops = &pba_ops, .dev = m, .name = "msi-x pending"};
	pci_bar_add_part(pci, bar, &m->table_range, off, MSIX_TABLE_LEN);
	pci_bar_add_part(pci, bar, &m->pba_range, off + MSIX_TABLE_LEN, MSIX_TABLE_LEN);
	msix_reset(m);
}

void msix_add_state(struct msix *m, struct state *state)
{
	state_add(state, "msix", (int)m->pci->devfn, m, msix_fields, NULL, msix_loaded);
}

void msix_fini(struct msix *m)
{
	if (m->pci)
		pthread_mutex_destroy(&m->lock);
}
