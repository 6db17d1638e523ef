// results/lines.c - see lines.h.
#include "lines.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { LARGEST_FILE = 1 << 26 };

static bool add_line(json_t *all, const char *line, size_t n, const char *path, struct error *err)
{
    char where[512];
    snprintf(where, sizeof where, "%s:%zu", path, json_array_size(all) + 1);
    json_t *object = json_parse(line, n, where, err);
    if (!object) return false;
    if (!json_is_object(object) || json_array_append(all, object) != 0) {
        json_decref(object);
        return fail(err, "%s: an object expected", where);
    }
    json_decref(object);
    return true;
}

json_t *lines_read(const char *path, struct error *err)
{
    char *text;
    size_t size;
    if (!file_read(&text, &size, path, LARGEST_FILE, err)) return NULL;
    json_t *all = json_array();
    bool ok = all != NULL || fail(err, "no memory for %s", path);
    for (const char *line = text; ok && *line;) {
        const size_t n = strcspn(line, "\n");
        if (n > 0) ok = add_line(all, line, n, path, err);
        line += n + (line[n] == '\n');
    }
    mem_free(text);
    if (ok) return all;
    json_decref(all);
    return NULL;
}

double number_of(const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}
