// demo/text.c - see text.h.
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void say(struct text *t, const char *fmt, ...)
{
    char piece[512];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof piece || !buf_append(&t->buf, piece, (size_t)n)) {
        fprintf(stderr, "generate: no memory for the text\n");
        exit(1);
    }
}

int below(struct text *t, int n)
{
    return (int)rng_below(&t->rng, n);
}

int between(struct text *t, int low, int high)
{
    return low + below(t, high - low + 1);
}

bool chance(struct text *t, int percent)
{
    return below(t, 100) < percent;
}

const char *pick(struct text *t, const char *const *words, int n)
{
    return words[below(t, n)];
}

void write_document(struct text *t, const struct kind *k, size_t length)
{
    const size_t start = t->buf.size;
    do {
        k->write(t);
    } while (t->buf.size - start < length);
    while (t->buf.size > start && strchr(" \n", t->buf.data[t->buf.size - 1])) {
        t->buf.data[--t->buf.size] = 0;
    }
}
