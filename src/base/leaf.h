// base/leaf.h - one trainable array and the list of them: all that the optimizer, clipping, checkpoints
// and the memory plan ever see of a method.
#pragma once
#include "base/arena.h"
#include "base/error.h"

enum { NAME_MAX_LENGTH = 192 };

// What AdamW's moments are kept in: float32; BF16 with stochastic rounding; 8-bit codes with a scale for each
// CODE_BLOCK elements (base/codes.h). Vectors have float32 always: they are next to nothing.
enum state_type { STATES_F32, STATES_BF16, STATES_8BIT };

// How leaves are kept. All zero: masters, gradients and moments in float32, each with memory of its own.
struct leaf_storage {
    enum state_type states;
    // A matrix that is stored as BF16 has no float32 master: its value is BF16, and what the forward pass
    // reads. Values without a stored type (adapters) have float32 ones.
    bool no_masters;
    // A gradient lives only from its section of the backward pass to the end of that section: those of all
    // sections lie in the same memory, as large as the largest section needs.
    bool shared_gradients;
};

// A section is a stretch of the backward pass at whose end some gradients are complete; sections come in
// descending order. Which stretch a number stands for is the model's business (model/config.h).
enum {
    SECTION_NONE
}; // a gradient that is made here and there: has memory of its own, complete at the end

// On the backend's memory.
struct leaf {
    char name[NAME_MAX_LENGTH]; // Hugging Face name, unique in the run
    struct tensor value;        // the master, F32; BF16 without one
    struct tensor grad;         // F32; its memory may be another section's, too
    struct tensor m, v; // AdamW's moments: F32, BF16, or U8 codes (signed for m, unsigned for v)
    struct tensor m_scale,
        v_scale; // F32, of codes: the largest |m| and v of each block; else absent
    struct tensor
        copy;        // working copy in the compute type, refreshed by the optimizer; may be absent
    int64_t section; // where its gradient is made
    bool decays;     // weight decay applies (never to vectors)
};

struct leaves {
    struct leaf *leaf;
    int64_t count, capacity;
    bool frozen; // nothing learns: leaves have values and copies only
    struct leaf_storage storage;
    struct arena *states; // of the moments; NULL: they lie in the arena of the rest
    int64_t section;      // of the leaves that follow
    // Of shared gradients: bytes so far of each section (sections), of the largest, and where they lie.
    size_t *used, shared;
    int64_t sections;
    char *gradients;
};

// Around the leaves of a model, on a measuring run and then on a placing one: the memory of shared gradients,
// whose size the first finds out for the second.
void leaves_begin(struct leaves *l, struct arena *a);
void leaves_end(struct leaves *l, struct arena *a);
// Appends a leaf: value, grad, moments and (unless copy_type is F32) the working copy, of the shape
// of `shape`, in the arena; shape.dtype is the type in which its value is stored elsewhere, F32 if nowhere.
// Returns it (valid until the next call), or NULL and err. The caller fills value on a placing run.
struct leaf *leaves_add(struct leaves *l, struct arena *a, const char *name, struct tensor shape,
                        enum dtype copy_type, struct error *err);
void leaves_free(struct leaves *l);
