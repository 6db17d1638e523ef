// routing/source.c - see source.h.
#include "routing/source.h"

#include "base/file.h"
#include "base/mem.h"
#include "routing/layer_key.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FILE_LIMIT = 1 << 28 };

const char routing_json_name[] = "routing.json";
const char bias_states_name[] = "moe_bias_states.json";
const char experts_records_name[] = "forced_experts_records.json";
const char condenser_gates_name[] = "condenser_gates.safetensors";

// As the released code looks for them; ours first.
static const char *const experts_files[] = {experts_records_name, "forced_experts_mapping.json",
                                            "forced_experts.json"};
// The keys under which it keeps the layers; without any, the file's own object is the short form.
static const char *const experts_keys[] = {"forced_experts_records", "forced_experts_mapping",
                                           "forced_experts", "experts"};
enum { EXPERTS_FILES = 3, EXPERTS_KEYS = 4 };

// A kind of tensor of the released checkpoints: PREFIX.NAME, PREFIX a layer's key.
struct state_tensor {
    const char *name, *entry; // entry: what the file of the same state calls the array
    bool integers;
};
static const struct state_tensor bias_tensor = {"bias", "bias_values", false};
static const struct state_tensor experts_tensor = {"forced_expert_indices", "forced_expert_indices",
                                                   true};

// The layer of a tensor of this kind, and its key; -1: it is none.
static int64_t layer_of(const struct state_tensor *kind, const char *tensor, char key[256])
{
    const char *dot = strrchr(tensor, '.');
    if (!dot || strcmp(dot + 1, kind->name) != 0 || dot - tensor >= 256) return -1;
    snprintf(key, 256, "%.*s", (int)(dot - tensor), tensor);
    return layer_key_parse(key);
}

// Experts of -1 stand for a choice that was not made yet.
static bool is_set(const struct state_tensor *kind, const struct st_entry *e)
{
    if (!kind->integers || !e->known || e->tensor.dtype != DTYPE_I64) return true;
    for (int64_t i = 0; i < tensor_count(e->tensor); i++) {
        if (((const int64_t *)e->tensor.data)[i] != -1) return true;
    }
    return false;
}

static bool has_tensors(const struct routing_source *s, const struct state_tensor *kind)
{
    char key[256];
    for (int64_t i = 0; s->checkpoint && i < checkpoint_tensors(s->checkpoint); i++) {
        const struct st_entry *e = checkpoint_at(s->checkpoint, i);
        if (layer_of(kind, e->name, key) >= 0 && is_set(kind, e)) return true;
    }
    return false;
}

// *name: the file's, or NULL where it is not there.
static bool look(const char **name, const char *dir, const char *file, struct error *err)
{
    char path[SOURCE_PATH];
    bool there = false;
    const bool ok = path_join(path, sizeof path, dir, file, err) && file_look(&there, path, err);
    *name = there ? file : NULL;
    return ok;
}

bool routing_source_find(struct routing_source *s, const char *dir, const struct checkpoint *c,
                         struct error *err)
{
    const char *gates;
    *s = (struct routing_source){.dir = dir, .checkpoint = c};
    if (!look(&s->bias_file, dir, bias_states_name, err)) return false;
    for (int i = 0; i < EXPERTS_FILES && !s->experts_file; i++) {
        if (!look(&s->experts_file, dir, experts_files[i], err)) return false;
    }
    s->bias = s->bias_file || has_tensors(s, &bias_tensor);
    s->experts = s->experts_file || has_tensors(s, &experts_tensor);
    if (!look(&gates, dir, condenser_gates_name, err)) return false;
    s->gates = gates != NULL;
    return true;
}

bool routing_source_owns_file(const char *name)
{
    for (int i = 0; i < EXPERTS_FILES; i++) {
        if (!strcmp(name, experts_files[i])) return true;
    }
    return !strcmp(name, routing_json_name) || !strcmp(name, bias_states_name) ||
           !strcmp(name, condenser_gates_name);
}

bool routing_source_owns_tensor(const char *name, const struct model_config *c)
{
    char key[256];
    int64_t l = layer_of(&bias_tensor, name, key);
    if (l < 0) l = layer_of(&experts_tensor, name, key);
    return l >= 0 && l < c->n_layers && c->moe_layer[l];
}

// Python writes NaN and Infinity, which are no JSON. They become empty strings, of the same length, so
// that the reader can say in which layer a number is missing.
static void replace_not_finite(char *text)
{
    static const char *const words[] = {"NaN", "-Infinity", "Infinity"};
    bool quoted = false;
    for (char *p = text; *p; p++) {
        if (*p == '\\' && quoted && p[1]) {
            p++;
        } else if (*p == '"') {
            quoted = !quoted;
        }
        for (int i = 0; !quoted && i < 3; i++) {
            const size_t n = strlen(words[i]);
            if (strncmp(p, words[i], n) != 0) continue;
            memset(p, ' ', n);
            p[0] = p[1] = '"';
            p += n - 1;
        }
    }
}

static json_t *read_json(const char *path, struct error *err)
{
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, FILE_LIMIT, err)) return NULL;
    replace_not_finite(text);
    json_t *file = json_parse(text, size, path, err);
    mem_free(text);
    return file;
}

// The layers of a file, of which its metadata may say how many there are.
static json_t *take_layers(json_t *file, json_t *layers, const char *count, const char *path,
                           struct error *err)
{
    const json_t *said = json_object_get(json_object_get(file, "metadata"), count);
    json_t *taken = NULL;
    if (!json_is_object(layers)) {
        fail(err, "%s: an object of layers expected", path);
    } else if (json_is_integer(said) &&
               (size_t)json_integer_value(said) != json_object_size(layers)) {
        fail(err, "%s: %zu layers, but %s says %" PRId64, path, json_object_size(layers), count,
             (int64_t)json_integer_value(said));
    } else {
        taken = json_incref(layers);
    }
    json_decref(file);
    return taken;
}

json_t *bias_states_read(const char *path, struct error *err)
{
    json_t *file = read_json(path, err);
    json_t *states = json_object_get(file, "moe_bias_states");
    if (!file) return NULL;
    if (states) return take_layers(file, states, "total_moe_layers", path, err);
    json_decref(file);
    fail(err, "%s: 'moe_bias_states' is missing", path);
    return NULL;
}

json_t *experts_records_read(const char *path, struct error *err)
{
    json_t *file = read_json(path, err);
    json_t *records = NULL;
    if (!file) return NULL;
    for (int i = 0; i < EXPERTS_KEYS && !records; i++) {
        records = json_object_get(file, experts_keys[i]);
    }
    return take_layers(file, records ? records : file, "total_layers", path, err);
}

static json_t *number_json(const struct tensor *t, int64_t i)
{
    const size_t size = dtype_size(t->dtype);
    const char *at = (const char *)t->data + (size_t)i * size;
    double value = 0;
    int64_t whole = 0;
    if (t->dtype == DTYPE_I64) memcpy(&whole, at, size);
    if (t->dtype == DTYPE_I64) return json_integer(whole);
    dtype_convert(&value, DTYPE_F64, at, t->dtype, 1);
    json_t *number = json_real(value);
    return number ? number : json_null(); // NaN: refused by who reads it
}

static json_t *entry_json(const struct state_tensor *kind, const struct st_entry *e,
                          const char *where, struct error *err)
{
    const bool integers = e->known && e->tensor.dtype == DTYPE_I64;
    const bool floats =
        e->known && (e->tensor.dtype == DTYPE_F32 || e->tensor.dtype == DTYPE_BF16 ||
                     e->tensor.dtype == DTYPE_F16 || e->tensor.dtype == DTYPE_F64);
    if (e->rank != 1 || !(kind->integers ? integers : floats)) {
        fail(err, "%s: tensor %s is %s of rank %d, a vector of %s expected", where, e->name,
             e->dtype_name, e->rank, kind->integers ? "I64" : "F32, BF16, F16 or F64");
        return NULL;
    }
    json_t *list = json_array();
    for (int64_t i = 0; i < tensor_count(e->tensor); i++) {
        json_array_append_new(list, number_json(&e->tensor, i));
    }
    json_t *entry = json_pack("{s:o}", kind->entry, list);
    if (!entry) fail(err, "%s: no memory", where);
    return entry;
}

static json_t *states_of_tensors(const struct routing_source *s, const struct state_tensor *kind,
                                 const char *where, struct error *err)
{
    char key[256];
    json_t *states = json_object();
    bool ok = states || fail(err, "%s: no memory", where);
    for (int64_t i = 0; ok && i < checkpoint_tensors(s->checkpoint); i++) {
        const struct st_entry *e = checkpoint_at(s->checkpoint, i);
        if (layer_of(kind, e->name, key) < 0) continue;
        json_t *entry = entry_json(kind, e, where, err);
        ok = entry &&
             (json_object_set_new(states, key, entry) == 0 || fail(err, "%s: no memory", where));
    }
    if (ok && (json_whole() || fail(err, "%s: no memory", where))) return states;
    json_decref(states);
    return NULL;
}

json_t *routing_source_bias(const struct routing_source *s, char *where, struct error *err)
{
    if (!path_join(where, SOURCE_PATH, s->dir, s->bias_file ? s->bias_file : "*.bias", err)) {
        return NULL;
    }
    return s->bias_file ? bias_states_read(where, err)
                        : states_of_tensors(s, &bias_tensor, where, err);
}

json_t *routing_source_experts(const struct routing_source *s, char *where, struct error *err)
{
    const char *name = s->experts_file ? s->experts_file : "*.forced_expert_indices";
    if (!path_join(where, SOURCE_PATH, s->dir, name, err)) return NULL;
    return s->experts_file ? experts_records_read(where, err)
                           : states_of_tensors(s, &experts_tensor, where, err);
}
