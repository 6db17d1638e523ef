// tuning/esft_scores.c - the stage before ESFT's: the model runs forward over a sample of the training data,
// and for each layer and expert the slots and their gates are summed on the backend.
#include "tuning/esft.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/safetensors.h"

#include <inttypes.h>
#include <math.h>

enum { PATH_SIZE = 4096 };
static const char state_file[] = "esft_scores.safetensors";

struct tuning_state {
    struct usage_counter counter;
    struct tuning_options options;
};

static bool open_state(struct tuning_state **out, const struct tuning_input *in, struct arena *a,
                       struct leaves *leaves, struct error *err)
{
    (void)leaves;
    const struct model_config *c = in->config;
    struct tuning_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the experts' scores");
    *out = st;
    st->options = *in->options;
    a->purpose = PURPOSE_DATA;
    st->counter = (struct usage_counter){.ops = in->ops,
                                         .slots = arena_2d(a, DTYPE_F64, c->n_layers, c->n_experts),
                                         .mass = arena_2d(a, DTYPE_F64, c->n_layers, c->n_experts)};
    return true;
}

static void close_state(struct tuning_state *st)
{
    mem_free(st);
}

static void add_route(struct tuning_state *st, int64_t layer, struct tensor expert,
                      struct tensor weight)
{
    usage_counter_add(&st->counter, layer, expert, weight);
}

static bool take_usage(struct expert_usage *u, const struct tuning_state *st, struct error *err)
{
    const struct tensor shape = st->counter.slots;
    if (!expert_usage_open(u, shape.dim[0], shape.dim[1], err)) return false;
    usage_counter_take(u, &st->counter);
    return true;
}

static bool finish(struct tuning_state *st, const char *path, struct error *err)
{
    struct expert_usage u;
    struct esft_selection s = {0};
    const struct tuning_options *o = &st->options;
    if (!take_usage(&u, st, err)) return false;
    bool ok = esft_select(&s, &u, o->esft_score, o->esft_top_p, err);
    expert_usage_close(&u);
    if (!ok) return false;
    s.shared_experts = o->esft_shared_experts;
    s.non_expert_modules = o->esft_non_expert_modules;
    ok = esft_selection_write(&s, path, err);
    if (ok) log_info("%s: %" PRId64 " experts chosen", path, esft_selection_total(&s));
    esft_selection_close(&s);
    return ok;
}

// What was added cannot be taken away again.
static bool check_finite(const struct expert_usage *u, struct error *err)
{
    for (int64_t i = 0; i < u->layers * u->experts; i++) {
        if (isfinite(u->mass[i])) continue;
        return fail(err,
                    "layer %" PRId64 ": expert %" PRId64
                    ": the sum of its gates is not finite, which is not saved",
                    i / u->experts, i % u->experts);
    }
    return true;
}

static bool save(const struct tuning_state *st, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct expert_usage u;
    if (!path_join(path, sizeof path, dir, state_file, err) || !take_usage(&u, st, err)) {
        return false;
    }
    const struct st_named sums[] = {
        {"mass", tensor_2d(u.mass, DTYPE_F64, u.layers, u.experts)},
        {"slots", tensor_2d(u.slots, DTYPE_F64, u.layers, u.experts)},
    };
    const bool ok = check_finite(&u, err) && safetensors_write(path, sums, 2, NULL, err);
    expert_usage_close(&u);
    return ok;
}

static bool load_sums(const struct safetensors *file, const char *name, const struct ops *o,
                      struct tensor to, struct error *err)
{
    const struct st_entry *e = safetensors_find(file, name);
    if (!e || !e->known || e->tensor.dtype != DTYPE_F64 || e->tensor.rank != 2 ||
        e->tensor.dim[0] != to.dim[0] || e->tensor.dim[1] != to.dim[1]) {
        return fail(err, "%s: no tensor %s, F64 of %" PRId64 " x %" PRId64, file->path, name,
                    to.dim[0], to.dim[1]);
    }
    o->upload(to.data, e->tensor.data, tensor_bytes(to));
    return true;
}

static bool load(struct tuning_state *st, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct safetensors file;
    const struct usage_counter *c = &st->counter;
    if (!path_join(path, sizeof path, dir, state_file, err) ||
        !safetensors_open(&file, path, err)) {
        return false;
    }
    const bool ok = load_sums(&file, "mass", c->ops, c->mass, err) &&
                    load_sums(&file, "slots", c->ops, c->slots, err);
    safetensors_close(&file);
    return ok;
}

const struct tuning tuning_esft_scores = {
    .name = "esft-scores",
    .help = "the experts' scores",
    .open = open_state,
    .close = close_state,
    .route = add_route,
    .selection_file = "expert_cfg.json",
    .finish = finish,
    .observes = true,
    .forward_only = true,
    .save = save,
    .load = load,
};
