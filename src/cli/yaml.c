// cli/yaml.c - a YAML file of options: one flat mapping, names in snake_case, lists where an option
// takes several values. Anchors, aliases, tags, merges and nesting have no use here and are refused, so
// a small file cannot unfold into a large one. JSON is YAML, so a run.json is read as well.
#include "base/mem.h"
#include "cli/options.h"

#include <string.h>
#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    const char *where;
    struct error *err;
};

static int line_of(const struct reader *r)
{
    return (int)r->event.start_mark.line + 1;
}

static bool bad(const struct reader *r, const char *found, const char *expected)
{
    return fail(r->err, "%s:%d: found %s, expected %s", r->where, line_of(r), found, expected);
}

static bool next(struct reader *r)
{
    if (r->has_event) yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
    if (r->has_event) return true;
    if (r->parser.error == YAML_MEMORY_ERROR) {
        mem_note_ran_out();
        return fail(r->err, "%s: no memory", r->where);
    }
    const char *problem = r->parser.problem ? r->parser.problem : "not YAML";
    return fail(r->err, "%s:%d: %s", r->where, (int)r->parser.problem_mark.line + 1, problem);
}

// A scalar without anchor and tag; *text NULL: null.
static bool scalar(const struct reader *r, const char **text, size_t *size)
{
    if (r->event.type == YAML_ALIAS_EVENT) return bad(r, "an alias", "a value");
    if (r->event.type != YAML_SCALAR_EVENT) return bad(r, "a nested mapping or list", "a value");
    if (r->event.data.scalar.anchor) return bad(r, "an anchor", "a value");
    if (r->event.data.scalar.tag) return bad(r, "a tag", "a value");
    const char *value = (const char *)r->event.data.scalar.value;
    *size = r->event.data.scalar.length;
    if (memchr(value, 0, *size)) return bad(r, "a NUL byte", "text");
    const bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    *text = plain && (!*value || !strcmp(value, "~") || !strcmp(value, "null")) ? NULL : value;
    return true;
}

// Where a flag has decided already the value is checked all the same, into a config that is thrown away.
static bool store(struct reader *r, struct options *o, const struct option *row, const char *key)
{
    const char *text = NULL;
    size_t size = 0;
    if (!scalar(r, &text, &size)) return false;
    if (!text) return true;
    char name[256];
    const char *kept = options_keep(o, text, size);
    if (!kept) return fail(r->err, "%s: no memory", r->where);
    snprintf(name, sizeof name, "%s:%d: %s", r->where, line_of(r), key);
    if (!o->flag[option_index(row)]) return option_store(o, row, kept, name, r->err);
    struct options unused;
    options_defaults(&unused, o->command);
    const bool ok = option_store(&unused, row, kept, name, r->err);
    options_close(&unused);
    return ok;
}

static bool store_list(struct reader *r, struct options *o, const struct option *row,
                       const char *key)
{
    if (r->event.data.sequence_start.anchor) return bad(r, "an anchor", "a list");
    if (r->event.data.sequence_start.tag) return bad(r, "a tag", "a list");
    if (row->type != OPTION_TEXTS && row->type != OPTION_NAMES) {
        return fail(r->err, "%s:%d: %s: found a list, expected one value", r->where, line_of(r),
                    key);
    }
    for (;;) {
        if (!next(r)) return false;
        if (r->event.type == YAML_SEQUENCE_END_EVENT) return true;
        if (!store(r, o, row, key)) return false;
    }
}

static bool find_row(const struct reader *r, struct options *o, const char *key,
                     const struct option **row)
{
    char name[64];
    snprintf(name, sizeof name, "%s", key);
    for (char *p = name; *p; p++) {
        *p = *p == '_' ? '-' : *p;
    }
    *row = strchr(key, '-') || strlen(key) >= sizeof name ? NULL : option_find(o->command, name);
    if (*row && strcmp(name, "config") != 0) return true; // a file does not name another
    char near[64];
    const char *nearest = nearest_option(o->command, name);
    const bool known = nearest && strcmp(nearest, "help") != 0; // which a file cannot ask for
    snprintf(near, sizeof near, "%s", known ? nearest : "");
    for (char *p = near; *p; p++) {
        *p = *p == '-' ? '_' : *p;
    }
    return fail(r->err, "%s:%d: unknown option '%.80s'%s%s%s", r->where, line_of(r), key,
                *near ? "; did you mean " : "", near, *near ? "?" : "");
}

static bool read_pair(struct reader *r, struct options *o)
{
    const char *text = NULL;
    size_t size = 0;
    if (!scalar(r, &text, &size)) return false;
    if (!text) return bad(r, "no key", "the name of an option");
    char key[64];
    const struct option *row;
    if (!find_row(r, o, text, &row)) return false;
    snprintf(key, sizeof key, "%s", text);
    int *line = &o->file_line[option_index(row)];
    if (*line) {
        return fail(r->err, "%s:%d: %s is given twice, first on line %d", r->where, line_of(r), key,
                    *line);
    }
    *line = line_of(r);
    if (!o->flag[option_index(row)]) option_clear_list(o, row);
    if (!next(r)) return false;
    if (r->event.type == YAML_SEQUENCE_START_EVENT) return store_list(r, o, row, key);
    return store(r, o, row, key);
}

static bool read_mapping(struct reader *r, struct options *o)
{
    if (!next(r)) return false; // stream start
    if (!next(r)) return false;
    if (r->event.type == YAML_STREAM_END_EVENT) return true; // an empty file
    if (!next(r)) return false;
    const bool empty = r->event.type == YAML_SCALAR_EVENT && !r->event.data.scalar.length;
    if (!empty && r->event.type != YAML_MAPPING_START_EVENT) {
        return bad(r, "something else", "a mapping: name: value, one a line");
    }
    if (!empty && r->event.data.mapping_start.anchor) return bad(r, "an anchor", "a mapping");
    if (!empty && r->event.data.mapping_start.tag) return bad(r, "a tag", "a mapping");
    while (!empty) {
        if (!next(r)) return false;
        if (r->event.type == YAML_MAPPING_END_EVENT) break;
        if (!read_pair(r, o)) return false;
    }
    if (!next(r) || !next(r)) return false; // document end, then the end of all
    return r->event.type == YAML_STREAM_END_EVENT || bad(r, "a second document", "one");
}

bool options_read_yaml(struct options *o, const char *text, size_t size, const char *where,
                       struct error *err)
{
    struct reader r = {.where = where, .err = err};
    if (!yaml_parser_initialize(&r.parser)) {
        mem_note_ran_out();
        return fail(err, "%s: no memory", where);
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    const bool ok = read_mapping(&r, o);
    if (r.has_event) yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return ok;
}
