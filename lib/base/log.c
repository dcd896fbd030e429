/* base/log.c - what a library wants a person to know. Any thread. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_msg(const struct log *log, enum log_level level, const char *fmt, ...)
{
	char msg[512];
	va_list ap;

	if (!log || !log->emit || level > log->level)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	log->emit(log->ctx, level, msg);
}
