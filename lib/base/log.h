/*
 * base/log.h - what a library wants a person to know. The library never prints: it calls the
 * tool's function, which must be callable from any thread.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level {
	LOG_ERROR, /* something the user asked for does not work */
	LOG_WARN,  /* goes on, but not as one would expect */
	LOG_INFO,  /* a choice and its reason: one line each */
	LOG_DEBUG, /* --verbose */
};

struct log {
	void (*emit)(void *ctx, enum log_level level, const char *msg);
	void *ctx;
	enum log_level level; /* messages above it are not even formatted */
};

/* Formats and hands over one line without newline. `log` may be NULL: silence. */
void log_msg(const struct log *log, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
