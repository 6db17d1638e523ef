// routing/condenser_file.c - the chosen experts in the files of the released ExpertCondenser code.
#include "routing/condenser_choice.h"

#include "base/file.h"
#include "base/mem.h"
#include "routing/layer_key.h"

#include <inttypes.h>

enum { FILE_LIMIT = 1 << 28, PATH_SIZE = 4096 };

struct reader {
    struct condensers *s;
    const struct model_config *c;
    const char *where;
};

// {"forced_expert_indices": [..], ...} or [..]
static bool read_layer(void *user, int64_t l, const json_t *value, struct error *err)
{
    const struct reader *r = user;
    const json_t *list =
        json_is_object(value) ? json_object_get(value, "forced_expert_indices") : value;
    const json_t *total = json_object_get(value, "total_experts");
    if (!json_is_array(list) || (int64_t)json_array_size(list) > r->c->n_experts) {
        return fail(err, "%s: layer %" PRId64 ": a list of at most %" PRId64 " experts expected",
                    r->where, l, r->c->n_experts);
    }
    if (total && json_integer_value(total) != r->c->n_experts) {
        return fail(err,
                    "%s: layer %" PRId64 ": total_experts is %" PRId64 ", the model has %" PRId64,
                    r->where, l, (int64_t)json_integer_value(total), r->c->n_experts);
    }
    r->s->expert[l] = mem_alloc(json_array_size(list) * sizeof(int32_t));
    if (!r->s->expert[l]) return fail(err, "%s: no memory", r->where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *x = json_array_get(list, i);
        const int64_t e = json_is_integer(x) ? json_integer_value(x) : -1;
        if (!condensers_add(r->s, l, e, r->c, r->where, err)) return false;
    }
    return true;
}

bool condensers_read(struct condensers *s, const char *path, const struct model_config *c,
                     struct error *err)
{
    json_t *file = json_parse_file(path, FILE_LIMIT, err);
    if (!file) return false;
    const json_t *records = json_object_get(file, "forced_experts_records");
    if (!records) records = json_object_get(file, "forced_experts_mapping");
    if (!records) records = file;
    struct reader r = {s, c, path};
    condensers_free(s);
    const bool ok = json_is_object(records)
                        ? layer_entries_visit(records, c, path, read_layer, &r, err)
                        : fail(err, "%s: an object of layers expected", path);
    json_decref(file);
    if (!ok) condensers_free(s);
    return ok;
}

static json_t *layer_object(const struct condensers *s, int64_t l, int64_t E)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < s->count[l]; i++) {
        json_array_append_new(list, json_integer(s->expert[l][i]));
    }
    return json_pack("{s:o, s:I, s:I}", "forced_expert_indices", list, "num_forced_experts",
                     (json_int_t)s->count[l], "total_experts", (json_int_t)E);
}

bool condensers_write(const struct condensers *s, const char *dir, const struct model_config *c,
                      struct error *err)
{
    char path[PATH_SIZE], key[64];
    if (!path_join(path, sizeof path, dir, "forced_experts_records.json", err)) return false;
    json_t *records = json_object();
    int64_t layers = 0;
    bool built = records != NULL;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        layer_key_write(key, sizeof key, l);
        built &= json_object_set_new(records, key, layer_object(s, l, c->n_experts)) == 0;
        layers++;
    }
    json_t *all = json_pack("{s:{s:I, s:s}, s:o}", "metadata", "total_layers", (json_int_t)layers,
                            "timestamp", "not recorded", "forced_experts_records", records);
    const bool ok =
        (all && built) ? json_write_file(path, all, err) : fail(err, "%s: no memory", path);
    json_decref(all);
    return ok;
}
