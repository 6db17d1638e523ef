// routing/bias_state.h - the bias of auxiliary-loss-free routing (METHODS, "bias"; arXiv 2408.15664 with
// the sign of ExpertCondenser): where it enters the scores, what it counts, how it moves, how it is kept.
// Shared by `bias` and `condenser`.
#pragma once
#include "routing/routing.h"

struct bias_layer {
    bool moe;
    struct tensor b;     // (E) F32: the bias; no gradient, no optimizer
    struct tensor usage; // (E) F32: u of the step (or micro-batch) under way
    struct tensor phase; // (E) F32: sum of u over the phase
    // (E) F32: both as they were before a step that moves them within; absent where none does
    struct tensor b_before, phase_before;
};

struct bias_state {
    const struct ops *ops;
    enum bias_in in;
    enum bias_usage measure;
    enum bias_every every;
    float step, limit; // what sign(u - mean) is multiplied by; clamp of |b|, 0: none
    int64_t n_layers, n_experts;
    struct bias_layer *layer; // (n_layers)
    struct tensor key;        // (max N, E) scratch: p + b
    struct tensor plain;      // (max N, K) scratch: the choice without the bias
    // (L) F64: choices that the bias changed, and all, since a report
    struct tensor changed, choices;
    bool compares; // counts them
    bool moved;    // within the step under way
    bool warned;   // that it changes more than half
};

bool bias_state_open(struct bias_state *s, const struct ops *o, const struct model_config *c,
                     const struct routing_options *r, int64_t max_tokens, struct arena *a,
                     struct error *err);
void bias_state_close(struct bias_state *s);
void bias_state_rate(struct bias_state *s, double rate, int sign); // from now on

// A bias in the logits is added to z; false where it enters elsewhere and z stays as it is.
bool bias_state_logits(const struct bias_state *s, int64_t layer, struct tensor z);
// What the choice is made by: p + b (in scratch; -inf for an excluded expert), or p itself.
struct tensor bias_state_key(const struct bias_state *s, const struct route_input *in,
                             struct tensor p);
// Adds a training micro-batch to u: the sum of p, or the count of the routed slots.
void bias_state_count(const struct bias_state *s, int64_t layer, struct tensor p,
                      struct tensor routed);
// What would be chosen without the bias, k slots by p without it, and then how many routed choices are not
// among them.
void bias_state_plain(const struct bias_state *s, struct tensor p, int64_t k);
void bias_state_compare(const struct bias_state *s, int64_t layer, struct tensor routed);
void bias_state_move(struct bias_state *s, enum bias_every when); // b += step * sign(u - mean u)
// Moves; or drops u and what moved within the step, which was skipped.
void bias_state_end_step(struct bias_state *s, bool applied);

// Adds bias_min, bias_max and bias_changed (share of the choices that the bias changed since the last
// report), one value for each MoE layer. Warns once where a bias in the selection changes more than half.
void bias_state_report(struct bias_state *s, json_t *out);

// Adds bias, an array of E values for each MoE layer.
void bias_state_values(const struct bias_state *s, json_t *out);

// moe_bias_states.json on the host: the bias (L,E), then u of the phase (L,E), 0 where the file has none;
// dense layers are 0. NULL: it does not fit the model. mem_free.
float *bias_file_read(const char *path, const struct model_config *c, struct error *err);
// moe_bias_states.json in dir, in the released layout with u of the phase beside it.
bool bias_state_save(const struct bias_state *s, const char *dir, const char *model_type,
                     struct error *err);
bool bias_state_load(struct bias_state *s, const char *path, const struct model_config *c,
                     struct error *err);
// The same from a folder's file or tensors; readable: there is one, and tensors are at hand.
bool bias_source_readable(const struct routing_source *from);
float *bias_source_read(const struct routing_source *from, const struct model_config *c,
                        struct error *err);
// Where there is one.
bool bias_state_load_from(struct bias_state *s, const struct routing_source *from,
                          const struct model_config *c, struct error *err);
