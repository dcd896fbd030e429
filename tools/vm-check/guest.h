/* vm-check/guest.h - `vm-check disk`, `vm-check guest`: will it start in vm-run? Main thread. */
#ifndef VM_CHECK_GUEST_H
#define VM_CHECK_GUEST_H

/* argv[1] is "disk" or "guest". Returns the exit status. */
int guest_run(int argc, const char **argv);

#endif
