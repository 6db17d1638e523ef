// tuning/esft.c - expert-specialised fine-tuning (METHODS, "esft"): in each layer the experts that the task uses
// most learn whole, all else is frozen. Which they are stands in expert_cfg.json: given by the user, brought by
// the adapter that training goes on from, or written by the stage before (esft_scores.c).
#include "tuning/esft.h"

#include "base/file.h"
#include "base/mem.h"
#include "tuning/policies.h"

#include <inttypes.h>

enum { PATH_SIZE = 4096 };
static const char selection_name[] = "expert_cfg.json";

struct tuning_state {
    struct esft_selection selection;
    bool *learns; // (layers, experts)
};

static bool check(const struct tuning_options *r, const struct model_config *c, struct error *err)
{
    if (!c->n_experts) return fail(err, "tuning esft: the model has no experts");
    if (!r->selection && !(r->esft_top_p > 0 && r->esft_top_p <= 1)) {
        return fail(err, "esft_top_p is %g; above 0 and at most 1 expected", r->esft_top_p);
    }
    return true;
}

static const struct tuning *scoring(const struct tuning_options *r, int64_t *steps, int64_t *tokens)
{
    (void)steps;
    *tokens = r->esft_tokens;
    return r->selection ? NULL : &tuning_esft_scores;
}

// As many as may be chosen, whichever they will be.
static bool upper_bound(struct esft_selection *s, const struct tuning_options *r,
                        const struct model_config *c, struct error *err)
{
    if (!esft_selection_open(s, c->n_layers, c->n_experts, err)) return false;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        s->count[l] = esft_at_most(r->esft_top_p, c->n_experts);
        for (int64_t i = 0; i < s->count[l]; i++) {
            s->expert[l * s->experts + i] = (int32_t)i;
        }
    }
    return true;
}

static bool given(struct esft_selection *s, const struct tuning_options *r,
                  const struct model_config *c, struct error *err)
{
    if (!esft_selection_read(s, r->selection, c, err)) return false;
    if (esft_selection_total(s) || s->shared_experts || s->non_expert_modules ||
        r->esft_shared_experts || r->esft_non_expert_modules || r->train) {
        return true;
    }
    return fail(err, "%s: no expert is chosen, nothing would learn", r->selection);
}

static bool open_selection(struct esft_selection *s, const struct tuning_input *in,
                           struct error *err)
{
    char path[PATH_SIZE];
    const struct tuning_options *r = in->options;
    if (!in->adapter_dir) {
        return (r->selection ? given : upper_bound)(s, r, in->config, err);
    }
    if (r->selection) {
        return fail(err, "%s: the adapter %s has a choice of its own; one of both expected",
                    r->selection, in->adapter_dir);
    }
    return path_join(path, sizeof path, in->adapter_dir, selection_name, err) &&
           esft_selection_read(s, path, in->config, err);
}

static bool choose(struct tuning_state **out, const struct tuning_input *in, struct error *err)
{
    struct tuning_state *st = *out ? *out : mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the choice of experts");
    *out = st;
    struct esft_selection *s = &st->selection;
    if (!open_selection(s, in, err)) return false;
    s->shared_experts |= in->options->esft_shared_experts;
    s->non_expert_modules |= in->options->esft_non_expert_modules;
    st->learns = mem_zalloc((size_t)(s->layers * s->experts), sizeof *st->learns);
    if (!st->learns) return fail(err, "no memory for the choice of experts");
    for (int64_t l = 0; l < s->layers; l++) {
        for (int64_t i = 0; i < s->count[l]; i++) {
            st->learns[l * s->experts + s->expert[l * s->experts + i]] = true;
        }
    }
    return true;
}

static void close_state(struct tuning_state *st)
{
    esft_selection_close(&st->selection);
    mem_free(st->learns);
    mem_free(st);
}

static bool learns(const struct tuning_state *st, const struct weight *w)
{
    const struct esft_selection *s = &st->selection;
    if (w->part == PART_EXPERT) return st->learns[w->layer * s->experts + w->expert];
    return w->part == PART_SHARED ? s->shared_experts : s->non_expert_modules;
}

static bool write_files(const struct tuning_state *st, const struct tuning_input *in,
                        const char *dir, struct error *err)
{
    (void)in;
    char path[PATH_SIZE];
    return path_join(path, sizeof path, dir, selection_name, err) &&
           esft_selection_write(&st->selection, path, err);
}

static bool read_files(bool *mine, struct tuning_options *r, const char *dir, struct error *err)
{
    (void)r; // choose reads it
    char path[PATH_SIZE];
    if (!path_join(path, sizeof path, dir, selection_name, err)) return false;
    *mine = file_exists(path);
    return true;
}

// The released adapters are what transformers saves of a model whose frozen weights are no parameters.
static const struct adapter_format format = {
    .file = "model.safetensors",
    .prefix = "",
    .write = write_files,
    .read = read_files,
};

const struct tuning tuning_esft = {
    .name = "esft",
    .help = "the experts that the data uses most learn whole",
    .check = check,
    .scoring = scoring,
    .learns = learns,
    .choose = choose,
    .close = close_state,
    .format = &format,
};
