// io/tokenizer.c - see tokenizer.h: opening, and the way of a text through the parts.
#include "io/tokenizer.h"

#include "base/file.h"
#include "io/json.h"
#include "io/tokenizer_parts.h"

#include <string.h>

enum { LARGEST_FILE = 128 << 20 }; // the largest vocabularies take 35 MB

bool tokens_add(struct tokens *t, int32_t id)
{
    int32_t *grown = array_grow(t->id, t->count, &t->capacity, sizeof *grown);
    if (!grown) return false;
    t->id = grown;
    t->id[t->count++] = id;
    return true;
}

void tokens_free(struct tokens *t)
{
    mem_free(t->id);
    *t = (struct tokens){0};
}

// "truncation", "padding" and what "post_processor" puts around a text are not looked at: our callers
// ask for a text's own ids, as with add_special_tokens off and no_truncation and no_padding on.
static bool read_parts(struct tokenizer *t, json_t *root, const char *where, struct error *err)
{
    const char *version = "1.0";
    bool byte_level = false;
    if (!json_is_object(root)) return fail(err, "%s: no object", where);
    if (!json_get_text(root, "version", false, &version, where, err)) return false;
    if (strcmp(version, "1.0") != 0) {
        return fail(err, "%s: version \"%.40s\", expected \"1.0\"", where, version);
    }
    if (!normalizer_parse(&t->normalizer, json_object_get(root, "normalizer"), where, err) ||
        !pre_tokenizer_parse(&t->pre_tokenizer, &byte_level, json_object_get(root, "pre_tokenizer"),
                             where, err) ||
        !decoders_parse(&t->decoders, json_object_get(root, "decoder"), where, err) ||
        !bpe_open(&t->bpe, json_object_get(root, "model"), byte_level, where, err) ||
        !added_open(&t->added, json_object_get(root, "added_tokens"), t, where, err)) {
        return false;
    }
    t->size = t->added.size;
    return true;
}

struct tokenizer *tokenizer_parse(const char *json, size_t size, const char *where,
                                  struct error *err)
{
    json_t *root = json_parse(json, size, where, err);
    if (!root) return NULL;
    struct tokenizer *t = mem_zalloc(1, sizeof *t);
    const bool ok = t ? read_parts(t, root, where, err) : no_memory(err);
    json_decref(root);
    if (ok) return t;
    tokenizer_close(t);
    return NULL;
}

struct tokenizer *tokenizer_open(const char *model_dir, struct error *err)
{
    char path[4096];
    char *json;
    size_t size;
    if (!path_join(path, sizeof path, model_dir, "tokenizer.json", err)) return NULL;
    if (!file_read(&json, &size, path, LARGEST_FILE, err)) return NULL;
    struct tokenizer *t = tokenizer_parse(json, size, path, err);
    mem_free(json);
    return t;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    added_close(&t->added);
    bpe_close(&t->bpe);
    steps_close(&t->normalizer);
    steps_close(&t->pre_tokenizer);
    decoders_close(&t->decoders);
    mem_free(t);
}

// The guard of a stretch of the marked text.
static bool guard_of(struct added_guard *g, const struct encoder *e, const char *text, size_t size)
{
    *g = (struct added_guard){0};
    if (!e->marks) return false;
    g->of = e->marks->guard + (text - e->base);
    g->written = e->marks->written;
    return size > 0;
}

// The normalizer has moved bytes: what holds for one of them holds for all.
static void guard_as_one(struct added_guard *g, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        g->all = g->of[i] > g->all ? g->of[i] : g->all;
    }
    g->of = NULL;
}

// A stretch between added tokens as written: normalize it, look for the others, encode the rest.
bool stretch_encode(struct encoder *e, const char *text, size_t size, bool at_start)
{
    char *owned = NULL;
    const int64_t base = e->ranges.count;
    const size_t before_size = size;
    struct added_guard guard;
    const bool guarded = guard_of(&guard, e, text, size);
    bool ok = normalizer_run(&e->t->normalizer, &e->matcher, &text, &size, &owned, e->err);
    if (owned && guarded) guard_as_one(&guard, before_size);
    ok = ok && (added_split(&e->t->added, true, text, size, e->special, guarded ? &guard : NULL,
                            &e->ranges) ||
                no_memory(e->err));
    const int64_t end = e->ranges.count;
    for (int64_t i = base; ok && i < end; i++) {
        const struct range r = e->ranges.at[i];
        if (r.id >= 0) {
            ok = tokens_add(e->out, r.id) || no_memory(e->err);
        } else {
            ok = pieces_encode(e, text + r.start, r.end - r.start, at_start && r.start == 0);
        }
    }
    e->ranges.count = base;
    mem_free(owned);
    return ok;
}

static bool encode(struct encoder *e, const char *text, size_t size)
{
    struct added_guard guard;
    const bool guarded = guard_of(&guard, e, text, size);
    if (!added_split(&e->t->added, false, text, size, e->special, guarded ? &guard : NULL,
                     &e->ranges))
        return no_memory(e->err);
    const int64_t end = e->ranges.count;
    for (int64_t i = 0; i < end; i++) {
        const struct range r = e->ranges.at[i];
        const int64_t before = e->out->count;
        const bool ok = r.id >= 0
                            ? tokens_add(e->out, r.id) || no_memory(e->err)
                            : stretch_encode(e, text + r.start, r.end - r.start, r.start == 0);
        if (!ok || (e->marks && !marks_assign(e, r.start, r.end, before, r.id >= 0))) return false;
    }
    return true;
}

static bool encode_valid(struct encoder *e, const char *text, size_t size)
{
    if (size > TOKENIZER_MAX_TEXT) {
        return fail(e->err, "tokenizer: a text of %zu bytes, at most %d", size, TOKENIZER_MAX_TEXT);
    }
    const size_t valid = utf8_valid(text, size);
    if (valid < size) return fail(e->err, "tokenizer: text is not valid UTF-8 at byte %zu", valid);
    const bool ok = encode(e, text, size);
    mem_free(e->ranges.at);
    matcher_close(&e->matcher);
    bpe_scratch_free(&e->scratch);
    return ok;
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t size, bool special,
                      struct tokens *out, struct error *err)
{
    struct encoder e = {.t = t, .out = out, .err = err, .special = special};
    return encode_valid(&e, text, size);
}

bool tokenizer_encode_marked(const struct tokenizer *t, const char *text, size_t size,
                             const struct text_marks *marks, struct tokens *out, struct buf *flags,
                             struct error *err)
{
    struct encoder e = {.t = t,
                        .out = out,
                        .err = err,
                        .special = true,
                        .marks = marks,
                        .base = text,
                        .flags = flags};
    return encode_valid(&e, text, size);
}

int64_t tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
    const size_t size = strlen(token);
    const int32_t index = string_map_find(&t->added.by_text, token, size);
    return index >= 0 ? t->added.token[index].id : string_map_find(&t->bpe.by_text, token, size);
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->size) return NULL;
    const int32_t index = t->added.by_id[id];
    if (index >= 0) return t->added.token[index].content;
    return id < t->bpe.size ? t->bpe.token[id] : NULL;
}
