// io/event_file.h - scalars as TensorBoard reads them: a file of TFRecords (length, masked CRC32C, bytes, masked
// CRC32C), each an Event message of tensorflow/core/util/event.proto, of which only the fields below are written.
#pragma once
#include "base/append.h"
#include "base/mem.h"

#include <stdint.h>

struct event_scalar {
    const char *tag; // "loss/train"
    double value;    // written as a float
};

// Appends one record. wall_time: seconds since 1970.
bool event_version(struct buf *out, double wall_time); // the first of a file
bool event_start(struct buf *out, double wall_time,
                 int64_t step); // a session begins: later steps of others are void
bool event_scalars(struct buf *out, double wall_time, int64_t step, const struct event_scalar *s,
                   int64_t n);

struct event_file {
    struct append file;
};
// A new file; step > 0: of a run that goes on after that step.
bool event_file_open(struct event_file *f, const char *path, double wall_time, int64_t step,
                     struct error *err);
bool event_file_add(struct event_file *f, double wall_time, int64_t step,
                    const struct event_scalar *s, int64_t n, struct error *err);
void event_file_close(struct event_file *f); // safe on a zeroed one, and twice
