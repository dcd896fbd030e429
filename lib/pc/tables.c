/* pc/tables.c - the ACPI and SMBIOS tables of a board, from what it has. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"
#include "pc/board.h"

static void describe(const struct board *b, const struct tables_place *place,
		     struct acpi_config *cfg)
{
	acpi_config_q35(cfg);
	cfg->n_cpus = b->pc->cfg.cpus;
	cfg->ecam = (struct acpi_range){place->ecam.base, place->ecam.size};
	cfg->last_bus = 0;
	cfg->io[0] = (struct acpi_range){0, 0xcf8};
	cfg->io[1] = (struct acpi_range){0xd00, 0x10000 - 0xd00};
	cfg->mmio[0] = (struct acpi_range){place->mmio32.base, place->mmio32.size};
	cfg->mmio64 = (struct acpi_range){place->mmio64.base, place->mmio64.size};
	for (unsigned s = 0; s < ACPI_PCI_SLOTS; s++)
		for (unsigned pin = 0; pin < 4; pin++)
			cfg->pirq[s][pin] = (uint8_t)pci_bus_pirq(&b->pci, s, pin);
	cfg->pvpanic_port = PVPANIC_PORT;
	cfg->debug_port = 0x402;
	cfg->n_serial = 0;
	for (unsigned i = 0; i < PC_MAX_SERIAL; i++)
		cfg->n_serial += b->uart[i] != NULL;
}

int tables_build(struct board *b, const struct tables_place *place, struct err *err)
{
	const struct smbios_config sm = {
		.memory = b->pc->cfg.memory,
		.below_4g = place->below_4g,
		.n_cpus = b->pc->cfg.cpus,
		.bios_vendor = "vm-run",
		.bios_version = VM_VERSION,
		.bios_date = "01/01/2026",
		.manufacturer = "vm-run",
		.product = "q35",
	};
	struct acpi_config cfg = {0};
	int rc;

	describe(b, place, &cfg);
	rc = acpi_build(&cfg, place->acpi, &b->acpi, err);
	return rc ? rc : smbios_build(&sm, place->smbios, &b->smbios, err);
}

int tables_place(struct board *b, struct err *err)
{
	int rc = acpi_place(&b->acpi, &b->pc->ram, err);

	return rc ? rc : smbios_place(&b->smbios, &b->pc->ram, err);
}

static int dump_one(const struct acpi_tables *t, const struct acpi_table *table,
		    const char *dir, struct err *err)
{
	char path[4096];
	int fd, rc;

	if (snprintf(path, sizeof(path), "%s/%s.aml", dir, table->name) >=
	    (int)sizeof(path))
		return err_set(err, ENAMETOOLONG, "the name '%s' is too long", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return err_sys(err, errno, "cannot write '%s'", path);
	rc = fd_write_full(fd, t->blob + table->off, table->len);
	if (close(fd) < 0 && !rc)
		rc = -errno;
	return rc ? err_sys(err, -rc, "cannot write '%s'", path) : 0;
}

int pc_dump_acpi(struct pc *pc, const char *dir, struct err *err)
{
	const struct acpi_tables *t = &pc->board->acpi;
	int rc = 0;

	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		return err_sys(err, errno, "cannot make folder '%s'", dir);
	for (unsigned i = 0; i < t->n_tables && !rc; i++)
		rc = dump_one(t, &t->table[i], dir, err);
	return rc;
}
