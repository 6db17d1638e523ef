// routing/routing.h - how tokens reach experts, and what the router learns from. A route is data: S
// expert slots per token, each with the weight its output gets. A slot of weight 0 adds nothing to the
// output and sends no gradient into the expert, so the forward pass skips it; the backward pass owes it
// only dweight, from which the router learns. That one rule makes every policy the same to model/moe.c:
//   topk        S = K      the K best, weights from the scores
//   condenser   S = K + r  (or K in all) the routed ones, then the layer's r always-on experts
//   densemixer  S = E      every expert, weight 0 outside the K best (straight-through router)
// Must not know tuning, the model's other parts, or training.
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include "base/leaf.h"
#include "io/json.h"
#include "model/config.h"
#include "ops/ops.h"
#include "routing/source.h"

// The route of one layer for one micro-batch; on the backend's memory, kept for the backward pass.
struct route {
    struct tensor expert; // (N,S) I32
    struct tensor weight; // (N,S) F32
};

// What a policy sees of one layer for one micro-batch.
struct route_input {
    int64_t layer;      // index among all layers of the model
    struct tensor x;    // (N,C) the block's input, normed
    struct tensor z;    // (N,E) F32 router logits, kept for the backward pass
    struct tensor real; // (N) I32: 1 for a token, 0 for padding; absent: all are tokens
    bool training;      // false in evaluation and generation: no counting, no state changes
    // (N,D) I32: experts that no token may be routed to, whose z is -inf already (subset.h); absent: none
    struct tensor excluded;
};

// What the user chose; every field an option of the command line (METHODS, "Routing").
enum bias_in {
    BIAS_IN_DEFAULT,
    BIAS_IN_SELECTION,
    BIAS_IN_LOGITS
}; // by the preset; else selection
enum bias_sign { BIAS_SPARSIFY, BIAS_BALANCE };
enum bias_usage { BIAS_USAGE_SOFT, BIAS_USAGE_COUNT };
enum bias_every { BIAS_EVERY_STEP, BIAS_EVERY_MICRO_BATCH };
enum condenser_preset { CONDENSER_PAPER, CONDENSER_RELEASED };
enum condenser_choice {
    CHOICE_LOWEST_BIAS,
    CHOICE_HIGHEST_BIAS,
    CHOICE_LEAST_USED,
    CHOICE_MOST_USED
};
enum condenser_gate { CONDENSER_ROUTER, CONDENSER_SIGMOID, CONDENSER_SOFTMAX, CONDENSER_ONE };
enum condenser_share { SHARE_BIAS_STD, SHARE_USAGE_GINI };

struct routing_options {
    double aux_coef, z_coef; // of the router's losses; below 0: the routing's default
    int bias_in, bias_sign, bias_usage, bias_every;
    double bias_rate, bias_limit; // limit 0: none
    const char *bias_file; // moe_bias_states.json to start from; condenser: instead of phase 1
    double phase1_epochs, phase2_rate;
    int condenser_preset, condenser_choice, condenser_gate, condenser_share;
    const char *condenser_count;   // "2", or one number for each MoE layer: "2,2,4"
    const char *condenser_thirds;  // "1,2,3": early, middle and late layers; NULL: condenser_count
    int64_t condenser_total;       // shared out over the layers by condenser_share; 0: no total
    int64_t condenser_max;         // of a layer, under a total
    double condenser_gini_power;   // q in gini(usage)^q
    const char *condenser_experts; // "3,7", "3,7;1,4" or forced_experts_records.json; NULL: chosen
    bool without_telemetry;        // nothing is counted for the sake of a report alone (bench)
    // The state that the model's folder holds, where nothing above beats it.
    struct routing_source source;
};

// Looks for the state in an adapter's folder (NULL: none) and, where that holds none, in the model's.
// --bias-file beats all of it, --condenser-experts its condensers.
bool routing_options_source(struct routing_options *r, const char *adapter, const char *dir,
                            const struct checkpoint *c, struct error *err);

// An option that changes what a forward pass computes with a given state: it travels with the state, in
// routing.json, under its name on the command line (in snake_case). Each is an int with named values.
struct routing_stated {
    const char *name;
    size_t field; // in struct routing_options
    const char *const *choices;
};
extern const char *const bias_in_names[], *const condenser_preset_names[],
                                              *const condenser_gate_names[];
extern const struct routing_stated stated_bias_in, stated_condenser_preset, stated_condenser_gate;

struct routing_state; // owned by the policy

// What a policy may ask of the model when a phase begins: a copy of a row of the router's weight.
struct router_rows {
    void *user;
    void (*get)(void *user, int64_t layer, int64_t expert, float *row); // (C)
};

struct routing {
    const char *name, *help;
    bool needs_experts;                         // does not go with a model that has no MoE layer
    const struct routing_stated *const *stated; // NULL-terminated; NULL: none
    // Is this the routing of a folder that holds the released code's state and no routing.json? Sets the
    // options that the code stands for. NULL: never.
    bool (*recognises)(const struct routing_source *s, struct routing_options *r);
    bool needs_aux; // the coefficient of the load-balancing loss is the checkpoint's unless given
    // Do the options, and the files that they name, go with a model of this shape? Before anything of it is
    // loaded. NULL: nothing to check. Called through routing_check.
    bool (*check)(const struct routing_options *r, const struct model_config *c, struct error *err);
    // How many phases a run has (condenser: 2, or 1 after a bias file); NULL: 1.
    int64_t (*phases)(const struct routing_options *r);
    // Per-layer buffers (bias, counts, condensers) in the arena and leaves of its own (a condenser's
    // gate). max_tokens: the largest N of a call. Runs with a measuring arena, then a placing one.
    bool (*open)(struct routing_state **st, const struct ops *o, const struct model_config *c,
                 const struct routing_options *r, int64_t max_tokens, struct arena *a,
                 struct leaves *out, struct error *err);
    void (*close)(struct routing_state *st);
    // A phase (from 0) begins, after the one before it has ended; not called on a resume. NULL: nothing.
    bool (*begin)(struct routing_state *st, int64_t phase, const struct router_rows *rows,
                  struct error *err);
    // The route may hold slots of weight 0, which the backward pass owes their dweight; at most `active`
    // slots of a token have another weight (NULL: all).
    bool zero_slots;
    int64_t (*active)(const struct routing_state *st, int64_t layer);
    // S of this layer; before the arena is placed the largest it can become.
    int64_t (*slots)(const struct routing_state *st, int64_t layer, bool training);
    // route <- input. Written in ops, so one policy runs on every backend. in->z may be changed: it is
    // kept as the policy left it (a bias in the logits).
    void (*select)(struct routing_state *st, const struct route *route,
                   const struct route_input *in);
    // The layer's experts that are active for every token whatever its logits, `count` of them; owned by the
    // policy. NULL: there are none.
    const int32_t *(*always)(const struct routing_state *st, int64_t layer, int64_t *count);
    // dz (N,E) overwritten, dx (N,C) += (F32 or activations' type; may be absent), from dweight (N,S),
    // dweight[n,s] = dL/dy[n] . expert_output[n,s] (may be overwritten). Nothing may be counted here.
    void (*backward)(struct routing_state *st, struct tensor dz, struct tensor dx,
                     struct tensor dweight, const struct route *route,
                     const struct route_input *in);
    void (*after_micro_batch)(struct routing_state *st); // NULL: nothing
    // Moves the bias; not applied: the step was skipped, and what it counted is dropped. NULL: nothing.
    void (*after_step)(struct routing_state *st, bool applied);
    // Adds the policy's own numbers since the last call to a line of metrics.jsonl, one value for each
    // MoE layer. usage (L,E): rows that each expert got. NULL: none.
    void (*report)(struct routing_state *st, json_t *out, const float *usage);
    // Adds what it keeps for each expert, now: `bias` [E] of each MoE layer, `condensers` (ids) where they stand.
    // NULL: nothing.
    void (*experts)(const struct routing_state *st, json_t *out);
    // State files in a checkpoint or an export, routing.json among them; enough for a resume. NULL: none.
    bool (*save)(const struct routing_state *st, const char *dir, struct error *err);
    // Takes over what of it is there.
    bool (*load)(struct routing_state *st, const struct routing_source *from, struct error *err);
};

extern const struct routing *const routings[]; // NULL-terminated registry
const struct routing *routing_find(const char *name, struct error *err);
// Does the routing go with a model of this shape? The error names the option or the file.
bool routing_check(const struct routing *r, const struct routing_options *o,
                   const struct model_config *c, struct error *err);
int64_t routing_layers(const struct model_config *c); // MoE layers of the model

// routing.json: the routing's name and its stated options.
bool routing_describe(const struct routing *r, const struct routing_options *o, const char *dir,
                      struct error *err);
// The routing that a model's folder was made with, and its stated options into *o: from routing.json, or
// (*described false) as the released code would take the state that is there. *out NULL: the folder holds
// none.
bool routing_described(const struct routing **out, struct routing_options *o, bool *described,
                       const struct routing_source *s, struct error *err);
