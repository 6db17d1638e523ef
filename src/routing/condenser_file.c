// routing/condenser_file.c - the chosen experts in the files of the released ExpertCondenser code.
#include "routing/condenser_choice.h"

#include "base/file.h"
#include "base/mem.h"
#include "routing/layer_key.h"

#include <inttypes.h>

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
    const json_t *number = json_object_get(value, "num_forced_experts");
    if (!json_is_array(list) || (int64_t)json_array_size(list) > r->c->n_experts) {
        return fail(err, "%s: layer %" PRId64 ": a list of at most %" PRId64 " experts expected",
                    r->where, l, r->c->n_experts);
    }
    if (total && json_integer_value(total) != r->c->n_experts) {
        return fail(err,
                    "%s: layer %" PRId64 ": total_experts is %" PRId64 ", the model has %" PRId64,
                    r->where, l, (int64_t)json_integer_value(total), r->c->n_experts);
    }
    if (number && json_integer_value(number) != (json_int_t)json_array_size(list)) {
        return fail(err,
                    "%s: layer %" PRId64 ": num_forced_experts is %" PRId64 ", %zu experts named",
                    r->where, l, (int64_t)json_integer_value(number), json_array_size(list));
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

// Takes `records`, which may be NULL after a failure.
static bool take_records(struct condensers *s, json_t *records, const char *where,
                         const struct model_config *c, struct error *err)
{
    struct reader r = {s, c, where};
    condensers_free(s);
    const bool ok = records && layer_entries_visit(records, c, where, read_layer, &r, err);
    json_decref(records);
    if (!ok) condensers_free(s);
    return ok;
}

bool condensers_read(struct condensers *s, const char *path, const struct model_config *c,
                     struct error *err)
{
    return take_records(s, experts_records_read(path, err), path, c, err);
}

bool condensers_read_from(struct condensers *s, const struct routing_source *from, char *where,
                          const struct model_config *c, struct error *err)
{
    return take_records(s, routing_source_experts(from, where, err), where, c, err);
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
    char path[SOURCE_PATH], key[64];
    if (!path_join(path, sizeof path, dir, experts_records_name, err)) return false;
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
