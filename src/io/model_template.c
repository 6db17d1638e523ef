// io/model_template.c - see model_template.h: finding and opening the template, giving it its variables as
// `transformers` does, and the segments of what it writes. Which words are an assistant's is found in
// model_template_turns.c.
#include "io/model_template.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/json.h"
#include "io/model_template_parts.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONFIG_LIMIT = 64 << 20, SOURCE_LIMIT = 16 << 20 };

static bool config_open(json_t **root, const char *dir, const char *name, struct error *err)
{
    char path[4096];
    *root = NULL;
    if (!path_join(path, sizeof path, dir, name, err)) return false;
    if (!file_exists(path)) return true;
    *root = json_parse_file(path, CONFIG_LIMIT, err);
    return *root != NULL;
}

static bool jinja_path(char path[4096], const char *dir, const char *name, bool *there,
                       struct error *err)
{
    if (!path_join(path, 4096, dir, name, err)) return false;
    *there = file_exists(path);
    return true;
}

bool model_template_exists(bool *found, const char *model_dir, struct error *err)
{
    char path[4096];
    json_t *root;
    if (!jinja_path(path, model_dir, "chat_template.jinja", found, err)) return false;
    if (*found) return true;
    if (!config_open(&root, model_dir, "tokenizer_config.json", err)) return false;
    const json_t *v = json_object_get(root, "chat_template");
    *found = v && !json_is_null(v);
    json_decref(root);
    return true;
}

static bool open_file(struct jinja **out, const char *path, struct error *err)
{
    char *source;
    size_t size;
    if (!file_read(&source, &size, path, SOURCE_LIMIT, err)) return false;
    *out = jinja_parse(path, source, size, NULL, err);
    mem_free(source);
    return *out != NULL;
}

static bool open_text(struct model_template *t, const char *name, const json_t *source,
                      const char *where, struct error *err)
{
    char place[4400];
    if (!json_is_string(source))
        return fail(err, "%s: chat_template: expected a text for '%.60s'", where, name);
    struct jinja **to = strcmp(name, "default") == 0    ? &t->usual
                        : strcmp(name, "tool_use") == 0 ? &t->with_tools
                                                        : NULL;
    struct buf names = {0};
    if (!buf_printf(&names, "%s%s%s", t->names ? t->names : "", t->names ? ", " : "", name)) {
        return fail(err, "%s: out of memory", where);
    }
    mem_free(t->names);
    t->names = names.data;
    if (!to) return true;
    if (*to) return fail(err, "%s: chat_template: two of the name '%s'", where, name);
    snprintf(place, sizeof place, "%.4000s: chat_template%s%s", where, to == &t->usual ? "" : " ",
             to == &t->usual ? "" : name);
    *to = jinja_parse(place, json_string_value(source), json_string_length(source), NULL, err);
    return *to != NULL;
}

// A text, an array of {"name", "template"}, or an object of names.
static bool open_value(struct model_template *t, const json_t *v, const char *where,
                       struct error *err)
{
    const char *key;
    json_t *item;
    if (json_is_string(v)) return open_text(t, "default", v, where, err);
    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, key, item)
        {
            if (!open_text(t, key, item, where, err)) return false;
        }
        return true;
    }
    if (!json_is_array(v))
        return fail(err, "%s: chat_template: expected a text or a list of named ones", where);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (!name)
            return fail(err, "%s: chat_template[%zu]: expected an object with a name", where, i);
        if (!open_text(t, name, json_object_get(one, "template"), where, err)) return false;
    }
    return true;
}

static bool open_sources(struct model_template *t, const char *dir, struct error *err)
{
    char path[4096];
    bool there;
    if (!jinja_path(path, dir, "chat_template.jinja", &there, err)) return false;
    if (there) {
        if (!open_file(&t->usual, path, err)) return false;
        if (!jinja_path(path, dir, "additional_chat_templates/tool_use.jinja", &there, err))
            return false;
        return !there || open_file(&t->with_tools, path, err);
    }
    json_t *root;
    if (!path_join(path, sizeof path, dir, "tokenizer_config.json", err)) return false;
    if (!config_open(&root, dir, "tokenizer_config.json", err)) return false;
    const json_t *v = json_object_get(root, "chat_template");
    const bool ok =
        v && !json_is_null(v)
            ? open_value(t, v, path, err)
            : fail(err,
                   "template model: %s has no chat_template, and there is no chat_template.jinja",
                   path);
    json_decref(root);
    return ok;
}

// The named special tokens, which are variables of the template where the model has them.
static bool read_tokens(struct model_template *t, const char *dir, struct error *err)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    t->tokens = json_object();
    if (!t->tokens) return fail(err, "%s: out of memory", dir);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        json_t *root;
        if (!config_open(&root, dir, files[f], err)) return false;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            json_t *v = json_object_get(root, names[i]);
            if (json_is_object(v)) v = json_object_get(v, "content");
            if (json_is_string(v) && !json_object_get(t->tokens, names[i]))
                json_object_set(t->tokens, names[i], v);
        }
        json_decref(root);
    }
    return json_whole() || fail(err, "%s: out of memory", dir);
}

// Which added tokens the templates write: those whose text stands in a source.
static bool read_written(struct model_template *t, const char *dir,
                         const struct tokenizer *tokenizer, struct error *err)
{
    struct buf all = {0};
    char path[4096];
    bool there, ok = true;
    if (!jinja_path(path, dir, "chat_template.jinja", &there, err)) return false;
    if (there) {
        char *source;
        size_t size;
        ok = file_read(&source, &size, path, SOURCE_LIMIT, err);
        if (!ok) return false;
        ok = buf_append(&all, source, size) || fail(err, "%s: out of memory", dir);
        mem_free(source);
    } else {
        json_t *root;
        ok = config_open(&root, dir, "tokenizer_config.json", err);
        char *text = ok ? json_text(json_object_get(root, "chat_template"), JSON_ENCODE_ANY) : NULL;
        ok = ok && ((text && buf_puts(&all, text)) || fail(err, "%s: out of memory", dir));
        mem_free(text);
        json_decref(root);
    }
    if (ok) t->written = tokenizer_written(tokenizer, all.data ? all.data : "");
    buf_free(&all);
    return ok && (t->written || fail(err, "%s: out of memory", dir));
}

// SOURCE_DATE_EPOCH pins the date for who must have the same text twice.
static int64_t time_of_day(void)
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    return epoch && *epoch ? strtoll(epoch, NULL, 10) : (int64_t)time(NULL);
}

struct model_template *model_template_open(const char *model_dir, const struct tokenizer *t,
                                           struct error *err)
{
    struct model_template *m = mem_zalloc(1, sizeof *m);
    if (!m) {
        fail(err, "%s: out of memory", model_dir);
        return NULL;
    }
    m->now = time_of_day();
    if (open_sources(m, model_dir, err) && read_tokens(m, model_dir, err) &&
        read_written(m, model_dir, t, err))
        return m;
    model_template_close(m);
    return NULL;
}

void model_template_close(struct model_template *m)
{
    if (!m) return;
    jinja_free(m->usual);
    jinja_free(m->with_tools);
    json_decref(m->tokens);
    mem_free(m->names);
    mem_free(m->written);
    mem_free(m);
}

// ---- variables

// A turn as `transformers` hands it on: without keys that are null (nor `mask`, which is ours), and the
// reasoning under each of its names.
static json_t *turn_json(const struct message *m)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *out = json_object(), *reasoning = NULL;
    const char *key;
    json_t *value;
    if (!m->json) {
        const bool more = m->input && *m->input;
        json_object_set_new(out, "role", json_string(m->role));
        json_object_set_new(
            out, "content",
            json_sprintf("%s%s%s", m->content, more ? "\n" : "", more ? m->input : ""));
        return out;
    }
    for (int i = 2; i >= 0; i--) {
        json_t *v = json_object_get(m->json, names[i]);
        if (v && !json_is_null(v)) reasoning = v;
    }
    if (reasoning) json_object_set(out, "thinking", reasoning);
    json_object_foreach((json_t *)m->json, key, value)
    {
        if (!json_is_null(value) && strcmp(key, "mask") != 0) json_object_set(out, key, value);
    }
    if (reasoning) json_object_set(out, "reasoning_content", reasoning);
    return out;
}

enum { VARIABLES = 64 };

static int64_t add_object(struct jinja_variable *v, int64_t n, const json_t *object,
                          enum jinja_origin origin)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (n < VARIABLES) v[n++] = (struct jinja_variable){key, value, origin};
    }
    return n;
}

bool turns_render(const struct turns *c, int64_t count, bool generate, struct jinja_text *out,
                  struct error *err)
{
    struct jinja_variable v[VARIABLES];
    json_t *some = json_array(), *flag = json_boolean(generate);
    for (int64_t i = 0; i < count; i++) {
        json_array_append(some, json_array_get(c->json, (size_t)i));
    }
    if (!json_whole()) {
        json_decref(some);
        out->no_memory = true;
        return fail(err, "out of memory");
    }
    int64_t n = add_object(v, 0, c->t->tokens, JINJA_FROM_TEMPLATE);
    v[n++] = (struct jinja_variable){"messages", some, JINJA_FROM_MESSAGES};
    v[n++] = (struct jinja_variable){"tools", json_object_get(c->conversation, "tools"),
                                     JINJA_FROM_DATA};
    v[n++] = (struct jinja_variable){"documents", json_object_get(c->conversation, "documents"),
                                     JINJA_FROM_DATA};
    v[n++] = (struct jinja_variable){"add_generation_prompt", flag, JINJA_FROM_TEMPLATE};
    n = add_object(v, n, json_object_get(c->conversation, "chat_template_kwargs"), JINJA_FROM_DATA);
    const bool ok = jinja_render(c->template, out, v, n, c->t->now, err);
    json_decref(some);
    return ok;
}

// ---- segments

static bool add_segment(struct segments *s, const struct jinja_text *text, size_t start, size_t end,
                        struct segment g)
{
    struct segment *grown = array_grow(s->segment, s->count, &s->capacity, sizeof *grown);
    if (!grown) return false;
    s->segment = grown;
    g.text = mem_strndup(text->bytes + start, end - start);
    if (!g.text) return false;
    s->segment[s->count++] = g;
    return true;
}

// What is known of one byte; `region` moves on with it.
static struct segment segment_at(const struct turns *c, const struct jinja_text *text,
                                 const struct regions *r, int64_t *region, size_t at)
{
    while (*region < r->count && at >= r->at[*region].end) {
        (*region)++;
    }
    const bool answer = *region < r->count && at >= r->at[*region].start;
    const uint16_t from = text->origin[at];
    struct segment g = {.answer = answer, .special = from == 0, .message = -1};
    if (from && from != JINJA_DATA) g.message = from - 1;
    const bool assistant = g.message >= 0 && strcmp(c->message[g.message].role, "assistant") == 0;
    g.guard = !from ? 0 : assistant ? 1 : 2;
    if (answer) g.message = r->at[*region].message;
    g.learn = answer && c->message[g.message].mask != 1;
    return g;
}

static bool same(const struct segment *a, const struct segment *b)
{
    return a->answer == b->answer && a->guard == b->guard && a->special == b->special &&
           a->message == b->message;
}

static bool make_segments(struct segments *out, const struct turns *c,
                          const struct jinja_text *text, const struct regions *r)
{
    int64_t region = 0;
    size_t start = 0;
    struct segment now = {0};
    out->whole = true;
    out->written = c->t->written;
    for (size_t at = 0; at < text->size; at++) {
        const struct segment next = segment_at(c, text, r, &region, at);
        if (at && !same(&now, &next)) {
            if (!add_segment(out, text, start, at, now)) return false;
            start = at;
        }
        now = next;
    }
    return start == text->size || add_segment(out, text, start, text->size, now);
}

static bool choose(struct turns *c, struct error *err)
{
    const json_t *tools = json_object_get(c->conversation, "tools");
    const bool has_tools = tools && !json_is_null(tools);
    c->template = has_tools && c->t->with_tools ? c->t->with_tools : c->t->usual;
    if (c->template) return true;
    return fail(err, "the model has several chat templates (%s), but none is called default",
                c->t->names ? c->t->names : "");
}

bool model_template_render(struct model_template *t, struct segments *out, const struct message *m,
                           int64_t n, bool generate, struct error *err)
{
    struct turns c = {.t = t,
                      .message = m,
                      .n = n,
                      .json = json_array(),
                      .conversation = n ? m[0].conversation : NULL};
    struct jinja_text text = {0};
    struct regions regions = {0};
    bool ok = c.json || fail(err, "out of memory");
    for (int64_t i = 0; ok && i < n; i++) {
        json_array_append_new(c.json, turn_json(&m[i]));
    }
    ok = ok && (json_whole() || fail(err, "out of memory"));
    ok = ok && choose(&c, err) && turns_render(&c, n, generate, &text, err);
    // A prompt has no words to learn.
    ok = ok && (generate || regions_find(&regions, &c, &text, err));
    ok = ok && (make_segments(out, &c, &text, &regions) || fail(err, "out of memory"));
    mem_free(regions.at);
    jinja_text_free(&text);
    json_decref(c.json);
    return ok;
}
