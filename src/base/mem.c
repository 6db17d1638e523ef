// base/mem.c - see mem.h.
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic int64_t allocations, fail_at;
static _Atomic bool fail_for_ever;

void mem_fail_at(int64_t n, bool for_ever)
{
    fail_for_ever = for_ever;
    fail_at = n ? allocations + n : 0;
}

int64_t mem_count(void)
{
    return allocations;
}

static bool must_fail(void)
{
    const int64_t n = ++allocations, at = fail_at;
    return at && (n == at || (n > at && fail_for_ever));
}

// No object is larger than PTRDIFF_MAX; asked for more, a sanitizer would end the program.
static bool absurd(size_t count, size_t size)
{
    return size && count > PTRDIFF_MAX / size;
}

static _Atomic bool ran_out;

bool mem_ran_out(void)
{
    return ran_out;
}

void mem_note_ran_out(void)
{
    ran_out = true;
}

static void *noted(void *p)
{
    if (!p) ran_out = true;
    return p;
}

void *mem_alloc(size_t bytes)
{
    return noted(must_fail() || absurd(bytes, 1) ? NULL : malloc(bytes ? bytes : 1));
}

void *mem_zalloc(size_t count, size_t size)
{
    return noted(must_fail() || absurd(count, size) ? NULL
                                                    : calloc(count ? count : 1, size ? size : 1));
}

void *mem_realloc(void *p, size_t bytes)
{
    return noted(must_fail() || absurd(bytes, 1) ? NULL : realloc(p, bytes ? bytes : 1));
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

void mem_free(void *p)
{
    free(p);
}

bool buf_reserve(struct buf *b, size_t extra)
{
    if (extra >= SIZE_MAX / 2 - b->size) return false;
    const size_t needed = b->size + extra + 1;
    if (needed <= b->capacity) return true;
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < needed) {
        capacity *= 2;
    }
    char *data = mem_realloc(b->data, capacity);
    if (!data) return false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

bool buf_append(struct buf *b, const void *bytes, size_t n)
{
    if (!buf_reserve(b, n)) return false;
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = 0;
    return true;
}

bool buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    const bool ok = n >= 0 && buf_reserve(b, (size_t)n);
    if (ok) {
        vsnprintf(b->data + b->size, (size_t)n + 1, fmt, again);
        b->size += (size_t)n;
    }
    va_end(again);
    return ok;
}

void buf_free(struct buf *b)
{
    mem_free(b->data);
    *b = (struct buf){0};
}

void *array_grow(void *array, int64_t count, int64_t *capacity, size_t size)
{
    if (count < *capacity) return array;
    const int64_t wanted = *capacity ? *capacity * 2 : 16;
    if ((uint64_t)wanted > SIZE_MAX / 2 / size) return NULL;
    void *grown = mem_realloc(array, (size_t)wanted * size);
    if (grown) *capacity = wanted;
    return grown;
}
