// routing/condenser_list.c - what the user says about condensers: experts by name, in a file or on the
// command line, and whether all of it goes with the model. Needs its config alone.
#include "routing/condenser_choice.h"

#include "base/mem.h"
#include "routing/bias_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char option[] = "--condenser-experts";

bool condensers_add(struct condensers *s, int64_t l, int64_t e, const struct model_config *c,
                    const char *where, struct error *err)
{
    int32_t *list = s->expert[l];
    int64_t at = s->count[l];
    if (e < 0 || e >= c->n_experts) {
        return fail(err, "%s: layer %" PRId64 ": an expert from 0 to %" PRId64 " expected", where,
                    l, c->n_experts - 1);
    }
    while (at > 0 && list[at - 1] > e) {
        at--;
    }
    if (at > 0 && list[at - 1] == e) {
        return fail(err, "%s: layer %" PRId64 " names expert %" PRId64 " twice", where, l, e);
    }
    memmove(list + at + 1, list + at, (size_t)(s->count[l]++ - at) * sizeof *list);
    list[at] = (int32_t)e;
    return true;
}

static bool malformed(const char *text, struct error *err)
{
    return fail(err,
                "%s: '%s'; experts as 3,7 for every MoE layer or as 3,7;1,4 for one after another, "
                "or a file expected",
                option, text);
}

// The numbers up to the next ';' into layer l; *at stops there, or at the end.
static bool read_group(struct condensers *s, int64_t l, const char **at, const char *text,
                       const struct model_config *c, struct error *err)
{
    s->expert[l] = mem_alloc((size_t)c->n_experts * sizeof *s->expert[l]);
    if (!s->expert[l]) return fail(err, "%s: no memory", option);
    for (;; ++*at) {
        char *end;
        if (**at < '0' || **at > '9') return malformed(text, err);
        if (!condensers_add(s, l, strtoll(*at, &end, 10), c, option, err)) return false;
        *at = end;
        if (*end != ',') return true;
    }
}

static bool read_list(struct condensers *s, const char *text, const struct model_config *c,
                      struct error *err)
{
    const int64_t layers = routing_layers(c);
    int64_t groups = 1;
    for (const char *p = text; *p; p++) {
        groups += *p == ';';
    }
    if (groups != 1 && groups != layers) {
        return fail(err,
                    "%s: '%s' has %" PRId64 " lists; one, or %" PRId64
                    " (one for each MoE layer) expected",
                    option, text, groups, layers);
    }
    const char *at = text;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        if (groups == 1) at = text;
        if (!read_group(s, l, &at, text, c, err)) return false;
        at += *at == ';';
    }
    return true;
}

// From the option, or from the folder's state; `where` (SOURCE_PATH): what messages call it.
static bool read_named(struct condensers *s, char *where, const struct routing_options *r,
                       const struct model_config *c, struct error *err)
{
    const char *text = r->condenser_experts;
    if (!text) return condensers_read_from(s, &r->source, where, c, err);
    const bool list = !text[strspn(text, "0123456789,;")];
    snprintf(where, SOURCE_PATH, "%s", list ? option : text);
    return list ? read_list(s, text, c, err) : condensers_read(s, text, c, err);
}

bool condensers_named(struct condensers *s, const struct routing_options *r,
                      const struct model_config *c, struct error *err)
{
    char where[SOURCE_PATH];
    condensers_free(s);
    bool ok = read_named(s, where, r, c, err);
    for (int64_t l = 0; ok && l < c->n_layers; l++) {
        ok = condenser_count_fits(s->count[l], l, where, r, c, err);
    }
    if (!ok) condensers_free(s);
    return ok;
}

static bool total_fits(const struct routing_options *r, const struct model_config *c,
                       struct error *err)
{
    const int64_t each = condenser_most(r, c), layers = routing_layers(c);
    if (r->condenser_total <= each * layers) return true;
    return fail(err,
                "--condenser-total: %" PRId64 ", but %" PRId64 " in each of %" PRId64
                " layers are all that may be (--condenser-max, and what a token runs)",
                r->condenser_total, each, layers);
}

static bool counts_fit(const struct routing_options *r, const struct model_config *c,
                       struct error *err)
{
    int64_t count[MAX_LAYERS] = {0};
    if (!condenser_counts(count, r, c, err)) return false;
    for (int64_t l = 0; l < c->n_layers; l++) {
        const char *where = r->condenser_thirds ? "--condenser-thirds" : "--condenser-count";
        if (!condenser_count_fits(count[l], l, where, r, c, err)) return false;
    }
    return true;
}

// What phase 1 leaves is known before it runs where no expert can be used more than another, or where the bias
// keeps still. What only computes has no phase 1.
static bool phase1_can_choose(const struct routing_options *r, const struct model_config *c,
                              struct error *err)
{
    const int64_t E = c->n_experts;
    const bool all_run = r->bias_usage == BIAS_USAGE_COUNT && c->experts_per_tok == E;
    const bool by_bias = condenser_by_bias(r);
    if (!(r->phase1_epochs > 0) || r->bias_file || r->source.bias) return true;
    if ((by_bias || condenser_shared_by_use(r)) && (E == 1 || all_run)) {
        return fail(err,
                    "--routing condenser: found %s, so that phase 1 leaves nothing to choose "
                    "condensers by; %s or --bias-file expected",
                    E == 1 ? "one expert in a layer"
                           : "--bias-usage count where a token runs all experts",
                    option);
    }
    if (!by_bias || r->bias_rate > 0) return true;
    return fail(err,
                "--bias-rate: 0, but the condensers are chosen by the bias of phase 1; above 0, "
                "or --bias-file expected");
}

// A bias that is there takes the place of phase 1, so that the choice can be made here and now.
static bool bias_chooses(const struct routing_options *r, const struct model_config *c,
                         struct error *err)
{
    struct condensers set = {0};
    const bool named = r->condenser_experts || r->source.experts;
    if (!r->bias_file && !bias_source_readable(&r->source)) return true;
    float *bias =
        r->bias_file ? bias_file_read(r->bias_file, c, err) : bias_source_read(&r->source, c, err);
    if (!bias) return false;
    const bool ok = named ||
                    condenser_choose(&set, r, c, bias, bias + c->n_layers * c->n_experts, err) ||
                    fail_in(err, "%s", r->bias_file ? r->bias_file : r->source.dir);
    condensers_free(&set);
    mem_free(bias);
    return ok;
}

static bool exclude(const struct routing_options *r, struct error *err)
{
    const bool thirds = r->condenser_thirds, total = r->condenser_total > 0;
    if (thirds && total) {
        return fail(err, "--condenser-thirds and --condenser-total exclude each other");
    }
    if (r->condenser_experts && (thirds || total)) {
        return fail(err, "%s and %s exclude each other", option,
                    thirds ? "--condenser-thirds" : "--condenser-total");
    }
    return true;
}

bool condenser_check(const struct routing_options *r, const struct model_config *c,
                     struct error *err)
{
    struct condensers set = {0};
    if (r->bias_rate < 0 || r->phase2_rate < 0) {
        return fail(err, "%s: %g, at least 0 expected",
                    r->bias_rate < 0 ? "--bias-rate" : "--phase2-rate",
                    r->bias_rate < 0 ? r->bias_rate : r->phase2_rate);
    }
    if (!exclude(r, err)) return false;
    bool ok = true;
    if (r->condenser_experts || r->source.experts) {
        const bool readable = r->source.experts_file || r->source.checkpoint;
        if (r->condenser_experts || readable) ok = condensers_named(&set, r, c, err);
    } else {
        ok = (r->condenser_total > 0 ? total_fits(r, c, err) : counts_fit(r, c, err)) &&
             phase1_can_choose(r, c, err);
    }
    condensers_free(&set);
    return ok && bias_chooses(r, c, err);
}
