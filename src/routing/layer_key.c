// routing/layer_key.c - see layer_key.h.
#include "routing/layer_key.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *skip(const char *text, const char *prefix)
{
    const size_t n = strlen(prefix);
    return strncmp(text, prefix, n) ? NULL : text + n;
}

int64_t layer_key_parse(const char *key)
{
    const char *rest = skip(key, "base_model.model.");
    rest = skip(rest ? rest : key, "model.layers.");
    if (!rest || *rest < '0' || *rest > '9') return -1;
    int64_t n = 0;
    for (; *rest >= '0' && *rest <= '9' && n < MAX_LAYERS; rest++) {
        n = n * 10 + (*rest - '0');
    }
    return n < MAX_LAYERS && (!strcmp(rest, ".mlp") || !strcmp(rest, ".mlp.gate")) ? n : -1;
}

void layer_key_write(char *out, size_t size, int64_t layer)
{
    snprintf(out, size, "model.layers.%" PRId64 ".mlp", layer);
}

bool layer_entries_visit(const json_t *object, const struct model_config *c, const char *where,
                         layer_entry fn, void *user, struct error *err)
{
    bool seen[MAX_LAYERS] = {0};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const int64_t l = layer_key_parse(key);
        if (l < 0 || l >= c->n_layers || !c->moe_layer[l]) {
            return fail(err, "%s: '%s' is not an MoE layer of this model", where, key);
        }
        if (seen[l]) return fail(err, "%s: layer %" PRId64 " is there twice", where, l);
        seen[l] = true;
        if (!fn(user, l, value, err)) return false;
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (c->moe_layer[l] && !seen[l]) {
            return fail(err,
                        "%s: layer %" PRId64 " is missing; every MoE layer of the model expected",
                        where, l);
        }
    }
    return true;
}
