/* cli/secret.h - passphrases: from files, from the terminal. Main thread. */
#ifndef CLI_SECRET_H
#define CLI_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* The longest passphrase; bytes. */
#define CLI_MAX_SECRET 65536

/*
 * What is in a key file, on the heap, with a zero behind it: a text without the end of its line, or any bytes as they
 * are. cli_secret_free(). 0 or -errno.
 */
int cli_secret_file(const char *path, char **secret, size_t *len, struct err *err);
/* Asks for the passphrase of `what` on the terminal. -ENOTTY: there is none. */
int cli_secret_ask(const char *what, char **secret, size_t *len, struct err *err);
/* Decodes base64, in place; its length, or -EINVAL. */
long cli_secret_base64(char *text);
/* Wipes and frees. NULL is fine. */
void cli_secret_free(char *secret, size_t len);

#endif
