// base/log.c - see log.h.
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static log_sink current;
static void *current_user;

void log_set_sink(log_sink sink, void *user)
{
    current = sink;
    current_user = user;
}

static void emit(enum log_level level, const char *fmt, va_list args)
{
    if (!current) return;
    char line[2048];
    vsnprintf(line, sizeof line, fmt, args);
    for (char *p = line; level == LOG_WARNING && *p; p++) { // it may quote what a file said
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    }
    current(level, line, current_user);
}

void log_info(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    emit(LOG_INFO, fmt, args);
    va_end(args);
}

void log_warning(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    emit(LOG_WARNING, fmt, args);
    va_end(args);
}
