// ops/cuda/attention.h - what the kernels of attention share. BF16 goes to the tensor cores, with heads filled
// up with zeros to a size there is a kernel for; F32 is computed in F32 (attention_f32.cu).
#pragma once
#include "ops/cuda/cuda.h"

enum { MOST_HEAD_DIM = 256 };

struct attention_problem {
    const void *q, *k, *v;
    const int32_t *span; // (N,2)
    void *o;             // forward
    float *lse;          // written by the forward pass unless NULL, read by the backward pass
    const void *dout;
    void *dq, *dk, *dv; // NULL: not wanted
    const float *delta; // (N,H): <do, o>
    const int2
        *reach; // of each tile of queries: the first and the last key that its rows attend to
    int N, M, H, G, D;
    float scale;
};

struct attention_problem attention_problem(struct tensor q, struct tensor k, struct tensor v,
                                           struct tensor span, int64_t head_dim, float scale);
void attention_forward_f32(const struct attention_problem *a);
void attention_backward_f32(struct attention_problem *a);
// Fills a->reach for tiles of `queries` rows, in scratch memory.
void attention_find_reach(struct attention_problem *a, int queries);
