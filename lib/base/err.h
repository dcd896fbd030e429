/*
 * base/err.h - an error with its message, on the caller's stack.
 *
 * Cold paths take `struct err *err` as last argument and `return err_set(err, EINVAL, "...")`.
 * Messages: lower case, no full stop, the failure first, the subject in single quotes, the
 * numbers that did not fit, and what to do instead.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <errno.h>

struct err {
	int code; /* errno value, 0 = none */
	char msg[240];
};

/* Sets code (an errno value, > 0) and message; returns -code. `err` may be NULL. */
int err_set(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As err_set(), with ": " and the text of errno value `code` after the message. */
int err_sys(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that is there; returns -code. */
int err_prefix(struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
