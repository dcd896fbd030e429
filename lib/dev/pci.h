/*
 * dev/pci.h - conventional PCI (PCI Local Bus Specification 3.0): one bus of 32 slots, devices with
 * configuration space, base address registers, interrupt pins. Host bridges are in dev/pci_host.h,
 * the interrupt router in dev/pci_lpc.h.
 *
 * Everything here: machine lock held, or before the machine runs.
 */
#ifndef DEV_PCI_H
#define DEV_PCI_H

#include "vm/env.h"

#define PCI_CFG_SIZE   256
#define PCI_MAX_DEVS   256
#define PCI_BAR_COUNT  7 /* 0-5, and the expansion ROM */
#define PCI_BAR_ROM    6
#define PCI_BAR_PARTS  8
#define PCI_NOT_MAPPED UINT64_MAX
#define PCI_PIRQS      8

#define PCI_DEVFN(slot, fn) ((unsigned)(slot) << 3 | (unsigned)(fn))
#define PCI_SLOT(devfn)     ((unsigned)(devfn) >> 3)
#define PCI_FN(devfn)       ((unsigned)(devfn)&7)

/* Registers of the type 0 header (6.1). */
enum {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_HEADER = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUB_VENDOR = 0x2c,
	PCI_SUB_DEVICE = 0x2e,
	PCI_ROM = 0x30,
	PCI_CAPS = 0x34,
	PCI_INT_LINE = 0x3c,
	PCI_INT_PIN = 0x3d,
};

#define PCI_CMD_IO       0x0001
#define PCI_CMD_MEM      0x0002
#define PCI_CMD_MASTER   0x0004
#define PCI_CMD_INTX_OFF 0x0400
#define PCI_STS_INTX     0x0008
#define PCI_STS_CAPS     0x0010

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

/* What a device is (6.2.1, 6.2.4). */
struct pci_ident {
	uint16_t vendor, device, sub_vendor, sub_device;
	uint32_t class_code; /* base class << 16 | sub-class << 8 | interface */
	uint8_t revision;
	uint8_t pin; /* interrupt pin: 0 = none, 1 = INTA# ... 4 = INTD# */
};

/* All optional. `dev` is what pci_dev_init() was given. */
struct pci_dev_ops {
	/* Bytes [off, off + len) of configuration space are about to be read, or were written
	 * (only the writable bits were taken). */
	void (*reading)(void *dev, unsigned off, unsigned len);
	void (*written)(void *dev, unsigned off, unsigned len);
	/* Where the guest sees a BAR has changed: see pci_bar_at(). */
	void (*moved)(void *dev);
	/* RST#. Configuration space is back at its values of pci_dev_add(). */
	void (*reset)(void *dev);
	/* A saved state was loaded into configuration space. 0 or -EINVAL. */
	int (*loaded)(void *dev);
};

struct pci_bar {
	enum pci_bar_kind kind;
	uint64_t size; /* a power of two */
	uint64_t at;   /* where it is mapped, or PCI_NOT_MAPPED */
	struct {
		struct io_range *range; /* borrowed */
		uint64_t off, len;
	} part[PCI_BAR_PARTS];
	unsigned n_parts;
};

struct pci_bus;

/* Embedded in a device. */
struct pci_dev {
	const char *name;              /* borrowed */
	const struct pci_dev_ops *ops; /* borrowed, may be NULL */
	void *dev;                     /* borrowed */
	struct pci_bus *bus;           /* NULL before pci_dev_add() */
	unsigned devfn;
	uint8_t cfg[PCI_CFG_SIZE];
	uint8_t wmask[PCI_CFG_SIZE]; /* bits the guest can write */
	uint8_t w1c[PCI_CFG_SIZE];   /* bits that a written 1 clears */
	uint8_t initial[PCI_CFG_SIZE];
	struct pci_bar bar[PCI_BAR_COUNT];
	struct io_range rom_range;
	const uint8_t *rom; /* borrowed: contents of the expansion ROM */
	size_t rom_len;
	unsigned cap_end; /* first byte behind the last capability */
	uint8_t intx;     /* what the device drives its pin to */
	bool asserted;    /* what the bus sees of it */
};

/* What turns interrupt pins into interrupts: the south bridge. */
struct pci_router {
	/* The router's input (0-7) that pin 0-3 of a slot is wired to. */
	unsigned (*pirq)(void *ctx, unsigned slot, unsigned pin);
	void (*set)(void *ctx, unsigned pirq, bool level);
	/* The 8259 input a router input leads to now, 255 = none: for interrupt line registers. */
	unsigned (*line)(void *ctx, unsigned pirq);
	void *ctx; /* borrowed */
};

struct pci_bus {
	const struct vm_env *env;          /* borrowed */
	struct pci_dev *dev[PCI_MAX_DEVS]; /* borrowed, by devfn */
	struct pci_router router;
	unsigned asserted[PCI_PIRQS]; /* how many devices hold a router input */
};

void pci_bus_init(struct pci_bus *bus, const struct vm_env *env);
/* RST# of all devices. vCPUs stand still. */
void pci_bus_reset(struct pci_bus *bus);
/* The south bridge announces itself. */
void pci_bus_set_router(struct pci_bus *bus, const struct pci_router *router);
/* Which router input pin 0-3 of a slot leads to, for interrupt tables. 0 without a router. */
unsigned pci_bus_pirq(const struct pci_bus *bus, unsigned slot, unsigned pin);
/* The router's registers changed: drives its inputs again. */
void pci_bus_reroute(struct pci_bus *bus);

/*
 * Configuration accesses of 1, 2 or 4 bytes within a register; absent functions and what lies beyond 256 bytes
 * read as ones.
 */
uint32_t pci_cfg_read(struct pci_bus *bus, unsigned devfn, unsigned off, unsigned size);
void pci_cfg_write(struct pci_bus *bus, unsigned devfn, unsigned off, unsigned size,
		   uint32_t val);

/* ---- making a device: init, then BARs and capabilities, then add ---- */

void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_ident *id,
		  const struct pci_dev_ops *ops, void *dev);
/* `size`: a power of two, at least 4 (I/O) or 16 bytes. MEM64 takes `bar` and `bar` + 1. */
void pci_bar_set(struct pci_dev *d, unsigned bar, enum pci_bar_kind kind,
		 bool prefetchable, uint64_t size);
/* [off, off + len) of a BAR is answered by `range`, which the PCI core maps and unmaps. */
void pci_bar_add_part(struct pci_dev *d, unsigned bar, struct io_range *range,
		      uint64_t off, uint64_t len);
/* An expansion ROM; `data` stays the caller's. */
void pci_rom_set(struct pci_dev *d, const void *data, size_t len);
/* Room for a capability of `len` bytes; returns its offset. All of it is read-only at first. */
unsigned pci_cap_add(struct pci_dev *d, uint8_t id, unsigned len);
/* Registers of the device's own: initial value and writable bits, little-endian. */
void pci_reg8(struct pci_dev *d, unsigned off, uint8_t val, uint8_t wmask);
void pci_reg16(struct pci_dev *d, unsigned off, uint16_t val, uint16_t wmask);
void pci_reg32(struct pci_dev *d, unsigned off, uint32_t val, uint32_t wmask);
/*
 * Puts it on the bus and registers its saved state as "pci.DEVFN". The values of now are those after a
 * reset. 0, or -EEXIST when the place is taken, -EINVAL.
 */
int pci_dev_add(struct pci_bus *bus, struct pci_dev *d, unsigned devfn);
/* Unmaps and takes it off; nothing when it was not added. */
void pci_dev_remove(struct pci_dev *d);

/* ---- a device at work ---- */

/* Drives the interrupt pin. */
void pci_intx_set(struct pci_dev *d, bool level);
/* Where the guest has mapped a BAR now, or PCI_NOT_MAPPED. */
uint64_t pci_bar_at(const struct pci_dev *d, unsigned bar);
/* A vendor-specific way to a BAR: an access to the part that holds `off`, without the bus. */
uint32_t pci_bar_read(struct pci_dev *d, unsigned bar, uint32_t off, unsigned size);
void pci_bar_write(struct pci_dev *d, unsigned bar, uint32_t off, unsigned size,
		   uint32_t val);

static inline uint16_t pci_command(const struct pci_dev *d)
{
	return (uint16_t)(d->cfg[PCI_COMMAND] | d->cfg[PCI_COMMAND + 1] << 8);
}

/* ---- what firmware would do ---- */

struct pci_window {
	uint64_t base, size; /* size 0: there is none */
};

/*
 * Gives every BAR an address (64-bit prefetchable ones in `mmio64` where they fit), sets interrupt line registers,
 * enables decoding and bus mastering. 0; -ENOSPC with *err when a window is too small.
 */
int pci_assign_resources(struct pci_bus *bus, const struct pci_window *mmio32,
			 const struct pci_window *mmio64, const struct pci_window *io,
			 struct err *err);

#endif
