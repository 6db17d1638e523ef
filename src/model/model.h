// model/model.h - the transformer: a checkpoint opened over a backend, its forward and backward pass,
// and its export. Knows routings and tunings only through their tables, and a backend only through ops.
#pragma once
#include "io/checkpoint.h"
#include "io/packing.h"
#include "model/config.h"
#include "ops/ops.h"
#include "routing/losses.h"
#include "routing/routing.h"
#include "tuning/tuning.h"

struct model_setup {
    const char *dir;
    const struct ops *ops;
    enum dtype
        dtype; // BF16: activations and products as the backend does them best; F32: all of it
    const struct routing *routing;
    struct routing_options routing_options;
    const struct tuning *tuning; // NULL: nothing learns (evaluation, generation)
    struct tuning_options tuning_options;
    const char *adapter; // folder of an adapter of that tuning to begin from; NULL: none
    const char *
        state_dir; // folder whose routing state is begun from, where the adapter has none; NULL: dir
    bool frozen;   // the adapter takes part, but nothing learns
    int64_t max_tokens; // largest batch
    int64_t cache_rows; // rows of the KV cache, over all sequences; 0: none
    // Who is told how many bytes of the weights have been read, of all; NULL: nobody.
    void (*loading)(void *user, size_t done, size_t of);
    void *loading_user;
    bool recompute; // keep layer inputs and routes only; the rest is computed again going back
    struct leaf_storage storage; // how what learns is kept (base/leaf.h)
    bool host_states;            // the optimizer's moments lie in host memory
};

// Who looks on while a model computes, for evaluation: told router logits z (N,E) and route of a layer in each
// forward pass, on the backend.
struct route_watcher {
    void *user;
    void (*route)(void *user, int64_t layer, struct tensor z,
                  const struct route *r); // NULL: nobody
};

// Who moves leaves while a backward pass is still under way (setup.storage.shared_gradients): told when the
// gradients of a section are complete and its values will not be read again in this pass. NULL: nobody.
struct gradient_watcher {
    void *user;
    void (*complete)(void *user, int64_t section);
};

struct layer; // banks and norms of one block (model/layer.h)
struct acts;  // activations (model/acts.h)

struct model {
    struct model_setup setup;
    struct model_config config;
    struct checkpoint checkpoint;
    struct checkpoint state_checkpoint; // of state_dir, where that is another folder
    struct weights weights;
    struct leaves leaves; // what learns: whole weights, then the routing's, then adapters
    struct routing_state *routing_state;
    struct tuning_state *tuning_state;
    struct bank **bank; // (n_banks) every linear of the layers
    int64_t n_banks;
    struct safetensors adapter; // the file of setup.adapter
    char *adapter_path;
    struct route_watcher watcher;
    struct gradient_watcher gradients;
    uint64_t pass;       // number of the micro-batch under way in the run; set by who trains
    struct layer *layer; // (n_layers)
    struct acts *acts;
    struct bank head_bank;
    struct arena state, work;   // masters, gradients, moments; activations and scratch
    struct arena moments;       // the moments, where they lie in host memory
    size_t plan[PURPOSE_COUNT]; // bytes of all of them, at the largest batch
    struct tensor loss_sum;     // (1) F64 on the backend: sum of the losses of supervised tokens
    struct router_losses router_losses;
    double router_loss_weight; // of the micro-batch under way: its share of the step's tokens
    struct tensor usage;       // (L,E) F32: rows that each expert got in training, until taken
    bool count_usage;          // evaluation counts them, too
    struct tensor rope;        // (P, rotary) F32: cosines and sines
    int32_t *host;             // (2 * max_tokens) for compacting targets and cutting spans
    int64_t embedding, final_norm, head; // weight indices (head == embedding when tied)
    // The backward pass ends at this half of a block: 2l is layer l's attention, 2l + 1 its MLP; -1: at the
    // embedding.
    int64_t first_learning;
};

// Reads the folder, checks every name and shape, attaches tuning and routing, and measures: after this
// model->plan is known, and nothing large is allocated yet.
bool model_open(struct model *m, const struct model_setup *s, struct error *err);
// Allocates both arenas, fills the masters from the checkpoint and reads the routing's state from the
// folder (or the adapter's), where it holds one. Where nothing learns, the routing's last phase begins.
bool model_allocate(struct model *m, struct error *err);
void model_close(struct model *m); // safe after a failed open, and twice
// Of the backend's memory, known once the model is open: all but what lies in the host's, and the backend's scratch.
size_t model_device_bytes(const struct model *m);

// Forward over a batch (host arrays; uploaded here). cache_row (n) I32 or NULL: where each token's key
// and value go in the cache; spans are then rows of the cache. training: routings count, activations are
// kept.
void model_forward(struct model *m, const struct batch *b, const int32_t *cache_row, bool training);
// After a forward: adds the summed loss of the supervised tokens to m->loss_sum. scale != 0: also the
// head's backward pass, with dL/dloss_n = scale for every supervised token.
void model_loss(struct model *m, const struct batch *b, float scale);
// After model_loss with a scale: the rest of the backward pass; leaf gradients +=. Shared gradients (model_setup)
// must be 0 before model_loss, and are again when m->gradients.complete has set those of each section to 0.
void model_backward(struct model *m, const struct batch *b);
void model_zero_grad(struct model *m);
double model_take_loss(struct model *m);        // downloads loss_sum and sets it to 0
double model_take_router_loss(struct model *m); // the same for the router's losses; 0 without
// usage (L,E) into host memory, and sets it to 0; rows of dense layers are 0.
void model_take_usage(struct model *m, float *usage);
// The routing's phase begins (routing.h).
bool model_begin_phase(struct model *m, int64_t phase, struct error *err);
bool model_learns(const struct model *m); // a tuning, and not frozen
// Leaves have other values now: what depends on them follows. After a load and after each step.
void model_refresh(struct model *m);
bool model_begin_last_phase(struct model *m,
                            struct error *err); // what the model computes after training

// After a forward: logits (n_rows, V) F32 in host memory, of the given rows of the batch.
void model_logits(struct model *m, const int32_t *row, int64_t n_rows, float *logits);

// After a forward: the loss of each supervised token, in the order of their rows, into host memory
// (b->supervised). From F32 logits, whatever the activations' type.
void model_token_losses(struct model *m, const struct batch *b, float *loss);

// After a forward through the cache, whose activations it takes as scratch: rows [from, from + n) of the
// cache become rows [to, to + n) in every layer. The two do not overlap.
void model_copy_cache(struct model *m, int64_t to, int64_t from, int64_t n);

// After a forward with training == true (which keeps every layer's): router logits (N,E) F32 and the
// route, on the backend; data NULL where the layer has no experts.
struct tensor model_router_logits(const struct model *m, int64_t layer);
struct route model_route(const struct model *m, int64_t layer);

// After a forward over as many supervised tokens: those of them whose target is the most likely token (ties: the
// lower id), a number in host memory.
int64_t model_hits(struct model *m, const struct batch *b);
// While a watcher is told of an MoE layer, or after a forward: what the layer's routed experts make of x (N,C) under
// another route, y (N,C), both in activations' type; its slots are at most those of the batch under way, and
// nothing of the pass changes.
void model_moe_output(struct model *m, int64_t layer, struct tensor x, const struct route *r,
                      struct tensor y);
struct tensor model_moe_input(const struct model *m,
                              int64_t layer); // (N,C), while a watcher is told of it

// The base's folder again, with what learnt in it (values rounded to the stored types): whole weights as
// they are, adapters merged.
bool model_export(const struct model *m, const char *out, struct error *err);
// Does the matrix differ from what the checkpoint stores: it learnt, or an adapter brought or changes it?
bool model_weight_changed(const struct model *m, const struct weight *w);
// All of it as F32 in host memory, what learnt or was merged in it.
bool model_weight_values(const struct model *m, const struct weight *w, float *values,
                         struct error *err);
// The stored value of one tensor of the checkpoint with what learnt in it, into `bytes` of its type and
// size; false: nothing in it differs from what is stored.
bool model_merged_tensor(const struct model *m, const struct st_entry *e, void *bytes,
                         struct error *err);

// An adapter's folder (adapter.c): the tuning's own files, whole weights that learnt in their stored types,
// moetune_adapter.json with the base's fingerprint, the routing's state.
bool model_save_adapter(const struct model *m, const char *dir, struct error *err);
