// base/error.c - see error.h.
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// What a file said may stand in a message: it must stay one line and not move a terminal's cursor.
static void one_line(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
    }
}

bool fail(struct error *err, const char *fmt, ...)
{
    if (!err) return false;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    one_line(err->msg);
    return false;
}

bool fail_in(struct error *err, const char *fmt, ...)
{
    if (!err) return false;
    struct error inner = *err;
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    one_line(err->msg);
    if (n < 0 || (size_t)n >= sizeof err->msg) return false;
    const size_t room = sizeof err->msg - (size_t)n;
    snprintf(err->msg + n, room, ": %.*s", (int)room, inner.msg); // cut where it does not fit
    return false;
}
