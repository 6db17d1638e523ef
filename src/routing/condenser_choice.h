// routing/condenser_choice.h - which experts become condensers, and how many in each layer (METHODS,
// "condenser"): arithmetic on host arrays, apart from the policy so that it can be tested alone.
#pragma once
#include "routing/routing.h"

// The chosen experts of every layer, in ascending order.
struct condensers {
    int64_t count[MAX_LAYERS];   // r of a layer; 0 where it has no experts
    int32_t *expert[MAX_LAYERS]; // (r); owned
};
void condensers_free(struct condensers *s);

// What can be said before anything is loaded: the options parse, r fits the model and the preset, phase 1 can
// leave something to choose by, and the files that the user names fit, too.
bool condenser_check(const struct routing_options *r, const struct model_config *c,
                     struct error *err);
// Are they chosen, or shared out, by the bias; shared out by how unlike the experts' use is?
bool condenser_by_bias(const struct routing_options *r);
bool condenser_shared_by_use(const struct routing_options *r);
// The largest r that a layer can get.
int64_t condenser_most(const struct routing_options *r, const struct model_config *c);
// count (L) of --condenser-thirds or --condenser-count.
bool condenser_counts(int64_t *count, const struct routing_options *r, const struct model_config *c,
                      struct error *err);
bool condenser_count_fits(int64_t r, int64_t layer, const char *where,
                          const struct routing_options *o, const struct model_config *c,
                          struct error *err);

// bias, usage (L,E): b and the sums of u of phase 1; rows of dense layers are not read.
bool condenser_choose(struct condensers *s, const struct routing_options *r,
                      const struct model_config *c, const float *bias, const float *usage,
                      struct error *err);
// The experts of --condenser-experts ("3,7" for every MoE layer, "3,7;1,4" for one after another, or a file) or,
// without it, of the folder's state.
bool condensers_named(struct condensers *s, const struct routing_options *r,
                      const struct model_config *c, struct error *err);
// One more expert of a layer, for which s->expert[l] has room.
bool condensers_add(struct condensers *s, int64_t l, int64_t e, const struct model_config *c,
                    const char *where, struct error *err);
double gini(double *values, int64_t n); // of counts, sorted in place; 0 for all zeros

// forced_experts_records.json and the other spellings of it (source.c); and back.
bool condensers_read(struct condensers *s, const char *path, const struct model_config *c,
                     struct error *err);
// The same from a folder's file or tensors; `where` (SOURCE_PATH): what messages call it.
bool condensers_read_from(struct condensers *s, const struct routing_source *from, char *where,
                          const struct model_config *c, struct error *err);
bool condensers_write(const struct condensers *s, const char *dir, const struct model_config *c,
                      struct error *err);
