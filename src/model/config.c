// model/config.c - config.json into struct model_config by a family's row: every key is honoured, refused
// by its name, known to be harmless, or warned about.
#include "model/config.h"

#include "base/log.h"
#include "base/mem.h"
#include "io/folders.h"
#include "io/json.h"
#include "model/family.h"
#include "model/remote.h"
#include "model/rope.h"
#include "tuning/tuning.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_LIMIT = 16 << 20 };

struct reader {
    json_t *root;
    const struct family *family;
    struct model_config *config;
    const char *where;
    struct error *err;
};

static bool read_field(struct reader *r, const struct config_field *f)
{
    char *at = (char *)r->config + f->offset;
    if (f->kind == FIELD_SIZE) {
        return json_get_int(r->root, f->key, (int64_t)f->min, (int64_t)f->max, f->required,
                            (int64_t *)(void *)at, r->where, r->err);
    }
    if (f->kind == FIELD_REAL) {
        double value = (double)*(float *)(void *)at;
        const bool ok =
            json_get_real(r->root, f->key, f->min, f->max, f->required, &value, r->where, r->err);
        *(float *)(void *)at = (float)value;
        return ok;
    }
    if (f->kind == FIELD_FLAG) {
        return json_get_bool(r->root, f->key, f->required, (bool *)(void *)at, r->where, r->err);
    }
    return true;
}

static bool is_off(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
    case JSON_FALSE:
        return true;
    case JSON_INTEGER:
        return json_integer_value(value) == 0;
    case JSON_REAL:
        return fabs(json_real_value(value)) <= 0;
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_OBJECT:
        return json_object_size(value) == 0;
    default:
        return false;
    }
}

static bool read_fields(struct reader *r, const struct config_field *f)
{
    for (; f->key; f++) {
        const json_t *value = json_object_get(r->root, f->key);
        if (f->kind == FIELD_OFF && value && !is_off(value)) {
            return fail(r->err, "%s: %s is set, and it is not implemented for %s", r->where, f->key,
                        r->family->architecture);
        }
        if (!read_field(r, f)) return false;
    }
    return true;
}

static bool has_key(const struct config_field *f, const char *key)
{
    while (f->key && strcmp(f->key, key) != 0) {
        f++;
    }
    return f->key;
}

static void warn_of_unknown(const struct reader *r)
{
    const char *key;
    json_t *value;
    json_object_foreach(r->root, key, value)
    {
        if (has_key(common_fields, key) || has_key(r->family->fields, key)) continue;
        log_warning("%s: %s is not read: %s has no such field", r->where, key,
                    r->family->architecture);
    }
}

// architectures names the class, model_type the configuration's; they must agree, and one is enough.
static bool find_family(struct reader *r)
{
    const char *type = NULL;
    if (!json_get_text(r->root, "model_type", false, &type, r->where, r->err)) return false;
    const json_t *list = json_object_get(r->root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (list && !json_is_null(list) && (json_array_size(list) != 1 || !name)) {
        return fail(r->err, "%s: architectures: expected an array of one name", r->where);
    }
    r->family = name ? family_by_architecture(name) : type ? family_by_model_type(type) : NULL;
    if (!r->family) {
        return fail(r->err, "%s: architecture %.100s is not known, expected one of %s", r->where,
                    name   ? name
                    : type ? type
                           : "(neither architectures nor model_type)",
                    family_architectures());
    }
    if (type && strcmp(type, r->family->model_type) != 0) {
        return fail(r->err, "%s: model_type %.100s, %s expects %s", r->where, type,
                    r->family->architecture, r->family->model_type);
    }
    return true;
}

static bool check_activation(const struct reader *r)
{
    const char *act = "silu";
    if (!json_get_text(r->root, "hidden_act", false, &act, r->where, r->err)) return false;
    if (!strcmp(act, "silu") || !strcmp(act, "swish")) return true; // two names of one function
    return fail(r->err, "%s: hidden_act %.100s is not implemented, expected silu", r->where, act);
}

// Missing: the class's default; null, or no default: as many as heads.
static bool read_kv_heads(struct reader *r)
{
    struct model_config *c = r->config;
    const json_t *value = json_object_get(r->root, "num_key_value_heads");
    if (c->n_kv_heads == 0 || json_is_null(value)) c->n_kv_heads = c->n_heads;
    if (!json_get_int(r->root, "num_key_value_heads", 1, c->n_heads, false, &c->n_kv_heads,
                      r->where, r->err)) {
        return false;
    }
    if (c->n_kv_heads <= c->n_heads && c->n_heads % c->n_kv_heads == 0) return true;
    return fail(r->err,
                "%s: num_key_value_heads %" PRId64 " does not divide num_attention_heads %" PRId64,
                r->where, c->n_kv_heads, c->n_heads);
}

static bool read_head_dim(struct reader *r)
{
    struct model_config *c = r->config;
    if (c->head_dim == 0) c->head_dim = c->width / c->n_heads;
    if (c->head_dim == 0 || c->head_dim % 2 != 0) {
        return fail(r->err, "%s: head_dim %" PRId64 ", expected an even number for the rotation",
                    r->where, c->head_dim);
    }
    const int64_t rows = c->n_heads * c->head_dim; // both at most 2^24
    if (rows > 1 << 24) {
        return fail(r->err,
                    "%s: num_attention_heads x head_dim is %" PRId64 ", at most %d expected",
                    r->where, rows, 1 << 24);
    }
    if (c->qk_norm != QK_NORM_FULL || rows == c->width) return true;
    return fail(r->err,
                "%s: num_attention_heads %" PRId64 " x head_dim %" PRId64
                " is not hidden_size %" PRId64 ", over which %s normalises queries",
                r->where, c->n_heads, c->head_dim, c->width, r->family->architecture);
}

// An id, or (eos_token_id) an array of ids: all go to stop_ids, the first to *id. null: none.
static bool read_id(const json_t *root, const char *key, int64_t *id, struct model_config *c,
                    const char *where, struct error *err)
{
    const json_t *value = json_object_get(root, key);
    if (!value) return true;
    *id = -1;
    const bool list = c && json_is_array(value);
    const size_t n = list ? json_array_size(value) : json_is_null(value) ? 0 : 1;
    if (n > MAX_STOP_IDS) return fail(err, "%s: %s: more than %d ids", where, key, MAX_STOP_IDS);
    if (c) c->n_stop_ids = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = list ? json_array_get(value, i) : value;
        const int64_t x = json_integer_value(item);
        if (!json_is_integer(item) || x < -1 || x > INT32_MAX) {
            return fail(err, "%s: %s: expected a token id%s", where, key,
                        c ? " or an array of them" : "");
        }
        if (i == 0) *id = x;
        if (c && x >= 0) c->stop_ids[c->n_stop_ids++] = x;
    }
    return true;
}

static bool read_ids(struct reader *r)
{
    struct model_config *c = r->config;
    if (c->eos_id >= 0) c->stop_ids[c->n_stop_ids++] = c->eos_id; // the class's default
    return read_id(r->root, "eos_token_id", &c->eos_id, c, r->where, r->err) &&
           read_id(r->root, "bos_token_id", &c->bos_id, NULL, r->where, r->err) &&
           read_id(r->root, "pad_token_id", &c->pad_id, NULL, r->where, r->err);
}

// layer_types: full_attention, or where a window may narrow a layer sliding_attention.
static bool read_layer_types(const struct reader *r, const json_t *list)
{
    struct model_config *c = r->config;
    const bool may = r->family->window == WINDOW_LAYERS;
    if (json_array_size(list) != (size_t)c->n_layers) {
        return fail(r->err, "%s: layer_types: expected an array of num_hidden_layers names",
                    r->where);
    }
    for (size_t l = 0; l < json_array_size(list); l++) {
        const char *type = json_string_value(json_array_get(list, l));
        const bool sliding = may && type && !strcmp(type, "sliding_attention");
        if (sliding && !c->window) {
            return fail(r->err, "%s: layer_types: sliding_attention, and no sliding_window is set",
                        r->where);
        }
        if (!sliding && (!type || strcmp(type, "full_attention") != 0)) {
            return fail(r->err, "%s: layer_types: %.100s is not implemented, expected %s", r->where,
                        type ? type : "no name",
                        may ? "full_attention or sliding_attention" : "full_attention");
        }
        if (may) c->window_layer[l] = sliding;
    }
    return true;
}

// sliding_window: missing, the class's default; null, none.
static bool read_window_size(struct reader *r)
{
    bool on = r->family->window == WINDOW_ALWAYS;
    if (r->family->window > WINDOW_ALWAYS &&
        !json_get_bool(r->root, "use_sliding_window", false, &on, r->where, r->err)) {
        return false;
    }
    const json_t *value = json_object_get(r->root, "sliding_window");
    if (!on || (value && json_is_null(value))) r->config->window = 0;
    return !on || json_get_int(r->root, "sliding_window", 1, INT32_MAX, false, &r->config->window,
                               r->where, r->err);
}

static bool read_window(struct reader *r)
{
    struct model_config *c = r->config;
    const bool by_layer = r->family->window == WINDOW_LAYERS;
    int64_t first = 28; // max_window_layers of the classes that have it
    if (!read_window_size(r)) return false;
    if (by_layer && !json_get_int(r->root, "max_window_layers", 0, INT32_MAX, false, &first,
                                  r->where, r->err)) {
        return false;
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        c->window_layer[l] = c->window > 0 && (!by_layer || l >= first);
    }
    const json_t *list = json_object_get(r->root, "layer_types");
    if (list && !json_is_null(list) && !read_layer_types(r, list)) return false;
    bool any = false;
    for (int64_t l = 0; l < c->n_layers; l++) {
        any |= c->window_layer[l];
    }
    if (!any) c->window = 0;
    return true;
}

// A layer l is sparse if (l + 1) % decoder_sparse_step == 0 and it is not in mlp_only_layers.
static bool read_layers(struct reader *r)
{
    struct model_config *c = r->config;
    const bool chosen = r->family->mlp == MLP_CHOSEN;
    int64_t step = 1;
    if (chosen && !json_get_int(r->root, "decoder_sparse_step", 1, INT32_MAX, false, &step,
                                r->where, r->err)) {
        return false;
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        c->moe_layer[l] = c->n_experts > 0 && (l + 1) % step == 0;
    }
    const json_t *only = json_object_get(r->root, "mlp_only_layers");
    if (!chosen || !only || json_is_null(only)) return true;
    if (!json_is_array(only))
        return fail(r->err, "%s: mlp_only_layers: expected an array", r->where);
    for (size_t i = 0; i < json_array_size(only); i++) {
        const json_t *item = json_array_get(only, i);
        const int64_t l = json_integer_value(item);
        if (!json_is_integer(item)) {
            return fail(r->err, "%s: mlp_only_layers: expected layers' numbers", r->where);
        }
        if (l >= 0 && l < c->n_layers) c->moe_layer[l] = false; // others name no layer
    }
    return true;
}

static bool check_mlp(const struct reader *r)
{
    const struct model_config *c = r->config;
    bool any_moe = false, any_dense = false;
    for (int64_t l = 0; l < c->n_layers; l++) {
        any_moe |= c->moe_layer[l];
        any_dense |= !c->moe_layer[l];
    }
    if (any_dense && r->family->mlp == MLP_SPARSE) {
        return fail(r->err, "%s: num_experts: found nothing, expected an integer from 1 to %d",
                    r->where, MAX_EXPERTS);
    }
    if (any_dense && c->dense_width == 0) {
        return fail(r->err, "%s: intermediate_size: found nothing, and there are dense layers",
                    r->where);
    }
    if (!any_moe || c->experts_per_tok <= c->n_experts) return true;
    return fail(r->err, "%s: num_experts_per_tok %" PRId64 " of num_experts %" PRId64, r->where,
                c->experts_per_tok, c->n_experts);
}

// All weights of one kind and layer together fit 2^50 elements, so that no size computed from the shape
// overflows.
static bool check_total(const struct reader *r)
{
    const struct model_config *c = r->config;
    const int64_t limit = (int64_t)1 << 50;
    const int64_t widest = c->expert_width > c->shared_width ? c->expert_width : c->shared_width;
    const int64_t F = widest > c->dense_width ? widest : c->dense_width;
    const int64_t E = c->n_experts > 1 ? c->n_experts : 1;
    if (c->vocab * c->width <= limit && c->width * F <= limit / (2 * E)) return true;
    return fail(r->err,
                "%s: hidden_size %" PRId64 ", widths to %" PRId64 " and %" PRId64
                " experts make tensors of more than 2^50 elements",
                r->where, c->width, F, E);
}

static void warn_of_training(const struct reader *r)
{
    bool router_logits = false;
    json_get_bool(r->root, "output_router_logits", false, &router_logits, r->where, NULL);
    if (router_logits) {
        log_warning(
            "%s: output_router_logits is set: transformers would add the auxiliary loss; here "
            "the routing decides",
            r->where);
    }
    if (r->config->attention_dropout > 0) {
        log_warning("%s: attention_dropout %g is not applied in training", r->where,
                    (double)r->config->attention_dropout);
    }
    const json_t *code = json_object_get(r->root, "auto_map");
    if (code && !is_off(code) && !remote_is_ours(code)) {
        log_warning(
            "%s: auto_map: the folder's own Python code is not run; the model is taken to be "
            "%s as transformers has it",
            r->where, r->family->architecture);
    }
}

static bool read_config(struct reader *r)
{
    if (!find_family(r)) return false;
    assert(r->family);
    *r->config = r->family->defaults;
    snprintf(r->config->architecture, sizeof r->config->architecture, "%s",
             r->family->architecture);
    const bool ok = read_fields(r, common_fields) && read_fields(r, r->family->fields) &&
                    check_activation(r) && read_kv_heads(r) && read_head_dim(r) &&
                    rope_read(r->config, r->root, r->where, r->err) && read_ids(r) &&
                    read_window(r) && read_layers(r) && check_mlp(r) && check_total(r);
    if (!ok) return false;
    warn_of_training(r);
    warn_of_unknown(r);
    return true;
}

bool family_parse_config(const struct family **family, struct model_config *c, const char *text,
                         size_t size, const char *where, struct error *err)
{
    json_t *root = json_parse(text, size, where, err);
    if (!root) return false;
    struct reader r = {.root = root, .config = c, .where = where, .err = err};
    const bool ok = json_is_object(root) ? read_config(&r) : fail(err, "%s: not an object", where);
    json_decref(root);
    *family = r.family;
    return ok;
}

// generation_config.json, where there is one, says what ends a text.
static bool read_generation_config(struct model_config *c, const char *dir, struct error *err)
{
    char path[4096];
    if (!path_join(path, sizeof path, dir, "generation_config.json", err)) return false;
    if (!file_exists(path)) return true;
    json_t *root = json_parse_file(path, CONFIG_LIMIT, err);
    if (!root) return false;
    int64_t first;
    const json_t *eos = json_object_get(root, "eos_token_id");
    const bool ok = json_is_object(root) ? !eos || json_is_null(eos) ||
                                               read_id(root, "eos_token_id", &first, c, path, err)
                                         : fail(err, "%s: not an object", path);
    json_decref(root);
    return ok;
}

bool family_read_config_file(const struct family **family, struct model_config *c, const char *path,
                             struct error *err)
{
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, CONFIG_LIMIT, err)) return false;
    const bool ok = family_parse_config(family, c, text, size, path, err);
    mem_free(text);
    return ok;
}

static bool not_a_model(const char *dir, struct error *err)
{
    const struct tuning *t;
    struct tuning_options unused = {0};
    return folder_is_no_model(dir, tuning_of_adapter(&t, &unused, dir, NULL), err);
}

bool family_read_config(const struct family **family, struct model_config *c, const char *dir,
                        struct error *err)
{
    char path[4096];
    return path_join(path, sizeof path, dir, "config.json", err) &&
           (file_exists(path) || not_a_model(dir, err)) &&
           family_read_config_file(family, c, path, err) && read_generation_config(c, dir, err);
}
