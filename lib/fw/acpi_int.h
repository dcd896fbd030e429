/* fw/acpi_int.h - between the tables and their DSDT. Private to lib/fw. */
#ifndef FW_ACPI_INT_H
#define FW_ACPI_INT_H

#include "base/str.h"
#include "fw/acpi.h"

/* Appends the DSDT's definition block (without table header) to `out`. */
void dsdt_build(const struct acpi_config *cfg, struct str *out);

#endif
