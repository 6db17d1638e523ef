// base/append.h - a file of lines that only grows: each line is handed to the kernel whole, so that a
// kill leaves at most one torn line at the end.
#pragma once
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct append {
    int fd; // -1 when closed
    char path[4096];
};
// Creates the file if need be and cuts it to its first `keep` bytes.
bool append_open(struct append *a, const char *path, size_t keep, struct error *err);
bool append_write(struct append *a, const char *line, size_t n, struct error *err);
bool append_sync(struct append *a, struct error *err); // on the disk when this returns
void append_close(struct append *a);                   // safe on a zeroed one, and twice
