// model/remote.c - see remote.h.
#include "model/remote.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/families.h"

#include <string.h>

enum { CONFIG_LIMIT = 16 << 20 };

const char remote_file[] = "modeling_moetune.py";
static const char module[] = "modeling_moetune."; // the file, as auto_map names it
static const char begin_mark[] = "<!-- moetune: begin (written again at each export) -->\n";
static const char end_mark[] = "<!-- moetune: end -->\n";

static bool is_ours(const json_t *reference)
{
    const char *text = json_string_value(reference);
    return text && !strncmp(text, module, sizeof module - 1);
}

bool remote_is_ours(const json_t *auto_map)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)auto_map, key, value)
    {
        if (!is_ours(value)) return false;
    }
    return json_object_size(auto_map) > 0;
}

// What is put in: the rest of the text stays as it is, and gets back what it was when this is taken out.
static bool entry_text(struct buf *b, const char *class_name)
{
    return buf_printf(b, ",\n  \"auto_map\": {\n    \"%s\": \"%s%s\"\n  }", family_auto_class,
                      module, class_name);
}

static bool put_in(struct buf *out, const char *text, const char *class_name)
{
    size_t at = (size_t)(strrchr(text, '}') - text);
    while (at > 0 && strchr(" \t\r\n", text[at - 1])) {
        at--;
    }
    return buf_append(out, text, at) && entry_text(out, class_name) && buf_puts(out, text + at);
}

static bool take_out(struct buf *out, const char *text, const char *class_name)
{
    struct buf entry = {0};
    const char *at = entry_text(&entry, class_name) ? strstr(text, entry.data) : NULL;
    const bool found =
        at && buf_append(out, text, (size_t)(at - text)) && buf_puts(out, at + entry.size);
    buf_free(&entry);
    return found;
}

// Where the entry stands in a text that is not ours, or beside others: all of the text is written again.
static bool rewrite(struct buf *out, json_t *config, const char *class_name)
{
    json_t *map = json_object_get(config, "auto_map");
    out->size = 0;
    if (class_name && !json_is_object(map)) {
        map = json_object();
        json_object_set_new(config, "auto_map", map);
    }
    if (class_name) {
        json_t *reference = json_sprintf("%s%s", module, class_name);
        if (json_object_set_new(map, family_auto_class, reference) != 0) return false;
    } else {
        json_object_del(map, family_auto_class);
        if (!json_object_size(map)) json_object_del(config, "auto_map");
    }
    char *text = json_text(config, JSON_INDENT(2));
    const bool ok = text && buf_puts(out, text) && buf_puts(out, "\n");
    mem_free(text);
    return ok;
}

static bool edit_config(struct buf *out, json_t *config, const char *text, const char *class_name)
{
    const json_t *map = json_object_get(config, "auto_map");
    const char *now = json_string_value(json_object_get(map, family_auto_class));
    const bool ours = now && is_ours(json_object_get(map, family_auto_class));
    if (class_name && ours && !strcmp(now + sizeof module - 1, class_name)) return true;
    if (!class_name && !ours) return true;
    if (class_name && !map) return put_in(out, text, class_name);
    if (!class_name && take_out(out, text, now + sizeof module - 1)) return true;
    return rewrite(out, config, class_name);
}

bool remote_config(struct buf *out, const char *dir, const struct model_config *c, bool plain,
                   struct error *err)
{
    char path[4096], *text;
    size_t size;
    const char *class_name = plain ? NULL : family_remote_class(c->architecture);
    if (!path_join(path, sizeof path, dir, "config.json", err)) return false;
    if (!file_read(&text, &size, path, CONFIG_LIMIT, err)) return false;
    json_t *config = json_parse(text, size, path, err);
    const bool ok =
        config && (edit_config(out, config, text, class_name) || fail(err, "%s: no memory", path));
    json_decref(config);
    mem_free(text);
    return ok;
}

bool remote_has_section(const char *readme)
{
    const char *begin = readme ? strstr(readme, begin_mark) : NULL;
    return begin && strstr(begin, end_mark);
}

static bool section_state(struct buf *b, const struct model *m)
{
    const struct routing *r = m->setup.routing;
    return buf_printf(b,
                      "# Not a plain checkpoint\n\n"
                      "The weights are those of `%s`. This model was trained by moetune with the "
                      "routing `%s`\n(%s), which is no part of that architecture.\n"
                      "What the routing learnt lies in files beside the weights: `%s`, `%s`,\n"
                      "and where they are there `%s` and `%s`.\n\n"
                      "Programs that read the weights alone (transformers without "
                      "`trust_remote_code`, vLLM,\nllama.cpp) run the model without that state, as "
                      "plain top-k: its answers are then not those\nit was trained to give.\n\n",
                      m->config.architecture, r->name, r->help, routing_json_name, bias_states_name,
                      experts_records_name, condenser_gates_name);
}

static bool section_use(struct buf *b, const struct model *m)
{
    const bool code = family_remote_class(m->config.architecture) != NULL;
    return (code ? buf_printf(b,
                              "With transformers, by the code in `%s`:\n\n```python\n"
                              "from transformers import %s\n\n"
                              "model = %s.from_pretrained(\"this/folder\", "
                              "trust_remote_code=True)\n```\n\n",
                              remote_file, family_auto_class, family_auto_class)
                 : buf_printf(b,
                              "There is no code for transformers for %s: moetune alone runs this "
                              "model as it was trained.\n\n",
                              m->config.architecture)) &&
           buf_puts(b, "With moetune, which reads the state by itself:\n\n```\n"
                       "moetune eval --model this/folder --data test.jsonl\n"
                       "moetune generate --model this/folder --prompt 'Once upon a time'\n```\n");
}

// The bytes of the front matter ("---" to "---", as model cards have it), 0: none.
static size_t front_matter(const char *text)
{
    if (strncmp(text, "---\n", 4) != 0) return 0;
    const char *end = strstr(text + 3, "\n---\n");
    return end ? (size_t)(end + 5 - text) : 0;
}

bool remote_readme(struct buf *out, const char *base, const struct model *m, bool plain,
                   struct error *err)
{
    const char *head = base ? base : "", *tail = "";
    size_t n = strlen(head);
    if (remote_has_section(base)) {
        const char *begin = strstr(base, begin_mark);
        n = (size_t)(begin - base);
        tail = strstr(begin, end_mark) + sizeof end_mark - 1;
        tail += *tail == '\n'; // the empty line after it
    }
    struct buf rest = {0};
    bool ok = buf_append(&rest, head, n) && buf_puts(&rest, tail);
    const size_t front = ok ? front_matter(rest.data) : 0;
    ok = ok && buf_append(out, rest.data, front);
    if (ok && !plain) {
        ok = buf_puts(out, begin_mark) && section_state(out, m) && section_use(out, m) &&
             buf_puts(out, end_mark) && (rest.size == front || buf_puts(out, "\n"));
    }
    ok = ok && buf_append(out, rest.data + front, rest.size - front);
    buf_free(&rest);
    return ok || fail(err, "no memory for README.md");
}
