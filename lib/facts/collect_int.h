/* facts/collect_int.h - the sources that are no files. Private to lib/facts. */
#ifndef FACTS_COLLECT_INT_H
#define FACTS_COLLECT_INT_H

#include "facts/snap.h"

/* "vm-check/cpuid": leaf, subleaf, EAX, EBX, ECX, EDX in hex. */
void collect_cpuid(struct snap *s);

/* "vm-check/msr": processor, register, value in hex; as far as /dev/cpu/N/msr may be read. */
void collect_msr(struct snap *s);

/* "vm-check/kernel-log": lines about virtualization. */
void collect_log(struct snap *s);

/* "vm-check/user": machine, rights, groups. */
void collect_user(struct snap *s);

/* "vm-check/processes": those of the known hypervisors and managers, by name. */
void collect_processes(struct snap *s);

#endif
