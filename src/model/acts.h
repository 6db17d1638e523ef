// model/acts.h - what a forward pass leaves for the backward pass, and the scratch that both use.
// acts_layout is the one description of that memory: it runs once to measure, at the largest batch, and
// then for every batch to place, so that all tensors have exactly the rows of the batch at hand.
#pragma once
#include "model/layer.h"

// Letters: base/tensor.h. "A" is the activations' type.
struct layer_acts {
    struct tensor x;    // (N,C) A: the block's input. Kept even under recomputation, like
    struct tensor z;    // (N,E) F32: router logits
    struct route route; // and the choices, which are never made again
    int64_t active; // at most so many slots of a token have a weight that is not 0; R = N * active

    struct tensor n1, rstd1;      // (N,C) normed input; (N)
    struct tensor q_raw, k_raw;   // projections before norm or clip; data NULL where neither is
    struct tensor q_rstd, k_rstd; // (N) or (N*H), (N*G)
    struct tensor q, k, v;        // (N, H*D), (N, G*D): as attention sees them
    struct tensor o, lse;         // (N, H*D); (N,H)
    struct tensor mid;            // (N,C): x plus attention
    struct tensor n2, rstd2;      // (N,C)
    struct tensor gate, up;       // (R,F) of experts, or (N,F) of a dense layer
    struct dispatch dispatch;
    struct tensor shared_gate, shared_up, shared_scale; // (N,Fs), (N,Fs), (N,1) F32
};

struct acts {
    int64_t n;
    bool training; // a backward pass follows
    bool cached;   // keys and values go through the cache
    enum dtype dtype;
    struct layer_acts *layer;        // (L)
    struct tensor final, final_rstd; // (N,C), (N): what the head sees
    struct tensor x_last;            // (N,C): output of the last block

    // The batch, on the backend.
    struct tensor ids, positions, span, cache_row;
    struct tensor window_span; // (N,2): span cut to the window; data NULL where no layer has one
    struct tensor target, target_row; // (N): supervised targets and their rows, compacted

    // Scratch.
    struct tensor rows, hidden;  // (R,C), (R,F): gathered tokens and experts' hidden layer
    struct tensor stream;        // (N,C): what a half of a block adds to the residual stream
    struct tensor shared_stream; // (N,C)
    struct tensor dx, dnorm;     // (N,C): gradient of the residual stream, of a norm's output
    struct tensor dattention;    // (N,H*D)
    struct tensor dq, dk, dv;    // (N,H*D), (N,G*D)
    struct tensor unclipped;     // (N,H*D): q or k before the clip, made again
    struct tensor dz, dweight, dshared; // (N,E), (N,S), (N,1) F32
    struct tensor head_x, head_dx;      // (rows,C) of a chunk
    struct tensor logits, losses;       // (rows,V) F32, read as A in training; (rows)
};

void acts_layout(struct acts *a, struct arena *arena, const struct model *m, int64_t n,
                 bool training);
