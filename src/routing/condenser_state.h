// routing/condenser_state.h - what ExpertCondenser keeps, and its life apart from the routing itself: opened,
// begun, saved, loaded. Internal to condenser.c and condenser_state.c.
#pragma once
#include "routing/bias_state.h"
#include "routing/condenser_choice.h"
#include "routing/gates.h"

struct condenser_layer {
    struct tensor experts; // (most) I32: the condensers
    int64_t gate;          // index of its leaf in `leaves`, -1: none
    void **value, **grad;  // where that leaf's arrays lie: tables of one pointer on the backend
};

struct routing_state {
    struct gates gates;
    struct bias_state bias;
    const struct model_config *config;
    struct routing_options options;
    struct leaves *leaves;
    int64_t most;      // the largest r of a layer
    bool placed;       // the arena stands, and slots are what they are now instead of the most
    bool given;        // `set` was named from outside, before anything was learnt
    bool chosen;       // the condensers are active
    bool gates_loaded; // v_c are a state's; else they start as the router's rows
    struct condensers set;
    struct condenser_layer *layer; // (n_layers)
    struct tensor routed, forced;  // (max N, K), (max N, most) I32 scratch
    struct tensor own, down; // (max N, most) F32 scratch: condensers' gates and their gradient
    struct tensor rest;      // (max N, K) F32 scratch: the routed slots'
};

bool condenser_released(const struct routing_state *st);
bool condenser_learnt_gate(const struct routing_state *st); // v_c are leaves
int64_t condenser_phases(const struct routing_options *r);
bool condenser_open(struct routing_state **out, const struct ops *o, const struct model_config *c,
                    const struct routing_options *r, int64_t max_tokens, struct arena *a,
                    struct leaves *leaves, struct error *err);
void condenser_close(struct routing_state *st);
bool condenser_begin(struct routing_state *st, int64_t phase, const struct router_rows *rows,
                     struct error *err);
bool condenser_save(const struct routing_state *st, const char *dir, struct error *err);
bool condenser_load(struct routing_state *st, const struct routing_source *from, struct error *err);
