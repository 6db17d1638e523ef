// cli/option_methods.c - an option that nothing reads was meant for another method: told, not ignored.
#include "cli/options.h"

#include <stdio.h>
#include <string.h>

// Does a list like "lora, dora" hold the name?
static bool lists(const char *list, const char *name)
{
    const size_t n = strlen(name);
    for (const char *p = list; *p; p += strspn(p, ", ")) {
        const size_t word = strcspn(p, ",");
        if (word == n && !strncmp(p, name, n)) return true;
        p += word;
    }
    return false;
}

static bool is_read(const struct option *row, const struct texts *names)
{
    for (int64_t i = 0; i < names->count; i++) {
        if (lists(row->of, names->item[i])) return true;
    }
    return names->count == 0;
}

// Another value than the default's, in a file that was asked for: not in the run.json of a run that goes on.
static bool file_gives(const struct options *o, const struct option *row)
{
    struct options plain;
    if (!o->config.config || !o->file_line[option_index(row)]) return false;
    options_defaults(&plain, o->command);
    json_t *mine = option_json(o, row), *theirs = option_json(&plain, row);
    const bool differ = mine && theirs && !json_equal(mine, theirs);
    json_decref(mine);
    json_decref(theirs);
    options_close(&plain);
    return differ;
}

static bool unread(const struct options *o, const struct option *row, const struct option *axis,
                   const struct texts *names, struct error *err)
{
    char where[1024] = "--";
    if (!o->flag[option_index(row)]) {
        snprintf(where, sizeof where, "%s:%d: ", o->config.config, o->file_line[option_index(row)]);
    }
    char found[256] = "";
    for (int64_t i = 0; i < names->count; i++) {
        const size_t n = strlen(found);
        snprintf(found + n, sizeof found - n, "%s%s", i ? "," : "", names->item[i]);
    }
    return fail(err, "%s%s: an option of --%s %s, but --%s is %s", where, row->name, axis->name,
                row->of, axis->name, found);
}

bool options_read_by_methods(const struct options *o, const struct texts *routing,
                             const struct texts *tuning, struct error *err)
{
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (!row->of || !option_in(row, o->command)) continue;
        const bool routes = row->group == GROUP_ROUTING;
        const struct option *axis = option_find(o->command, routes ? "routing" : "tuning");
        const struct texts *names = routes ? routing : tuning;
        if (!axis || is_read(row, names)) continue;
        const bool turned = o->flag[option_index(axis)]; // from what a file says
        if (o->flag[option_index(row)] || (!turned && file_gives(o, row))) {
            return unread(o, row, axis, names, err);
        }
    }
    return true;
}
