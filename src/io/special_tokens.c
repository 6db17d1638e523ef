// io/special_tokens.c - which tokens a model folder calls bos and eos. The tokenizer's files speak
// first, config.json's ids last, as in `transformers`.
#include "base/file.h"
#include "io/json.h"
#include "io/template.h"

#include <string.h>

enum { CONFIG_LIMIT = 64 << 20 }; // tokenizer_config.json may hold some thousand added tokens

enum { PATH_SIZE = 4096 };

// *root NULL where the folder has no such file.
static bool open_optional(json_t **root, char path[PATH_SIZE], const char *dir, const char *name,
                          struct error *err)
{
    *root = NULL;
    if (!path_join(path, PATH_SIZE, dir, name, err)) return false;
    if (!file_exists(path)) return true;
    *root = json_parse_file(path, CONFIG_LIMIT, err);
    if (*root && !json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return fail(err, "%s: expected an object", path);
    }
    return *root != NULL;
}

// A token is text, {"content": text} or null. Keeps what an earlier file said.
static bool read_token(char *out, size_t size, const json_t *root, const char *key,
                       const char *file, struct error *err)
{
    const json_t *v = json_object_get(root, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    if (!v || json_is_null(v) || *out) return true;
    const char *text = json_string_value(v);
    if (!text || strlen(text) >= size) {
        return fail(err, "%s: %s: expected text of fewer than %zu bytes", file, key, size);
    }
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool read_file(struct special_tokens *s, const char *dir, const char *name,
                      struct error *err)
{
    char file[PATH_SIZE];
    json_t *root;
    if (!open_optional(&root, file, dir, name, err)) return false;
    const char *class = json_string_value(json_object_get(root, "tokenizer_class"));
    bool ok = read_token(s->bos, sizeof s->bos, root, "bos_token", file, err) &&
              read_token(s->eos, sizeof s->eos, root, "eos_token", file, err);
    const json_t *add = json_object_get(root, "add_bos_token");
    if (ok && add && !json_is_null(add)) {
        s->add_bos = json_is_true(add);
        if (!json_is_boolean(add))
            ok = fail(err, "%s: add_bos_token: expected true or false", file);
    } else if (class && strncmp(class, "Llama", 5) == 0) {
        s->add_bos = true; // the default of that class
    }
    json_decref(root);
    return ok;
}

// config.json's ids; eos may be a list, whose first is meant.
static bool read_id(char *out, size_t size, const json_t *root, const char *key,
                    const struct tokenizer *t, const char *file, struct error *err)
{
    const json_t *v = json_object_get(root, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    if (*out || !v || json_is_null(v)) return true;
    const json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < 0 || id > INT32_MAX) {
        return fail(err, "%s: %s: expected a token id", file, key);
    }
    const char *text = id < tokenizer_size(t) ? tokenizer_token(t, (int32_t)id) : NULL;
    if (!text || strlen(text) >= size) {
        return fail(err, "%s: %s: %lld is no token of the tokenizer", file, key, (long long)id);
    }
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool read_ids(struct special_tokens *s, const char *dir, const struct tokenizer *t,
                     struct error *err)
{
    if (*s->bos && *s->eos) return true;
    char path[PATH_SIZE];
    json_t *root;
    if (!open_optional(&root, path, dir, "config.json", err)) return false;
    const bool ok = read_id(s->bos, sizeof s->bos, root, "bos_token_id", t, path, err) &&
                    read_id(s->eos, sizeof s->eos, root, "eos_token_id", t, path, err);
    json_decref(root);
    return ok;
}

static bool is_token(const struct tokenizer *t, const char *text, const char *name, const char *dir,
                     struct error *err)
{
    if (!*text || tokenizer_id(t, text) >= 0) return true;
    return fail(err, "%s: %s: '%s' is no token of tokenizer.json", dir, name, text);
}

bool special_tokens_read(struct special_tokens *s, const char *model_dir, const struct tokenizer *t,
                         struct error *err)
{
    *s = (struct special_tokens){0};
    if (!read_file(s, model_dir, "tokenizer_config.json", err) ||
        !read_file(s, model_dir, "special_tokens_map.json", err) ||
        !read_ids(s, model_dir, t, err) || !is_token(t, s->bos, "bos_token", model_dir, err) ||
        !is_token(t, s->eos, "eos_token", model_dir, err)) {
        return false;
    }
    if (!*s->bos) s->add_bos = false;
    s->deepseek_marks =
        tokenizer_id(t, "<｜User｜>") >= 0 && tokenizer_id(t, "<｜Assistant｜>") >= 0;
    return true;
}
