// tuning/low_rank_load.c - the pairs of an adapter's file: which banks have one, of what rank and alpha, and in
// which of peft's two layouts. One by one, a pair of tensors a module; or fused, as peft writes adapters of
// transformers 5's fused experts: A of all experts one above the other (E*r, in), B side by side with the
// expert as the fastest index (out, r*E), gate and up in one B over a common A.
#include "tuning/low_rank.h"

#include "base/file.h"
#include "base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <inttypes.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 3 * NAME_MAX_LENGTH, PATH_SIZE = 4096, FILE_LIMIT = 64 << 20 };
// Steps of one match: names are short, and each expression meets every module, so that one which goes back and forth
// must not take a second each time.
enum { MATCH_STEPS = 20000 };

// The file and its adapter_config.json.
struct reading {
    struct tuning_state *st;
    const struct tuning_input *in;
    char path[PATH_SIZE]; // of the config
    json_t *config;
};

// Does a regular expression, behind any parents if `inside`, match all of a module's name?
static bool match(bool *yes, const struct reading *r, const char *regex, bool inside,
                  const char *name, struct error *err)
{
    struct buf text = {0};
    int code = 0;
    PCRE2_SIZE at = 0;
    bool ok = buf_printf(&text, "%s(?:%s)", inside ? "(?:.*\\.)?" : "", regex) ||
              fail(err, "%s: no memory", r->path);
    pcre2_code *re = NULL;
    if (ok) {
        re = pcre2_compile((PCRE2_SPTR)text.data, text.size, PCRE2_ANCHORED | PCRE2_ENDANCHORED,
                           &code, &at, NULL);
        ok = re ||
             fail(err, "%s: '%s' is not a regular expression that is known here", r->path, regex);
    }
    pcre2_match_data *data = re ? pcre2_match_data_create_from_pattern(re, NULL) : NULL;
    pcre2_match_context *limits = re ? pcre2_match_context_create(NULL) : NULL;
    if (ok && !(data && limits)) ok = fail(err, "%s: no memory", r->path);
    if (ok) {
        pcre2_set_match_limit(limits, MATCH_STEPS);
        code = pcre2_match(re, (PCRE2_SPTR)name, strlen(name), 0, 0, data, limits);
        *yes = code >= 0;
        ok = code >= 0 || code == PCRE2_ERROR_NOMATCH ||
             fail(err, "%s: '%s' takes too long", r->path, regex);
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    buf_free(&text);
    return ok;
}

// rank_pattern or alpha_pattern: the first expression that matches the module, or its weight where that was the
// target, decides.
static bool look_up(double *out, const struct reading *r, const char *patterns, const char *name,
                    struct error *err)
{
    const char *regex;
    json_t *value;
    char weight[NAME_MAX_LENGTH + 16];
    snprintf(weight, sizeof weight, "%s.weight", name);
    json_object_foreach(json_object_get(r->config, patterns), regex, value)
    {
        bool yes = false;
        if (!match(&yes, r, regex, true, name, err) ||
            (!yes && !match(&yes, r, regex, true, weight, err))) {
            return false;
        }
        if (!yes) continue;
        *out = json_number_value(value);
        return (*out >= low_rank_least_alpha && *out <= low_rank_most_alpha) ||
               fail(err, "%s: %s: '%s': a number from %g to %g expected", r->path, patterns, regex,
                    low_rank_least_alpha, low_rank_most_alpha);
    }
    return true;
}

static const struct st_entry *find(const struct reading *r, const char *module, const char *tensor)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s%s.%s", r->in->prefix, module, tensor);
    return safetensors_find(r->in->adapter, name);
}

// Rank and alpha that the config gives to `name`, whose A has `rows` rows.
static bool settle(double *alpha, const struct reading *r, const char *name, int64_t rows,
                   struct error *err)
{
    double rank = (double)r->in->options->lora_rank;
    *alpha = r->in->options->lora_alpha;
    if (!look_up(&rank, r, "rank_pattern", name, err) ||
        !look_up(alpha, r, "alpha_pattern", name, err)) {
        return false;
    }
    return rank == (double)rows ||
           fail(err, "%s: rank %g for %s, but its lora_A has %" PRId64 " rows", r->path, rank, name,
                rows);
}

static bool add_one_by_one(struct reading *r, int64_t bank, bool *found, struct error *err)
{
    const struct bank *b = r->in->bank[bank];
    int64_t rank = 0;
    double alpha = 0;
    for (int64_t g = 0; g < b->groups; g++) {
        char module[NAME_MAX_LENGTH];
        double own = 0;
        bank_module(module, b, g);
        const struct st_entry *a = find(r, module, "lora_A.weight");
        if (!a) continue; // all or none: what is missing is found missing when values are read
        if (!settle(&own, r, module, a->shape[0], err)) return false;
        if (rank && (a->shape[0] != rank || own != alpha)) {
            return fail(err, "%s: %s has another rank or alpha than other experts of its layer",
                        r->path, module);
        }
        rank = a->shape[0], alpha = own;
    }
    *found = rank > 0;
    if (rank) low_rank_add(r->st, r->in, bank, rank, alpha);
    return true;
}

// Where a fused tensor's adapter may lie: its module, or within another that was put around that one.
static bool add_fused(struct reading *r, int64_t bank, bool *found, struct error *err)
{
    static const char *const inner[] = {".base_layer", ""};
    const struct bank *b = r->in->bank[bank];
    const char *dot = strrchr(b->fused, '.');
    for (int i = 0; dot && i < 2; i++) {
        char module[NAME_MAX_LENGTH + 16];
        snprintf(module, sizeof module, "%.*s%s", (int)(dot - b->fused), b->fused, inner[i]);
        const struct st_entry *a = find(r, module, "lora_A.weight");
        const struct st_entry *o = find(r, module, "lora_B.weight");
        double alpha = 0;
        if (!a || !o || a->rank != 2 || o->rank != 2 || a->shape[0] % b->groups != 0 ||
            a->shape[1] != b->in || o->shape[0] != b->fused_parts * b->out ||
            o->shape[1] != a->shape[0] || !a->known || !o->known) {
            continue;
        }
        if (r->st->dora) {
            return fail(err, "%s: DoRA over the fused tensor %s is not known here", r->path,
                        b->fused);
        }
        const int64_t rank = a->shape[0] / b->groups;
        if (!settle(&alpha, r, b->fused, rank, err)) return false;
        struct pair *p = low_rank_add(r->st, r->in, bank, rank, alpha);
        p->from[0] = a, p->from[1] = o;
        *found = true;
        return true;
    }
    return true;
}

// Does target_modules, a list of names or of their ends, or one regular expression, name the module?
static bool is_target(bool *yes, const struct reading *r, const char *module, struct error *err)
{
    size_t i;
    json_t *entry;
    const json_t *targets = json_object_get(r->config, "target_modules");
    if (json_is_string(targets))
        return match(yes, r, json_string_value(targets), false, module, err);
    json_array_foreach(targets, i, entry)
    {
        const char *end = json_string_value(entry);
        const size_t n = end ? strlen(end) : 0, length = strlen(module);
        if (!n || n > length || strcmp(module + length - n, end) != 0) continue;
        *yes |= n == length || module[length - n - 1] == '.';
    }
    return true;
}

// A module that the config names and the file has nothing of.
static bool nothing_lost(const struct reading *r, const struct bank *b, struct error *err)
{
    bool yes = false;
    char module[NAME_MAX_LENGTH];
    bank_module(module, b, 0);
    if (!is_target(&yes, r, module, err)) return false;
    return !yes || fail(err, "%s: %s is one of target_modules, but %s%s.lora_A.weight is missing",
                        r->path, module, r->in->prefix, module);
}

static bool is_given(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return value && !json_is_null(value);
}

bool low_rank_find_pairs(struct tuning_state *st, const struct tuning_input *in, struct error *err)
{
    struct reading r = {.st = st, .in = in};
    if (!path_join(r.path, sizeof r.path, in->adapter_dir, "adapter_config.json", err) ||
        !(r.config = json_parse_file(r.path, FILE_LIMIT, err))) {
        return false;
    }
    const bool some = is_given(r.config, "layers_to_transform") ||
                      is_given(r.config, "exclude_modules"); // of the targets: the file says which
    bool ok = true;
    for (int64_t i = 0; ok && i < in->n_banks; i++) {
        bool found = false;
        if (!in->bank[i]->projection) continue; // all_used refuses those of routers and gates
        ok = add_one_by_one(&r, i, &found, err) && (found || add_fused(&r, i, &found, err));
        ok = ok && (found || some || nothing_lost(&r, in->bank[i], err));
    }
    if (ok && !st->n_pairs) ok = fail(err, "%s: no pair for any projection", in->adapter->path);
    json_decref(r.config);
    return ok;
}

static bool is_float(const struct st_entry *e)
{
    return e->tensor.dtype == DTYPE_F32 || e->tensor.dtype == DTYPE_BF16 ||
           e->tensor.dtype == DTYPE_F16;
}

// B of group g, row n, column k lies at row part * out + n, column k * E + g.
static void take_fused_b(float *out, const struct pair *p)
{
    const struct bank *b = p->bank;
    const struct tensor all = p->from[1]->tensor;
    const int64_t G = b->groups, N = b->out, r = p->rank, width = r * G;
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < width; i++) {
            const int64_t at = (b->fused_part * N + n) * width + i, k = i / G, g = i % G;
            dtype_convert(&out[(g * N + n) * r + k], DTYPE_F32,
                          (const char *)all.data + (size_t)at * dtype_size(all.dtype), all.dtype,
                          1);
        }
    }
}

bool low_rank_load_fused(struct pair *p, struct error *err)
{
    if (!p->from[0]) return true;
    for (int i = 0; i < 2; i++) {
        if (!is_float(p->from[i])) return fail(err, "%s: no floats", p->from[i]->name);
    }
    const size_t bytes = tensor_bytes(p->b.value);
    float *b = mem_alloc(bytes);
    if (!b) return fail(err, "%s: no memory", p->from[1]->name);
    take_fused_b(b, p);
    p->all->ops->upload(p->b.value.data, b, bytes);
    p->all->ops->convert(p->a.value, p->from[0]->tensor);
    mem_free(b);
    return true;
}
