// cli/parse.c - argv into a resolved struct run_config, through the table of options alone.
#include "cli/commands.h"
#include "cli/options.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_LIMIT = 1 << 20 };

bool parse_int(const char *text, double min, double max, int64_t *out)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits)) return false;
    errno = 0;
    const long long value = strtoll(text, NULL, 10);
    if (errno || (double)value < min || (double)value > max) return false;
    *out = value;
    return true;
}

// The C library's strtod reads hexadecimal, "inf" and white space too, none of which is meant here.
// It follows the locale, which this program never sets.
bool parse_real(const char *text, double min, double max, double *out)
{
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
    char *end;
    const double value = strtod(text, &end);
    if (*end || !isfinite(value) || value < min || value > max) return false;
    *out = value;
    return true;
}

char *options_keep(struct options *o, const char *text, size_t size)
{
    void *grown = array_grow(o->owned, o->n_owned, &o->owned_capacity, sizeof *o->owned);
    if (!grown) return NULL;
    o->owned = grown;
    char *copy = mem_strndup(text, size);
    if (copy) o->owned[o->n_owned++] = copy;
    return copy;
}

static void *field_of(struct options *o, const struct option *row)
{
    return (char *)&o->config + row->field;
}

static bool is_list(const struct option *row)
{
    return row->type == OPTION_TEXTS || row->type == OPTION_NAMES;
}

void option_clear_list(struct options *o, const struct option *row)
{
    struct texts *list = field_of(o, row);
    if (is_list(row)) list->count = 0;
}

static bool add_text(struct options *o, const struct option *row, const char *value,
                     struct error *err)
{
    struct texts *list = field_of(o, row);
    void *grown = array_grow(list->item, list->count, &list->capacity, sizeof *list->item);
    if (!grown) return fail(err, "no memory for the options");
    list->item = grown;
    list->item[list->count++] = value;
    return true;
}

static bool check_name(const struct registry *r, const char *value, const char *name,
                       struct error *err)
{
    struct buf all = {0};
    for (int64_t i = 0; r->name(i); i++) {
        if (!strcmp(r->name(i), value)) {
            buf_free(&all);
            return true;
        }
        buf_printf(&all, "%s%s", i ? ", " : "", r->name(i));
    }
    fail(err, "%s: found '%s', expected one of: %s", name, value, all.data ? all.data : "");
    buf_free(&all);
    return false;
}

static bool store_names(struct options *o, const struct option *row, const char *value,
                        const char *name, struct error *err)
{
    for (const char *p = value;; p++) {
        const size_t n = strcspn(p, ",");
        const char *one = options_keep(o, p, n);
        if (!one) return fail(err, "no memory for the options");
        if (!check_name(row->registry, one, name, err) || !add_text(o, row, one, err)) return false;
        p += n;
        if (!*p) return true;
    }
}

static bool store_choice(int *field, const struct option *row, const char *value, const char *name,
                         struct error *err)
{
    struct buf all = {0};
    for (int i = 0; row->choices[i]; i++) {
        if (!strcmp(row->choices[i], value)) {
            *field = i;
            buf_free(&all);
            return true;
        }
        buf_printf(&all, "%s%s", i ? ", " : "", row->choices[i]);
    }
    fail(err, "%s: found '%s', expected one of: %s", name, value, all.data ? all.data : "");
    buf_free(&all);
    return false;
}

static bool store_number(void *field, const struct option *row, const char *value, const char *name,
                         struct error *err)
{
    const bool whole = row->type == OPTION_INT;
    if (whole ? parse_int(value, row->min, row->max, field)
              : parse_real(value, row->min, row->max, field)) {
        return true;
    }
    return fail(err, "%s: found '%s', expected a %snumber from %.10g to %.10g", name, value,
                whole ? "whole " : "", row->min, row->max);
}

bool option_store(struct options *o, const struct option *row, const char *value, const char *name,
                  struct error *err)
{
    void *field = field_of(o, row);
    switch (row->type) {
    case OPTION_NAME:
        if (!check_name(row->registry, value, name, err)) return false;
        *(const char **)field = value;
        return true;
    case OPTION_TEXT:
        if (!*value) return fail(err, "%s: found nothing, expected %s", name, row->unit);
        *(const char **)field = value;
        return true;
    case OPTION_TEXTS:
        if (!*value) return fail(err, "%s: found nothing, expected %s", name, row->unit);
        return add_text(o, row, value, err);
    case OPTION_NAMES:
        return store_names(o, row, value, name, err);
    case OPTION_CHOICE:
        return store_choice(field, row, value, name, err);
    case OPTION_BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0) {
            return fail(err, "%s: found '%s', expected true or false", name, value);
        }
        *(bool *)field = *value == 't';
        return true;
    default:
        return store_number(field, row, value, name, err);
    }
}

void options_defaults(struct options *o, enum command c)
{
    *o = (struct options){.command = c};
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (row->value && option_in(row, c)) option_store(o, row, row->value, row->name, NULL);
    }
}

bool options_given(const struct options *o, const char *name)
{
    const struct option *row = option_find(o->command, name);
    return row && (o->flag[option_index(row)] || o->file_line[option_index(row)]);
}

void options_close(struct options *o)
{
    for (int64_t i = 0; i < option_count(); i++) {
        struct texts *list = field_of(o, option_at(i));
        if (!is_list(option_at(i))) continue;
        mem_free(list->item);
        *list = (struct texts){0};
    }
    for (int64_t i = 0; i < o->n_owned; i++) {
        mem_free(o->owned[i]);
    }
    mem_free(o->owned);
    *o = (struct options){0};
}

static bool unknown_option(enum command c, const char *name, struct error *err)
{
    for (int64_t i = 0; i < option_count(); i++) {
        if (strcmp(option_at(i)->name, name) != 0) continue;
        for (int other = 0; other < COMMAND_COUNT; other++) {
            if (!option_in(option_at(i), (enum command)other)) continue;
            return fail(err, "%s has no option --%s; it belongs to %s", commands[c].name, name,
                        commands[other].name);
        }
    }
    const char *near = nearest_option(c, name);
    if (near) return fail(err, "unknown option --%s; did you mean --%s?", name, near);
    return fail(err, "unknown option --%s; see moetune %s --help", name, commands[c].name);
}

// The row of "name" or of "no-name", where it is a switch.
static const struct option *find_flag(enum command c, const char *name, bool *negated)
{
    const struct option *row = option_find(c, name);
    *negated = false;
    if (row || strncmp(name, "no-", 3) != 0) return row;
    row = option_find(c, name + 3);
    *negated = true;
    return row && row->type == OPTION_BOOL ? row : NULL;
}

// Stores the values of one option that stands at argv[*i], and moves *i past them.
static bool take_values(struct options *o, const struct option *row, const char *equals, int argc,
                        char *const *argv, int *i, struct error *err)
{
    char name[128];
    snprintf(name, sizeof name, "--%s", row->name);
    bool *given = &o->flag[option_index(row)];
    if (!*given) option_clear_list(o, row);
    *given = true;
    if (equals) {
        ++*i;
        return option_store(o, row, equals + 1, name, err);
    }
    int taken = 0;
    const int most = row->type == OPTION_TEXTS ? argc : 1;
    for (++*i; *i < argc && taken < most && strncmp(argv[*i], "--", 2) != 0; ++*i, taken++) {
        if (!option_store(o, row, argv[*i], name, err)) return false;
    }
    if (taken) return true;
    return fail(err, "%s needs a value%s%s%s", name, row->unit ? " (" : "",
                row->unit ? row->unit : "", row->unit ? ")" : "");
}

static bool take_option(struct options *o, int argc, char *const *argv, int *i, struct error *err)
{
    const char *text = argv[*i] + 2, *equals = strchr(text, '=');
    char name[64];
    const size_t length = equals ? (size_t)(equals - text) : strlen(text);
    if (length >= sizeof name) return fail(err, "unknown option %.80s...", argv[*i]);
    memcpy(name, text, length);
    name[length] = 0;

    bool negated;
    const struct option *row = find_flag(o->command, name, &negated);
    if (!row) return unknown_option(o->command, name, err);
    if (negated && equals) return fail(err, "--%s takes no value", name);
    if (row->type != OPTION_BOOL || equals) return take_values(o, row, equals, argc, argv, i, err);
    o->flag[option_index(row)] = true;
    ++*i;
    return option_store(o, row, negated ? "false" : "true", name, err);
}

static bool read_argv(struct options *o, int argc, char *const *argv, struct error *err)
{
    for (int i = 0; i < argc;) {
        if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
            if (!take_option(o, argc, argv, &i, err)) return false;
        } else if (argv[i][0] == '-' && argv[i][1]) {
            return fail(err, "found '%s', expected an option: they begin with two dashes", argv[i]);
        } else if (o->command == COMMAND_TOKENIZE && !o->config.file) {
            o->config.file = argv[i++];
        } else {
            return fail(err, "found '%s', expected an option", argv[i]);
        }
    }
    return true;
}

static bool read_config(struct options *o, struct error *err)
{
    const struct option *row = option_find(o->command, "config");
    const bool is_yaml = row && row->group == GROUP_OUTPUT;
    const struct run_config *c = &o->config;
    char saved[4096];
    const char *path = is_yaml ? c->config : NULL;
    if (!path && c->resume && c->out && path_join(saved, sizeof saved, c->out, "run.json", NULL) &&
        file_exists(saved)) {
        path = saved;
    }
    if (!path) return true;
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, CONFIG_LIMIT, err)) return false;
    const bool ok = options_read_yaml(o, text, size, path, err);
    mem_free(text);
    return ok;
}

static bool is_missing(struct options *o, const struct option *row)
{
    const void *field = field_of(o, row);
    if (is_list(row)) return ((const struct texts *)field)->count == 0;
    return !*(const char *const *)field;
}

static bool check_required(struct options *o, struct error *err)
{
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (((row->required >> o->command) & 1U) && option_in(row, o->command) &&
            is_missing(o, row)) {
            return fail(err, "%s needs --%s %s", commands[o->command].name, row->name, row->unit);
        }
    }
    return true;
}

bool options_set(struct options *o, const char *name, const char *value, struct error *err)
{
    char flag[128];
    const struct option *row = option_find(o->command, name);
    if (!row) return unknown_option(o->command, name, err);
    snprintf(flag, sizeof flag, "--%s", row->name);
    bool *given = &o->flag[option_index(row)];
    if (!*given) option_clear_list(o, row);
    *given = true;
    return option_store(o, row, value, flag, err);
}

bool options_complete(struct options *o, struct error *err)
{
    return read_config(o, err) && check_required(o, err);
}

bool options_parse(struct options *o, enum command c, int argc, char *const *argv,
                   struct error *err)
{
    options_defaults(o, c);
    if (read_argv(o, argc, argv, err) && options_complete(o, err)) return true;
    options_close(o);
    return false;
}

static json_t *texts_json(const struct texts *list)
{
    json_t *array = json_array();
    for (int64_t i = 0; array && i < list->count; i++) {
        json_array_append_new(array, json_string(list->item[i]));
    }
    return array;
}

json_t *option_json(const struct options *o, const struct option *row)
{
    const void *field = (const char *)&o->config + row->field;
    const char *text;
    switch (row->type) {
    case OPTION_TEXT:
    case OPTION_NAME:
        text = *(const char *const *)field;
        return text ? json_string(text) : json_null();
    case OPTION_TEXTS:
    case OPTION_NAMES:
        return texts_json(field);
    case OPTION_CHOICE:
        return json_string(row->choices[*(const int *)field]);
    case OPTION_BOOL:
        return json_boolean(*(const bool *)field);
    case OPTION_INT:
        return json_integer(*(const int64_t *)field);
    default:
        return json_real(*(const double *)field);
    }
}

// What says how this call came about, not what the run is.
static bool of_this_call(const struct option *row)
{
    return !strcmp(row->name, "config") || !strcmp(row->name, "resume") ||
           !strcmp(row->name, "overwrite");
}

json_t *options_json(const struct options *o, bool deciding)
{
    json_t *all = json_object();
    for (int64_t i = 0; all && i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (!option_in(row, o->command) || (deciding && !row->decides)) continue;
        if (of_this_call(row)) continue;
        char key[64];
        snprintf(key, sizeof key, "%s", row->name);
        for (char *p = key; *p; p++) {
            if (*p == '-') *p = '_';
        }
        if (json_object_set_new(all, key, option_json(o, row)) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}
