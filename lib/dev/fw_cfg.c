/*
 * dev/fw_cfg.c - what the machine tells its firmware: numbered items and named files.
 *
 * Specification: QEMU docs/specs/fw_cfg.txt. The guest names an item, then reads it byte by byte or
 * has it copied (DMA). Threads: machine lock held.
 */
#include "dev/fw_cfg.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"

enum { PORT_SELECT = 0, PORT_DATA = 1 };
enum { DMA_HIGH = 0, DMA_LOW = 4 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

#define ID_TRADITIONAL 1u
#define ID_DMA         2u
#define DMA_SIGNATURE  0x51454d5520434647ull /* "QEMU CFG" */
#define WRITE_CHANNEL  0x4000 /* selecting an item for writing: long gone, ignored */
#define ARCH_ITEMS     16
#define MAX_WRITABLE   4
#define NONE           0xffff
#define CHUNK          4096

struct fw_dma {
	be32 control, len;
	be64 addr;
};
static_assert(sizeof(struct fw_dma) == 16, "fw_cfg DMA descriptor");

struct fw_dir_entry {
	be32 size;
	be16 key, reserved;
	char name[FW_CFG_MAX_NAME + 1];
};
static_assert(sizeof(struct fw_dir_entry) == 64, "fw_cfg directory entry");

struct item {
	uint8_t *data; /* owned */
	size_t len;
	int writable; /* 0: no; else its place in fw->written, from 1 */
};

struct writable {
	void (*fn)(void *ctx, const uint8_t *data, size_t len);
	void *ctx; /* borrowed */
};

struct fw_cfg {
	uint16_t key;  /* selected */
	uint32_t off;  /* next byte */
	uint32_t high; /* upper half of the DMA address */
	uint8_t written[MAX_WRITABLE][FW_CFG_MAX_WRITTEN];
	struct item item[FW_CFG_FILE_FIRST], arch[ARCH_ITEMS];
	struct item file[FW_CFG_MAX_FILES];
	char name[FW_CFG_MAX_FILES][FW_CFG_MAX_NAME + 1];
	unsigned n_files, n_writable;
	struct writable writable[MAX_WRITABLE];
	const struct ram *ram; /* borrowed */
	struct bus *pio;       /* borrowed */
	struct io_range io, io_dma;
};

/* ---- items ---- */

static struct item *find(struct fw_cfg *fw, unsigned key)
{
	if (key >= FW_CFG_ARCH_LOCAL)
		return key - FW_CFG_ARCH_LOCAL < ARCH_ITEMS
			       ? &fw->arch[key - FW_CFG_ARCH_LOCAL]
			       : NULL;
	if (key < FW_CFG_FILE_FIRST)
		return &fw->item[key];
	return key - FW_CFG_FILE_FIRST < fw->n_files
		       ? &fw->file[key - FW_CFG_FILE_FIRST]
		       : NULL;
}

static uint8_t *bytes_of(struct fw_cfg *fw, const struct item *it)
{
	return it->writable ? fw->written[it->writable - 1] : it->data;
}

static int replace(struct item *it, const void *data, size_t len)
{
	uint8_t *copy = mem_new(len ? len : 1, 1);

	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, data, len);
	free(it->data);
	*it = (struct item){.data = copy, .len = len};
	return 0;
}

/* Makes the directory item anew. */
static int make_directory(struct fw_cfg *fw)
{
	size_t len = sizeof(be32) + fw->n_files * sizeof(struct fw_dir_entry);
	uint8_t *p = mem_new(len, 1);
	be32 count = be32_make(fw->n_files);

	if (!p)
		return -ENOMEM;
	memcpy(p, &count, sizeof(count));
	for (unsigned i = 0; i < fw->n_files; i++) {
		struct fw_dir_entry e = {
			.size = be32_make((uint32_t)fw->file[i].len),
			.key = be16_make((uint16_t)(FW_CFG_FILE_FIRST + i)),
		};

		memcpy(e.name, fw->name[i], sizeof(e.name));
		memcpy(p + sizeof(count) + i * sizeof(e), &e, sizeof(e));
	}
	free(fw->item[FW_CFG_DIR].data);
	fw->item[FW_CFG_DIR] = (struct item){.data = p, .len = len};
	return 0;
}

/* ---- the guest's side ---- */

static void select_item(struct fw_cfg *fw, uint16_t key)
{
	fw->key = key & (uint16_t)~WRITE_CHANNEL;
	fw->off = 0;
}

/* Up to `len` bytes of the selected item; how many there were. Behind its end: none. */
static size_t take(struct fw_cfg *fw, uint8_t *to, size_t len)
{
	const struct item *it = find(fw, fw->key);
	size_t n = 0;

	if (it && fw->off < it->len) {
		n = min_u64(len, it->len - fw->off);
		if (to)
			memcpy(to, bytes_of(fw, it) + fw->off, n);
	}
	fw->off = (uint32_t)min_u64((uint64_t)fw->off + len, UINT32_MAX);
	return n;
}

/* Copies the item to guest memory, zeros behind its end. */
static bool dma_out(struct fw_cfg *fw, uint64_t addr, uint32_t len)
{
	uint8_t buf[CHUNK];

	while (len) {
		uint32_t n = (uint32_t)min_u64(len, sizeof(buf));
		size_t got = take(fw, buf, n);

		memset(buf + got, 0, n - got);
		if (!dma_write(fw->ram, addr, buf, n))
			return false;
		addr += n;
		len -= n;
	}
	return true;
}

/* Guest memory into a writable file; all or nothing. */
static bool dma_in(struct fw_cfg *fw, uint64_t addr, uint32_t len)
{
	const struct item *it = find(fw, fw->key);
	const struct writable *w;

	if (!it || !it->writable || !range_ok(fw->off, len, it->len) ||
	    !dma_read(fw->ram, addr, bytes_of(fw, it) + fw->off, len))
		return false;
	fw->off += len;
	w = &fw->writable[it->writable - 1];
	if (w->fn)
		w->fn(w->ctx, bytes_of(fw, it), it->len);
	return true;
}

static void dma_start(struct fw_cfg *fw, uint64_t desc)
{
	struct fw_dma d;
	uint32_t control, len;
	uint64_t addr;
	bool ok = true;

	if (!dma_read(fw->ram, desc, &d, sizeof(d)))
		return; /* nowhere to report to */
	control = be32_get(d.control);
	len = be32_get(d.len);
	addr = be64_get(d.addr);
	if (control & DMA_SELECT)
		select_item(fw, (uint16_t)(control >> 16));
	if (control & DMA_READ)
		ok = dma_out(fw, addr, len);
	else if (control & DMA_WRITE)
		ok = dma_in(fw, addr, len);
	else if (control & DMA_SKIP)
		take(fw, NULL, len);
	d.control = be32_make(ok ? 0 : DMA_ERROR);
	dma_write(fw->ram, desc, &d.control, sizeof(d.control));
}

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
	uint8_t byte = 0;

	(void)size;
	if (off == PORT_DATA)
		take(dev, &byte, 1);
	return byte;
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	if (off == PORT_SELECT &&
	    size == 2) /* data cannot be written this way any more */
		select_item(dev, (uint16_t)val);
}

static uint64_t dma_port_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)size;
	return __builtin_bswap32(
		(uint32_t)(off == DMA_HIGH ? DMA_SIGNATURE >> 32 : DMA_SIGNATURE));
}

static void dma_port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct fw_cfg *fw = dev;
	uint32_t half = __builtin_bswap32((uint32_t)val);

	(void)size;
	if (off == DMA_HIGH) {
		fw->high = half;
		return;
	}
	dma_start(fw, (uint64_t)fw->high << 32 | half);
	fw->high = 0;
}

static const struct io_ops port_ops = {
	.read = port_read, .write = port_write, .min = 1, .max = 2};
static const struct io_ops dma_ops = {
	.read = dma_port_read, .write = dma_port_write, .min = 4, .max = 4};

static const struct state_field fields[] = {
	STATE(struct fw_cfg, key),
	STATE(struct fw_cfg, off),
	STATE(struct fw_cfg, high),
	STATE(struct fw_cfg, written),
	{0},
};

/* ---- public ---- */

int fw_cfg_set(struct fw_cfg *fw, unsigned key, const void *data, size_t len)
{
	struct item *it;

	if ((key >= FW_CFG_FILE_FIRST && key < FW_CFG_ARCH_LOCAL) || key <= FW_CFG_ID ||
	    key == FW_CFG_DIR || len > UINT32_MAX)
		return -EINVAL;
	it = find(fw, key);
	return it ? replace(it, data, len) : -EINVAL;
}

int fw_cfg_set_u16(struct fw_cfg *fw, unsigned key, uint16_t val)
{
	le16 v = le16_make(val);

	return fw_cfg_set(fw, key, &v, sizeof(v));
}

int fw_cfg_set_u32(struct fw_cfg *fw, unsigned key, uint32_t val)
{
	le32 v = le32_make(val);

	return fw_cfg_set(fw, key, &v, sizeof(v));
}

/* *it: the file of this name, or a new one. 0 or -errno. */
static int file_slot(struct fw_cfg *fw, const char *name, struct item **it,
		     struct err *err)
{
	unsigned i;

	if (strlen(name) > FW_CFG_MAX_NAME)
		return err_set(err, ENAMETOOLONG,
			       "firmware file '%s': at most %d bytes", name,
			       FW_CFG_MAX_NAME);
	for (i = 0; i < fw->n_files && strcmp(fw->name[i], name); i++)
		;
	if (i == FW_CFG_MAX_FILES)
		return err_set(err, ENOSPC, "firmware file '%s': there are %d already",
			       name, FW_CFG_MAX_FILES);
	if (i == fw->n_files) {
		strcpy(fw->name[i], name);
		fw->n_files++;
	}
	*it = &fw->file[i];
	return 0;
}

int fw_cfg_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
		struct err *err)
{
	struct item *it;
	int rc;

	if (len > UINT32_MAX)
		return err_set(err, EFBIG, "firmware file '%s' has %zu bytes", name,
			       len);
	rc = file_slot(fw, name, &it, err);
	if (rc)
		return rc;
	if (replace(it, data, len) < 0 || make_directory(fw) < 0)
		return err_set(err, ENOMEM, "no memory for firmware file '%s'", name);
	return 0;
}

int fw_cfg_writable(struct fw_cfg *fw, const char *name, size_t len,
		    void (*written)(void *ctx, const uint8_t *data, size_t len),
		    void *ctx, struct err *err)
{
	struct item *it;
	int rc;

	if (len > FW_CFG_MAX_WRITTEN || fw->n_writable == MAX_WRITABLE)
		return err_set(err, ENOSPC, "no room for writable firmware file '%s'",
			       name);
	rc = file_slot(fw, name, &it, err);
	if (rc)
		return rc;
	free(it->data);
	fw->writable[fw->n_writable++] = (struct writable){written, ctx};
	*it = (struct item){.len = len, .writable = (int)fw->n_writable};
	if (make_directory(fw) < 0)
		return err_set(err, ENOMEM, "no memory for firmware file '%s'", name);
	return 0;
}

void fw_cfg_reset(struct fw_cfg *fw)
{
	fw->key = NONE;
	fw->off = 0;
	fw->high = 0;
	memset(fw->written, 0, sizeof(fw->written));
}

void fw_cfg_free(struct fw_cfg *fw)
{
	if (!fw)
		return;
	bus_unmap(fw->pio, &fw->io);
	bus_unmap(fw->pio, &fw->io_dma);
	for (unsigned i = 0; i < ARRAY_LEN(fw->item); i++)
		free(fw->item[i].data);
	for (unsigned i = 0; i < ARRAY_LEN(fw->arch); i++)
		free(fw->arch[i].data);
	for (unsigned i = 0; i < fw->n_files; i++)
		free(fw->file[i].data);
	free(fw);
}

struct fw_cfg *fw_cfg_new(const struct vm_env *env, struct err *err)
{
	struct fw_cfg *fw = NEW(struct fw_cfg);
	le32 id = le32_make(ID_TRADITIONAL | ID_DMA);

	if (!fw)
		goto no_memory;
	fw->pio = env->pio;
	fw->ram = env->ram;
	fw->io = (struct io_range){.ops = &port_ops, .dev = fw, .name = "fw_cfg"};
	fw->io_dma =
		(struct io_range){.ops = &dma_ops, .dev = fw, .name = "fw_cfg_dma"};
	fw_cfg_reset(fw);
	if (replace(&fw->item[FW_CFG_SIGNATURE], "QEMU", 4) < 0 ||
	    replace(&fw->item[FW_CFG_ID], &id, sizeof(id)) < 0 ||
	    make_directory(fw) < 0)
		goto no_memory;
	if (bus_map(env->pio, &fw->io, FW_CFG_PORT, 2) ||
	    bus_map(env->pio, &fw->io_dma, FW_CFG_PORT + 4, 8)) {
		err_set(err, EEXIST, "the firmware configuration's ports are taken");
		fw_cfg_free(fw);
		return NULL;
	}
	state_add(env->state, "fw_cfg", -1, fw, fields, NULL, NULL);
	return fw;
no_memory:
	err_set(err, ENOMEM, "no memory for the firmware configuration");
	fw_cfg_free(fw);
	return NULL;
}
