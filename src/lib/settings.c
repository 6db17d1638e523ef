// lib/settings.c - see settings.h.
#include "lib/settings.h"

#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum { FILE_LIMIT = 1 << 20 };

const char *settings_get(const struct settings *s, const char *name)
{
    for (int64_t i = 0; i < s->count; i++) {
        if (!strcmp(s->item[i].name, name)) return s->item[i].value;
    }
    return NULL;
}

static void free_item(struct setting *item)
{
    mem_free(item->name);
    mem_free(item->value);
}

static void clear_from(struct settings *s, const char *name, int64_t end)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < s->count; i++) {
        if (i < end && !strcmp(s->item[i].name, name)) {
            free_item(&s->item[i]);
        } else {
            s->item[kept++] = s->item[i];
        }
    }
    s->count = kept;
}

void settings_clear(struct settings *s, const char *name)
{
    clear_from(s, name, s->count);
}

void settings_clear_group(struct settings *s, enum option_group g)
{
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (row->group == g && option_in(row, COMMAND_TRAIN)) settings_clear(s, row->name);
    }
}

static bool check(const char *name, const char *value, struct error *err)
{
    struct options o;
    options_defaults(&o, COMMAND_TRAIN);
    const bool ok = options_set(&o, name, value, err);
    options_close(&o);
    return ok;
}

// The old values go last, so that a failure leaves what was there.
static bool append(struct settings *s, const char *name, const char *value, bool more,
                   struct error *err)
{
    const int64_t before = s->count;
    struct setting *grown = array_grow(s->item, s->count, &s->capacity, sizeof *s->item);
    if (grown) s->item = grown;
    struct setting item = {mem_strdup(name), mem_strdup(value)};
    if (!grown || !item.name || !item.value) {
        free_item(&item);
        return fail(err, "--%s: no memory", name);
    }
    s->item[s->count++] = item;
    if (!more) clear_from(s, name, before);
    return true;
}

bool settings_put(struct settings *s, const char *name, const char *value, bool more,
                  struct error *err)
{
    if (!check(name, value, err)) return false;
    const struct option *row = option_find(COMMAND_TRAIN, name);
    if (more && row->type != OPTION_TEXTS) {
        return fail(err, "--%s takes one value; it cannot be given one more", name);
    }
    return append(s, name, value, more, err);
}

static bool take_texts(struct settings *s, const char *name, const struct texts *list,
                       struct error *err)
{
    settings_clear(s, name);
    for (int64_t i = 0; i < list->count; i++) {
        if (!append(s, name, list->item[i], true, err)) return false;
    }
    return true;
}

// What an option was resolved to, as it would be typed.
static bool take_value(struct settings *s, const struct options *o, const struct option *row,
                       struct error *err)
{
    char number[64];
    const char *text = number;
    const void *field = (const char *)&o->config + row->field;
    switch (row->type) {
    case OPTION_TEXT:
    case OPTION_NAME:
        text = *(const char *const *)field;
        break;
    case OPTION_TEXTS:
    case OPTION_NAMES:
        return take_texts(s, row->name, field, err);
    case OPTION_CHOICE:
        text = row->choices[*(const int *)field];
        break;
    case OPTION_BOOL:
        text = *(const bool *)field ? "true" : "false";
        break;
    case OPTION_INT:
        snprintf(number, sizeof number, "%" PRId64, *(const int64_t *)field);
        break;
    default:
        snprintf(number, sizeof number, "%.17g", *(const double *)field);
    }
    return !text || append(s, row->name, text, false, err);
}

bool settings_read(struct settings *s, const char *path, const char *but, struct error *err)
{
    struct options o;
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, FILE_LIMIT, err)) return false;
    options_defaults(&o, COMMAND_TRAIN);
    bool ok = options_read_yaml(&o, text, size, path, err);
    for (int64_t i = 0; ok && i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (o.file_line[i] && strcmp(row->name, but) != 0) ok = take_value(s, &o, row, err);
    }
    options_close(&o);
    mem_free(text);
    return ok;
}

bool settings_apply(const struct settings *s, struct options *o, const char *but, struct error *err)
{
    o->of_session = true;
    for (int64_t i = 0; i < s->count; i++) {
        const struct setting *item = &s->item[i];
        if ((but && !strcmp(item->name, but)) || !option_find(o->command, item->name)) continue;
        if (!options_set(o, item->name, item->value, err)) return false;
    }
    return true;
}

void settings_free(struct settings *s)
{
    for (int64_t i = 0; i < s->count; i++) {
        free_item(&s->item[i]);
    }
    mem_free(s->item);
    *s = (struct settings){0};
}
