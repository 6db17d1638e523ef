// train/manifest.h - the list of all that a checkpoint folder holds, with checksums: manifest.json. The
// parser works on bytes alone, so that it can be fuzzed. Its text is canonical and guards itself: any
// changed byte of it is found.
#pragma once
#include "base/error.h"
#include "base/leaf.h"
#include "base/mem.h"

struct manifest_tensor {
    char name[NAME_MAX_LENGTH];
    uint32_t crc;
};

struct manifest_file {
    char name[256]; // plain
    int64_t size;
    uint32_t crc; // of the whole file; of its header where tensors are listed
    struct manifest_tensor *tensor;
    int64_t n_tensors, capacity;
};

struct manifest {
    int64_t step;
    struct manifest_file *file;
    int64_t n_files, capacity;
};

bool manifest_parse(struct manifest *m, const char *text, size_t size, const char *where,
                    struct error *err);
bool manifest_text(const struct manifest *m, struct buf *out); // false: no memory
void manifest_free(struct manifest *m);                        // safe on a zeroed one, and twice

// NULL: no memory. Valid until the next call.
struct manifest_file *manifest_add(struct manifest *m, const char *name);
struct manifest_tensor *manifest_add_tensor(struct manifest_file *f, const char *name);
const struct manifest_file *manifest_find(const struct manifest *m, const char *name);
