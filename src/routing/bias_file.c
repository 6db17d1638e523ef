// routing/bias_file.c - moe_bias_states.json in the layout of the released ExpertCondenser code, with the
// use summed over the phase beside the bias. Values are printed so that float32 comes back exactly.
#include "routing/bias_state.h"

#include "base/file.h"
#include "base/mem.h"
#include "routing/layer_key.h"

#include <inttypes.h>
#include <math.h>

// JSON has no word for what is not finite: json_real gives NULL, and nothing is appended.
static json_t *array_of(const struct bias_state *s, struct tensor t, bool *finite)
{
    float *values = json_buffer(tensor_bytes(t));
    json_t *array = json_array();
    if (values) s->ops->download(values, t.data, tensor_bytes(t));
    for (int64_t e = 0; values && e < s->n_experts; e++) {
        *finite &= isfinite(values[e]) != 0;
        json_array_append_new(array, json_real((double)values[e]));
    }
    mem_free(values);
    return array;
}

static json_t *layer_object(const struct bias_state *s, const struct bias_layer *l, bool *finite)
{
    return json_pack("{s:o, s:o, s:f, s:I, s:s, s:s, s:s}", "bias_values",
                     array_of(s, l->b, finite), "usage_sums", array_of(s, l->phase, finite),
                     "bias_update_speed", fabs((double)s->step), "num_experts",
                     (json_int_t)s->n_experts, "module_type", "SparseMoeBlock", "device",
                     s->ops->name, "dtype", "torch.float32");
}

bool bias_state_save(const struct bias_state *s, const char *dir, const char *model_type,
                     struct error *err)
{
    char path[SOURCE_PATH], key[64];
    if (!path_join(path, sizeof path, dir, bias_states_name, err)) return false;
    json_t *states = json_object();
    int64_t layers = 0;
    bool built = states != NULL, finite = true;
    for (int64_t l = 0; l < s->n_layers; l++) {
        if (!s->layer[l].moe) continue;
        layer_key_write(key, sizeof key, l);
        built &= json_object_set_new(states, key, layer_object(s, &s->layer[l], &finite)) == 0;
        layers++;
        if (finite) continue;
        json_decref(states);
        return fail(err,
                    "layer %" PRId64 ": the bias, or the experts' use that moves it, is not "
                    "finite, which is not saved",
                    l);
    }
    // No time of day: two runs write the same bytes.
    json_t *all = json_pack("{s:{s:I, s:s, s:s}, s:o}", "metadata", "total_moe_layers",
                            (json_int_t)layers, "save_timestamp", "not recorded", "model_type",
                            model_type, "moe_bias_states", states);
    if (!all || !built) {
        json_decref(all);
        return fail(err, "%s: no memory", path);
    }
    const bool ok = json_write_file(path, all, err);
    json_decref(all);
    return ok;
}

struct reader {
    const struct model_config *c;
    const char *where;
    float *bias, *usage; // (L,E)
};

static bool read_array(const struct reader *r, float *into, const json_t *layer, const char *name,
                       int64_t l, struct error *err)
{
    const json_t *array = json_object_get(layer, name);
    const int64_t E = r->c->n_experts;
    if (!json_is_array(array) || (int64_t)json_array_size(array) != E) {
        return fail(
            err, "%s: layer %" PRId64 ": %s: %zu values, an array of %" PRId64 " numbers expected",
            r->where, l, name, json_array_size(array), E);
    }
    for (int64_t e = 0; e < E; e++) {
        const json_t *x = json_array_get(array, (size_t)e);
        const float value = (float)json_number_value(x);
        if (!json_is_number(x) || !isfinite(value)) {
            return fail(err, "%s: layer %" PRId64 ": %s[%" PRId64 "]: a finite number expected",
                        r->where, l, name, e);
        }
        into[l * E + e] = value;
    }
    return true;
}

static bool read_layer(void *user, int64_t l, const json_t *value, struct error *err)
{
    const struct reader *r = user;
    const json_t *experts = json_object_get(value, "num_experts");
    if (!json_is_object(value)) {
        return fail(err, "%s: layer %" PRId64 ": an object expected", r->where, l);
    }
    if (experts && json_integer_value(experts) != r->c->n_experts) {
        return fail(err,
                    "%s: layer %" PRId64 ": num_experts is %" PRId64 ", the model has %" PRId64,
                    r->where, l, (int64_t)json_integer_value(experts), r->c->n_experts);
    }
    if (!read_array(r, r->bias, value, "bias_values", l, err)) return false;
    return !json_object_get(value, "usage_sums") ||
           read_array(r, r->usage, value, "usage_sums", l, err);
}

// Takes `states`, which may be NULL after a failure.
static float *values_of(json_t *states, const char *where, const struct model_config *c,
                        struct error *err)
{
    const size_t n = (size_t)(c->n_layers * c->n_experts);
    float *values = states ? mem_zalloc(2 * n, sizeof *values) : NULL;
    const struct reader r = {c, where, values, values ? values + n : NULL};
    const bool ok = states && (values || fail(err, "%s: no memory", where)) &&
                    layer_entries_visit(states, c, where, read_layer, (void *)(uintptr_t)&r, err);
    json_decref(states);
    if (ok) return values;
    mem_free(values);
    return NULL;
}

float *bias_file_read(const char *path, const struct model_config *c, struct error *err)
{
    return values_of(bias_states_read(path, err), path, c, err);
}

static bool take_values(struct bias_state *s, float *values, const struct model_config *c)
{
    if (!values) return false;
    const float *bias = values, *usage = bias + c->n_layers * c->n_experts;
    for (int64_t l = 0; l < c->n_layers; l++) {
        const struct bias_layer *x = &s->layer[l];
        if (!x->moe) continue;
        s->ops->upload(x->b.data, bias + l * c->n_experts, tensor_bytes(x->b));
        s->ops->upload(x->phase.data, usage + l * c->n_experts, tensor_bytes(x->phase));
    }
    mem_free(values);
    return true;
}

bool bias_state_load(struct bias_state *s, const char *path, const struct model_config *c,
                     struct error *err)
{
    return take_values(s, bias_file_read(path, c, err), c);
}

bool bias_source_readable(const struct routing_source *from)
{
    return from->bias && (from->bias_file || from->checkpoint);
}

float *bias_source_read(const struct routing_source *from, const struct model_config *c,
                        struct error *err)
{
    char where[SOURCE_PATH];
    json_t *states = routing_source_bias(from, where, err);
    return values_of(states, where, c, err);
}

bool bias_state_load_from(struct bias_state *s, const struct routing_source *from,
                          const struct model_config *c, struct error *err)
{
    return !from->bias || take_values(s, bias_source_read(from, c, err), c);
}
