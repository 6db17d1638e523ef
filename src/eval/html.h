// eval/html.h - a page as text that grows: markup as it is, text from anywhere escaped, numbers that look the
// same under every locale. A failed allocation is remembered and asked for once, at the end.
#pragma once
#include "base/mem.h"

struct html {
    struct buf text; // UTF-8; buf_free
    bool failed;     // no memory: the text is not whole
};

void html_raw(struct html *h, const char *markup);
// Markup with numbers and fixed words in it; reals and text from outside have calls of their own.
void html_format(struct html *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// Escaped for text and for attributes in double quotes. What is not UTF-8 and control characters (but \n and \t)
// become U+FFFD.
void html_text(struct html *h, const char *text);
void html_text_part(struct html *h, const char *text, size_t size);
// So many significant digits, "0.00125", "3.2e-7"; a dash where it is not finite.
void html_real(struct html *h, double x, int digits);
void html_fixed(struct html *h, double x, int decimals); // "12.50"
void html_count(struct html *h, double n);               // "1,234,567"
void html_bytes(struct html *h, double bytes);           // "12.3 GiB"
void html_seconds(struct html *h, double seconds);       // "1 h 02 min"
void html_base64(struct html *h, const void *bytes, size_t n);
