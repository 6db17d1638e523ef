// base/leaf.h - one trainable array and the list of them: all that the optimizer, clipping, checkpoints
// and the memory plan ever see of a method.
#pragma once
#include "base/arena.h"
#include "base/error.h"

enum { NAME_MAX_LENGTH = 192 };

// All F32 unless said; on the backend's memory.
struct leaf {
    char name[NAME_MAX_LENGTH]; // Hugging Face name, unique in the run
    struct tensor value;        // the master
    struct tensor grad;
    struct tensor m, v; // AdamW's moments
    struct tensor
        copy;    // working copy in the compute type, refreshed by the optimizer; may be absent
    bool decays; // weight decay applies (never to vectors)
};

struct leaves {
    struct leaf *leaf;
    int64_t count, capacity;
    bool frozen; // nothing learns: leaves have values and copies only
};

// Appends a leaf: value, grad, moments and (unless copy_type is F32) the working copy, of the shape
// of `shape`, in the arena. Returns it (valid until the next call), or NULL and err. The caller fills
// value on a placing run.
struct leaf *leaves_add(struct leaves *l, struct arena *a, const char *name, struct tensor shape,
                        enum dtype copy_type, struct error *err);
void leaves_free(struct leaves *l);
