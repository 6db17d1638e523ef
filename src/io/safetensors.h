// io/safetensors.h - one safetensors file: parsed with every check before any use, and written. The
// parser works on bytes alone, so that it can be fuzzed. Knows nothing of models.
#pragma once
#include "base/error.h"
#include "base/file.h"
#include "base/tensor.h"

// A tensor as the header describes it. dtype is one of enum dtype; files with the format's other dtypes
// parse, but such an entry has known == false and can only be copied, by its bytes (as a U8 vector).
struct st_entry {
    char *name;
    struct tensor
        tensor; // data lies in the mapping, aligned for its type (else in a copy of its own);
                // rank 0 and empty tensors are valid
    bool known, copied;
    char dtype_name[16]; // as in the file
    int64_t shape[8]; // as in the file (rank up to 8; a rank above TENSOR_MAX_RANK is not `known`)
    int rank;
    size_t begin, end; // bytes within the data section
};

struct safetensors {
    const char *path; // for messages; owned by the caller and must outlive this
    struct file_map map;
    struct st_entry *entry; // sorted by name
    int64_t count;
    char *metadata;     // JSON text of __metadata__, NULL if none
    size_t header_size; // bytes before the data section
};

// Header at most 100,000,000 bytes, strict UTF-8 JSON, no duplicate names, offsets that tile the data
// section exactly, shape product times dtype size equal to the span, all without overflow. `st` is zero but
// for its path; close it after a failure too. The bytes must outlive it.
bool safetensors_parse(struct safetensors *st, const void *bytes, size_t size, struct error *err);
bool safetensors_open(struct safetensors *st, const char *path, struct error *err); // maps the file
void safetensors_close(struct safetensors *st); // safe after a failed open, and twice
const struct st_entry *safetensors_find(const struct safetensors *st, const char *name);

// Writing: describe all tensors first (in the order in which their bytes will follow), then write
// them. The file appears at commit, whole (base/file.h).
struct st_writer_entry {
    const char *name, *dtype_name; // "BF16"
    int64_t shape[8];
    int rank;
    size_t bytes;
};
// `metadata`: JSON object text or NULL. The header is padded so that data starts at a multiple of 8.
bool safetensors_begin(struct file_writer *w, const char *path, const struct st_writer_entry *entry,
                       int64_t count, const char *metadata, struct error *err);
// Convenience for tests, dump and checkpoints: n known tensors in host memory, in one go.
struct st_named {
    const char *name;
    struct tensor tensor;
};
bool safetensors_write(const char *path, const struct st_named *t, int64_t n, const char *metadata,
                       struct error *err);
