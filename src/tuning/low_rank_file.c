// tuning/low_rank_file.c - adapter_config.json as peft writes and reads it. What would change a result and is
// not implemented is refused by name; and what peft cannot do with an adapter of ours is said when it is
// written (docs/FORMATS.md, "An adapter's folder").
#include "tuning/low_rank.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PATH_SIZE = 4096, FILE_LIMIT = 64 << 20 };
static const char config_file[] = "adapter_config.json";
static const char about_file[] = "moetune_adapter.json"; // model/adapter.c

// ---- reading

// Fields of peft's LoraConfig that may have any value: honoured, or without effect on loaded values.
static const char *const known[] = {"r",
                                    "lora_alpha",
                                    "lora_dropout",
                                    "use_rslora",
                                    "use_dora",
                                    "rank_pattern",
                                    "alpha_pattern",
                                    "target_modules",
                                    "target_parameters",
                                    "modules_to_save",
                                    "layers_to_transform",
                                    "layers_pattern",
                                    "exclude_modules",
                                    "peft_type",
                                    "peft_version",
                                    "task_type",
                                    "auto_mapping",
                                    "base_model_name_or_path",
                                    "revision",
                                    "inference_mode",
                                    "bias",
                                    "init_lora_weights",
                                    "megatron_core",
                                    "loftq_config",
                                    "eva_config",
                                    "corda_config",
                                    "lora_ga_config",
                                    "velora_config",
                                    "qalora_group_size",
                                    "runtime_config",
                                    "ensure_weight_tying"};

static bool is_known(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!strcmp(known[i], key)) return true;
    }
    return false;
}

static bool is_off(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_object(v) && !json_object_size(v)) ||
           (json_is_array(v) && !json_array_size(v));
}

// Values that need more than A, B and the base as it is: a pair that was taken out of the base first.
static bool check_initial(const json_t *config, const char *path, struct error *err)
{
    static const char *const moved[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    const char *init = json_string_value(json_object_get(config, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof moved / sizeof *moved; i++) {
        if (strncmp(init, moved[i], strlen(moved[i])) != 0) continue;
        return fail(
            err,
            "%s: init_lora_weights '%s' changes the base: let peft convert the adapter to a "
            "plain one (path_initial_model_for_weight_conversion)",
            path, init);
    }
    return true;
}

static bool check_fields(json_t *config, const char *path, struct error *err)
{
    const char *key, *bias = "none";
    json_t *value;
    json_object_foreach(config, key, value)
    {
        if (is_known(key) || is_off(value)) continue;
        return fail(err, "%s: %s is not implemented", path, key);
    }
    if (!json_get_text(config, "bias", false, &bias, path, err)) return false;
    if (strcmp(bias, "none") != 0) {
        return fail(err, "%s: bias '%s' is not implemented; 'none' expected", path, bias);
    }
    return check_initial(config, path, err);
}

static bool read_config(struct tuning_options *r, bool *dora, json_t *config, const char *path,
                        struct error *err)
{
    const char *type;
    if (!json_get_text(config, "peft_type", true, &type, path, err)) return false;
    if (strcmp(type, "LORA") != 0) {
        return fail(err, "%s: peft_type '%s' is not implemented; 'LORA' expected", path, type);
    }
    r->lora_alpha = 8; // peft's defaults
    r->lora_dropout = 0;
    r->lora_rank = 8;
    r->lora_rslora = *dora = false;
    return json_get_int(config, "r", 1, 1 << 20, false, &r->lora_rank, path, err) &&
           json_get_real(config, "lora_alpha", low_rank_least_alpha, low_rank_most_alpha, false,
                         &r->lora_alpha, path, err) &&
           json_get_real(config, "lora_dropout", 0, 0.99, false, &r->lora_dropout, path, err) &&
           json_get_bool(config, "use_rslora", false, &r->lora_rslora, path, err) &&
           json_get_bool(config, "use_dora", false, dora, path, err) &&
           check_fields(config, path, err);
}

// The dropout of the run, where peft's file could not say it.
static bool read_about(struct tuning_options *r, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    if (!path_join(path, sizeof path, dir, about_file, err)) return false;
    if (!file_exists(path)) return true;
    json_t *about = json_parse_file(path, FILE_LIMIT, err);
    if (!about) return false;
    const bool ok =
        json_get_real(about, "lora_dropout", 0, 0.99, false, &r->lora_dropout, path, err);
    json_decref(about);
    return ok;
}

bool low_rank_read(bool *mine, struct tuning_options *r, bool dora, const char *dir,
                   struct error *err)
{
    char path[PATH_SIZE];
    bool uses_dora = false;
    *mine = false;
    if (!path_join(path, sizeof path, dir, config_file, err)) return false;
    if (!file_exists(path)) return true;
    json_t *config = json_parse_file(path, FILE_LIMIT, err);
    if (!config) return false;
    struct tuning_options found = *r;
    bool ok = read_config(&found, &uses_dora, config, path, err);
    json_decref(config);
    if (!ok || uses_dora != dora) return ok;
    *mine = true;
    *r = found;
    return read_about(r, dir, err);
}

// ---- writing

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

// The modules of one name ("down_proj") in the model.
struct namesakes {
    bool experts, others;         // there are such
    bool all, all_of_the_experts; // have a pair
};

static struct namesakes namesakes_of(const struct tuning_input *in, const struct bank *b)
{
    struct namesakes n = {.all = true, .all_of_the_experts = true};
    for (int64_t i = 0; i < in->n_banks; i++) {
        const struct bank *x = in->bank[i];
        const bool expert = x->part == PART_EXPERT;
        if (strcmp(last_part(x->name), last_part(b->name)) != 0) continue;
        n.experts |= expert;
        n.others |= !expert;
        n.all &= x->adapter != NULL;
        n.all_of_the_experts &= x->adapter || !expert;
    }
    return n;
}

// peft under transformers 5 takes a name that the experts have for their fused tensor; a module of that name
// elsewhere (a shared expert, a dense layer) it reaches as a parameter only, which it cannot with DoRA.
static bool is_parameter(const struct pair *p, const struct namesakes *n)
{
    return n->experts && p->bank->part != PART_EXPERT && !p->all->dora;
}

struct lists { // of the config
    json_t *modules, *parameters, *ranks, *alphas, *save;
};

static bool append(json_t *list, const char *name)
{
    size_t i;
    json_t *there;
    json_array_foreach(list, i, there)
    {
        if (!strcmp(json_string_value(there), name)) return true;
    }
    return json_array_append_new(list, json_string(name)) == 0;
}

// Where the word in front of a group's number begins: "experts.7.down_proj" ends the name in every layer.
static size_t before_group(const char *name)
{
    const char *star = strchr(name, '*');
    size_t at = 0;
    for (size_t i = 0; star && i + 2 < (size_t)(star - name); i++) {
        if (name[i] == '.') at = i + 1;
    }
    return at;
}

// Names as short as they can be without naming other modules.
static bool add_target(const struct lists *l, const struct pair *p, const struct namesakes *n)
{
    const struct bank *b = p->bank;
    char name[NAME_MAX_LENGTH + 8], module[NAME_MAX_LENGTH];
    if (is_parameter(p, n)) {
        snprintf(name, sizeof name, "%s.weight", b->name);
        return append(l->parameters, name);
    }
    if (n->all && (p->all->dora || !(n->experts && n->others))) {
        return append(l->modules, last_part(b->name));
    }
    const size_t skipped = n->all_of_the_experts ? before_group(b->name) : 0;
    bool ok = true;
    for (int64_t g = 0; ok && g < b->groups; g++) {
        bank_module(module, b, g);
        ok = append(l->modules, module + skipped);
    }
    return ok;
}

// A rank or alpha that is not the config's own.
static bool add_pattern(const struct lists *l, const char *regex, int64_t rank, double alpha,
                        const struct pair *usual)
{
    const bool other = alpha < usual->alpha || alpha > usual->alpha;
    return (rank == usual->rank || json_object_set_new(l->ranks, regex, json_integer(rank)) == 0) &&
           (!other || json_object_set_new(l->alphas, regex, json_real(alpha)) == 0);
}

// The fused tensor of transformers 5: peft puts the ranks of its parts one after another, which keeps alpha
// over (the root of) the rank only if alpha is said anew. In parentheses, which sort in front of the pattern
// that peft has of its own for it when it saves what it loaded.
static bool add_fused(const struct lists *l, const struct pair *p, const struct pair *usual,
                      const struct tuning_input *in)
{
    const struct bank *b = p->bank;
    int64_t rank = 0;
    if (b->part != PART_EXPERT || !*b->fused) return true;
    for (int64_t i = 0; i < in->n_banks; i++) {
        const struct pair *x = in->bank[i]->adapter;
        if (x && !strcmp(in->bank[i]->fused, b->fused)) rank += x->rank;
    }
    const double times = (double)rank / (double)p->rank;
    const double alpha = p->alpha * (p->all->rslora ? sqrt(times) : times);
    char regex[NAME_MAX_LENGTH + 16];
    snprintf(regex, sizeof regex, "(%s)", b->fused);
    return append(l->parameters, b->fused) && add_pattern(l, regex, rank, alpha, usual);
}

static bool add_pair(const struct lists *l, const struct pair *p, const struct pair *usual,
                     const struct tuning_input *in)
{
    const struct bank *b = p->bank;
    const struct namesakes n = namesakes_of(in, b);
    const char *star = strchr(b->name, '*');
    char regex[NAME_MAX_LENGTH + 16];
    if (star) {
        snprintf(regex, sizeof regex, "%.*s\\d+%s", (int)(star - b->name), b->name, star + 1);
    } else {
        snprintf(regex, sizeof regex, "%s%s", b->name, is_parameter(p, &n) ? "(\\.weight)?" : "");
    }
    return add_target(l, p, &n) && add_pattern(l, regex, p->rank, p->alpha, usual) &&
           add_fused(l, p, usual, in);
}

static bool is_saved(const struct weight *w)
{
    return w->leaf >= 0 || w->brought;
}

// Can peft replace the module of a whole weight? It needs all of the module's tensors.
static bool is_module_saved(const struct tuning_input *in, const struct weight *w, size_t length)
{
    if (w->part == PART_EXPERT || (w->bank && w->bank->adapter)) return false;
    for (int64_t i = 0; i < in->weights->count; i++) {
        const struct weight *x = &in->weights->weight[i];
        if (!strncmp(x->name, w->name, length + 1) && !is_saved(x)) return false;
    }
    return true;
}

// modules_to_save. *unread: a weight in the file that peft does not read, NULL: none.
static bool add_whole(json_t *modules, const char **unread, const struct tuning_input *in)
{
    bool ok = true;
    *unread = NULL;
    for (int64_t i = 0; ok && i < in->weights->count; i++) {
        const struct weight *w = &in->weights->weight[i];
        const size_t length = (size_t)(last_part(w->name) - w->name) - 1;
        char module[NAME_MAX_LENGTH];
        if (!is_saved(w)) continue;
        if (!is_module_saved(in, w, length)) {
            *unread = w->name;
            continue;
        }
        snprintf(module, sizeof module, "%.*s", (int)length, w->name);
        ok = append(modules, module);
        if (!*w->other) continue;
        snprintf(module, sizeof module, "%.*s", (int)(last_part(w->other) - w->other) - 1,
                 w->other);
        ok = ok && append(modules, module);
    }
    return ok;
}

// What decides how peft can read the pairs of experts.
static void look_at_experts(bool *any, bool *half, const struct tuning_state *st,
                            const struct tuning_input *in)
{
    *any = *half = false;
    for (int64_t i = 0; i < st->n_pairs; i++) {
        const struct bank *b = st->pair[i].bank;
        int64_t parts = 0;
        if (b->part != PART_EXPERT) continue;
        *any = true;
        for (int64_t k = 0; k < in->n_banks; k++) {
            parts += in->bank[k]->adapter && !strcmp(in->bank[k]->fused, b->fused);
        }
        *half |= *b->fused && parts < b->fused_parts;
    }
}

static void say_limits(const struct tuning_state *st, bool experts, bool half, bool wrapped,
                       const char *unread)
{
    static const char merge[] = "; `moetune merge` gives a model that every program loads";
    if (experts && st->dora) {
        log_warning(
            "the adapter: DoRA on experts loads in peft under transformers 4, not under 5%s",
            merge);
    } else if (half) {
        log_warning(
            "the adapter: pairs of the experts' gate without up, or up without gate, load in "
            "peft under transformers 4, not under 5%s",
            merge);
    } else if (wrapped && st->dropout > 0) {
        log_info("the adapter: its %s says lora_dropout 0, the only one that peft under "
                 "transformers 5 takes "
                 "where experts are fused; %s keeps %g",
                 config_file, about_file, (double)st->dropout);
    }
    if (unread) {
        log_warning(
            "the adapter: %s learnt whole where peft has no module of its own; peft does not "
            "read it%s",
            unread, merge);
    }
}

static json_t *number(double x)
{
    const bool whole = x >= -1e9 && x <= 1e9 && !(floor(x) < x);
    return whole ? json_integer((json_int_t)x) : json_real(x);
}

static json_t *or_null(json_t *list)
{
    return json_array_size(list) ? json_incref(list) : json_null();
}

static json_t *make_config(const struct tuning_state *st, const struct tuning_input *in,
                           const struct lists *l, double dropout)
{
    const struct pair *usual = &st->pair[0];
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:I, s:o, s:o, s:O, s:O, s:o, s:o, s:o}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", in->dir, "bias",
        "none", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "use_rslora",
        st->rslora, "use_dora", st->dora, "r", (json_int_t)usual->rank, "lora_alpha",
        number(usual->alpha), "lora_dropout", number(dropout), "rank_pattern", l->ranks,
        "alpha_pattern", l->alphas, "target_modules", or_null(l->modules), "target_parameters",
        or_null(l->parameters), "modules_to_save", or_null(l->save));
}

bool low_rank_write(const struct tuning_state *st, const struct tuning_input *in, const char *dir,
                    struct error *err)
{
    char path[PATH_SIZE];
    const char *unread = NULL;
    bool experts, half;
    struct lists l = {json_array(), json_array(), json_object(), json_object(), json_array()};
    bool ok = path_join(path, sizeof path, dir, config_file, err);
    bool room = l.modules && l.parameters && l.ranks && l.alphas && l.save;
    look_at_experts(&experts, &half, st, in);
    for (int64_t i = 0; room && i < st->n_pairs; i++) {
        room = add_pair(&l, &st->pair[i], &st->pair[0], in);
    }
    room = room && add_whole(l.save, &unread, in);
    const bool wrapped = room && json_array_size(l.parameters) > 0; // by peft, as parameters
    json_t *config = room ? make_config(st, in, &l, wrapped ? 0 : in->options->lora_dropout) : NULL;
    if (ok && !config) ok = fail(err, "%s: no memory", path);
    ok = ok && json_write_file(path, config, err);
    if (ok) say_limits(st, experts, half, wrapped, unread);
    json_decref(config);
    json_decref(l.modules), json_decref(l.parameters), json_decref(l.ranks);
    json_decref(l.alphas), json_decref(l.save);
    return ok;
}

bool low_rank_describe(const struct tuning_state *st, const struct tuning_input *in, json_t *about,
                       struct error *err)
{
    (void)st;
    const int failed =
        json_object_set_new(about, "lora_dropout", json_real(in->options->lora_dropout));
    return !failed || fail(err, "no memory for %s", about_file);
}
