// eval/html.c - see html.h.
#include "eval/html.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

void html_raw(struct html *h, const char *markup)
{
    if (!buf_puts(&h->text, markup)) h->failed = true;
}

void html_format(struct html *h, const char *fmt, ...)
{
    char line[512];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line) h->failed = true; // our own markup is shorter
    html_raw(h, line);
}

static const char *escape_of(utf8proc_int32_t c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static bool is_control(utf8proc_int32_t c)
{
    return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
}

void html_text_part(struct html *h, const char *text, size_t size)
{
    const utf8proc_uint8_t *s = (const utf8proc_uint8_t *)text;
    for (size_t i = 0; i < size && !h->failed;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate(s + i, (utf8proc_ssize_t)(size - i), &c);
        const char *escape = n > 0 ? escape_of(c) : NULL;
        if (n <= 0 || is_control(c)) escape = "\xEF\xBF\xBD";
        const size_t taken = n > 0 ? (size_t)n : 1;
        if (escape) {
            html_raw(h, escape);
        } else if (!buf_append(&h->text, text + i, taken)) {
            h->failed = true;
        }
        i += taken;
    }
}

void html_text(struct html *h, const char *text)
{
    html_text_part(h, text, strlen(text));
}

// Whatever the locale's decimal point is, ours is '.'; no '+' and no zeros in front in the exponent.
static void put_number(struct html *h, const char *text)
{
    char out[64];
    size_t n = 0;
    bool point = false;
    const char *p = text;
    for (; *p && *p != 'e' && n < sizeof out - 8; p++) {
        const bool digit = *p == '-' || (*p >= '0' && *p <= '9');
        if (!digit && point) continue; // a point of several bytes
        point |= !digit;
        out[n++] = digit ? *p : '.';
    }
    if (*p == 'e') {
        out[n++] = 'e';
        p++;
        if (*p == '-') out[n++] = '-';
        p += strspn(p, "+-");
        p += strspn(p, "0");
        for (; *p && n < sizeof out - 1; p++) {
            out[n++] = *p;
        }
    }
    out[n] = 0;
    html_raw(h, out);
}

void html_real(struct html *h, double x, int digits)
{
    char text[64];
    if (!isfinite(x)) {
        html_raw(h, "&ndash;");
        return;
    }
    snprintf(text, sizeof text, "%.*g", digits, x);
    put_number(h, text);
}

void html_fixed(struct html *h, double x, int decimals)
{
    char text[64];
    if (!isfinite(x) || fabs(x) >= 1e15) {
        html_real(h, x, 4);
        return;
    }
    snprintf(text, sizeof text, "%.*f", decimals, x);
    put_number(h, text);
}

void html_count(struct html *h, double n)
{
    char digits[32], out[48];
    if (!isfinite(n) || fabs(n) >= 1e15) {
        html_real(h, n, 4);
        return;
    }
    const int length = snprintf(digits, sizeof digits, "%" PRId64, (int64_t)llround(fabs(n)));
    size_t at = 0;
    if (n < 0) out[at++] = '-';
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    html_raw(h, out);
}

void html_bytes(struct html *h, double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++) {
        bytes /= 1024;
    }
    html_fixed(h, bytes, unit ? (bytes < 10 ? 2 : 1) : 0);
    html_format(h, " %s", units[unit]);
}

void html_seconds(struct html *h, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e9)) {
        html_raw(h, "&ndash;");
        return;
    }
    const long s = lround(seconds);
    if (seconds < 9.95) {
        html_fixed(h, seconds, 1);
        html_raw(h, " s");
    } else if (s >= 3600) {
        html_format(h, "%ld h %02ld min", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        html_format(h, "%ld min %02ld s", s / 60, s % 60);
    } else {
        html_format(h, "%ld s", s);
    }
}

void html_base64(struct html *h, const void *bytes, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *s = bytes;
    if (!buf_reserve(&h->text, (n + 2) / 3 * 4)) {
        h->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i += 3) {
        const unsigned left = n - i > 2 ? 3 : (unsigned)(n - i);
        const unsigned v = (unsigned)s[i] << 16 | (left > 1 ? (unsigned)s[i + 1] << 8 : 0) |
                           (left > 2 ? (unsigned)s[i + 2] : 0);
        const char four[] = {digit[v >> 18], digit[v >> 12 & 63],
                             left > 1 ? digit[v >> 6 & 63] : '=', left > 2 ? digit[v & 63] : '='};
        if (!buf_append(&h->text, four, sizeof four)) h->failed = true;
    }
}
