// base/mem.h - the only way to the heap. Every allocation can be made to fail by a test, and a size
// that overflows is a failed allocation, not a small one. Callers turn NULL into an error line.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t bytes); // not zeroed; NULL on failure; 0 bytes gives a valid pointer
void *mem_zalloc(size_t count, size_t size);
void *mem_realloc(void *p, size_t bytes);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_free(void *p); // NULL is allowed

// Makes the n-th allocation from now on fail (1 = the next one), and all later ones too when
// `for_ever`; n = 0 switches this off. For tests. mem_count() is the number of allocations so far.
void mem_fail_at(int64_t n, bool for_ever);
int64_t mem_count(void);

// Did any allocation fail in this process? Who reads what a user wrote tells a fault in it from this one.
bool mem_ran_out(void);
void mem_note_ran_out(void); // of a library that allocates for itself

// A growable array of bytes. `data` is NUL-terminated after every successful append.
struct buf {
    char *data;
    size_t size, capacity;
};
bool buf_reserve(struct buf *b, size_t extra); // room for extra bytes and the NUL
bool buf_append(struct buf *b, const void *bytes, size_t n);
bool buf_puts(struct buf *b, const char *s);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_free(struct buf *b);

// Grows an array that has `count` of `*capacity` elements of `size` bytes so that one more fits.
// Returns the (moved) array or NULL, in which case the old one is still valid.
void *array_grow(void *array, int64_t count, int64_t *capacity, size_t size);
