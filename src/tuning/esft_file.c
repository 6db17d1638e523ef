// tuning/esft_file.c - expert_cfg.json, as the released ESFT has it:
//   {"experts": {"<layer>": [ids]}, "shared_experts": bool, "non_expert_modules": bool}
#include "tuning/esft.h"

#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_LIMIT = 1 << 26 };

static bool check_keys(const json_t *file, const char *path, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)file, key, value)
    {
        if (!strcmp(key, "experts") || !strcmp(key, "shared_experts") ||
            !strcmp(key, "non_expert_modules")) {
            continue;
        }
        return fail(err,
                    "%s: key '%s'; experts, shared_experts and non_expert_modules are expected",
                    path, key);
    }
    return true;
}

static bool read_layer_number(int64_t *l, const char *key, const char *path,
                              const struct model_config *c, struct error *err)
{
    const size_t digits = strspn(key, "0123456789");
    const bool plain = digits && digits < 10 && !key[digits] && (*key != '0' || digits == 1);
    *l = plain ? strtoll(key, NULL, 10) : -1;
    if (*l < 0 || *l >= c->n_layers) {
        return fail(err, "%s: layer '%s'; 0 to %" PRId64 " expected", path, key, c->n_layers - 1);
    }
    return c->moe_layer[*l] ||
           fail(err, "%s: layer %" PRId64 " has no experts in this model", path, *l);
}

static bool read_expert(struct esft_selection *s, int64_t l, const json_t *x, const char *path,
                        struct error *err)
{
    int32_t *expert = s->expert + l * s->experts;
    const int64_t e = json_is_integer(x) ? json_integer_value(x) : -1;
    if (e < 0 || e >= s->experts) {
        char *found = json_text(x, JSON_ENCODE_ANY | JSON_COMPACT);
        fail(err, "%s: layer %" PRId64 ": expert %.60s; 0 to %" PRId64 " expected", path, l,
             found ? found : "?", s->experts - 1);
        mem_free(found);
        return false;
    }
    for (int64_t i = 0; i < s->count[l]; i++) {
        if (expert[i] != e) continue;
        return fail(err, "%s: layer %" PRId64 " names expert %" PRId64 " twice", path, l, e);
    }
    expert[s->count[l]++] = (int32_t)e;
    return true;
}

static bool read_layers(struct esft_selection *s, const json_t *layers, const char *path,
                        const struct model_config *c, struct error *err)
{
    const char *key;
    json_t *list;
    json_object_foreach((json_t *)(uintptr_t)layers, key, list)
    {
        int64_t l;
        if (!read_layer_number(&l, key, path, c, err)) return false;
        if (!json_is_array(list)) {
            return fail(err, "%s: layer %" PRId64 ": a list of experts expected", path, l);
        }
        s->count[l] = 0;
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (!read_expert(s, l, json_array_get(list, i), path, err)) return false;
        }
    }
    return true;
}

static bool read_file(struct esft_selection *s, const json_t *file, const char *path,
                      const struct model_config *c, struct error *err)
{
    const json_t *layers = json_object_get(file, "experts");
    if (!json_is_object(layers)) {
        return fail(err, "%s: no object 'experts' of layers and their experts", path);
    }
    return check_keys(file, path, err) && read_layers(s, layers, path, c, err) &&
           json_get_bool(file, "shared_experts", false, &s->shared_experts, path, err) &&
           json_get_bool(file, "non_expert_modules", false, &s->non_expert_modules, path, err);
}

bool esft_selection_read(struct esft_selection *s, const char *path, const struct model_config *c,
                         struct error *err)
{
    json_t *file = json_parse_file(path, FILE_LIMIT, err);
    if (!file) return false;
    const bool ok =
        esft_selection_open(s, c->n_layers, c->n_experts, err) && read_file(s, file, path, c, err);
    json_decref(file);
    if (!ok) esft_selection_close(s);
    return ok;
}

bool esft_selection_write(const struct esft_selection *s, const char *path, struct error *err)
{
    json_t *layers = json_object();
    bool built = layers != NULL;
    for (int64_t l = 0; l < s->layers; l++) {
        char key[32];
        if (s->count[l] < 0) continue;
        json_t *list = json_array();
        for (int64_t i = 0; i < s->count[l]; i++) {
            built &= json_array_append_new(list, json_integer(s->expert[l * s->experts + i])) == 0;
        }
        snprintf(key, sizeof key, "%" PRId64, l);
        built &= json_object_set_new(layers, key, list) == 0;
    }
    json_t *all = json_pack("{s:o, s:b, s:b}", "experts", layers, "shared_experts",
                            s->shared_experts, "non_expert_modules", s->non_expert_modules);
    const bool ok =
        all && built ? json_write_file(path, all, err) : fail(err, "%s: no memory", path);
    json_decref(all);
    return ok;
}
