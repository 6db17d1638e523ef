// io/dataset_source.h - one data file as a sequence of JSON texts with line numbers: the lines of JSONL
// or the elements of an array. Knows nothing of what is in them, and parses none: each is strict JSON
// only once json_parse has seen it.
#pragma once
#include "base/error.h"
#include "base/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXAMPLE_LIMIT = 64 << 20 }; // bytes of one line or element

struct dataset_source {
    const char *path;
    struct file_map map; // unset where the bytes are the caller's
    const char *bytes;
    size_t size, at;
    int64_t line; // 1-based, of `at`
    bool array;
    bool first;  // no element of the array seen yet
    bool within; // a line that is too long, whose end is yet to be found
};

bool dataset_source_open(struct dataset_source *s, const char *path, struct error *err);
void dataset_source_over(struct dataset_source *s, const char *path, const void *bytes,
                         size_t size);
void dataset_source_close(struct dataset_source *s);

// The next text, where it starts, and true; false at the end or on an error (err->msg is then set; it
// is "" at the end). A line that is too long is no error of the file: size is then beyond the limit.
bool dataset_source_next(struct dataset_source *s, const char **text, size_t *size, int64_t *line,
                         struct error *err);
