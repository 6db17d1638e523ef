// io/dataset_source.c - see dataset_source.h.
#include "io/dataset_source.h"

#include <inttypes.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(struct dataset_source *s)
{
    for (; s->at < s->size && is_space(s->bytes[s->at]); s->at++) {
        s->line += s->bytes[s->at] == '\n';
    }
}

void dataset_source_over(struct dataset_source *s, const char *path, const void *bytes, size_t size)
{
    *s = (struct dataset_source){
        .path = path, .bytes = bytes, .size = size, .line = 1, .first = true};
    if (size >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) s->at = 3; // a byte order mark
    struct dataset_source peek = *s;
    skip_space(&peek);
    if (peek.at >= peek.size || peek.bytes[peek.at] != '[') return;
    *s = peek;
    s->array = true;
    s->at++;
}

// What data comes in elsewhere, by its first bytes.
static const struct {
    const char *bytes;
    size_t size;
    const char *name;
} formats[] = {{"PAR1", 4, "Parquet"},
               {"ARROW1", 6, "Arrow"},
               {"\x1f\x8b", 2, "compressed by gzip"},
               {"BZh", 3, "compressed by bzip2"},
               {"\xfd"
                "7zXZ",
                5, "compressed by xz"},
               {"\x28\xb5\x2f\xfd", 4, "compressed by zstd"},
               {"PK\3\4", 4, "a zip archive"},
               {"\xff\xfe", 2, "UTF-16"},
               {"\xfe\xff", 2, "UTF-16"}};

static bool is_table(const char *path)
{
    const size_t n = strlen(path);
    return n > 4 && (!strcmp(path + n - 4, ".csv") || !strcmp(path + n - 4, ".tsv"));
}

// Names a format that is not read; an unknown one shows itself at its first line.
static bool check_format(const struct file_map *map, const char *path, struct error *err)
{
    const char *found = NULL;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const bool is = map->size >= formats[i].size &&
                        memcmp(map->data, formats[i].bytes, formats[i].size) == 0;
        if (is) found = formats[i].name;
    }
    if (is_table(path) && map->size && map->data[0] != '{' && map->data[0] != '[')
        found = "a table";
    return !found || fail(err,
                          "%s: %s; what is read is JSON in UTF-8: an object on each line, or an "
                          "array of them",
                          path, found);
}

bool dataset_source_open(struct dataset_source *s, const char *path, struct error *err)
{
    struct file_map map = {0};
    *s = (struct dataset_source){.path = path};
    if (!file_map_open(&map, path, err)) return false;
    if (!check_format(&map, path, err)) {
        file_map_close(&map);
        return false;
    }
    dataset_source_over(s, path, map.data, map.size);
    s->map = map;
    return true;
}

void dataset_source_close(struct dataset_source *s)
{
    file_map_close(&s->map);
    *s = (struct dataset_source){0};
}

// Of a line beyond the limit no more is looked at than shows it; what is left is passed over if more is asked for.
static void skip_rest(struct dataset_source *s)
{
    const char *end = memchr(s->bytes + s->at, '\n', s->size - s->at);
    s->at = end ? (size_t)(end - s->bytes) : s->size;
    s->within = false;
}

static bool next_line(struct dataset_source *s, const char **text, size_t *size, int64_t *line)
{
    if (s->within) skip_rest(s);
    skip_space(s); // empty lines are none
    if (s->at >= s->size) return false;
    const size_t left = s->size - s->at, most = left > EXAMPLE_LIMIT ? EXAMPLE_LIMIT + 1 : left;
    const char *start = s->bytes + s->at, *end = memchr(start, '\n', most);
    *text = start;
    *size = end ? (size_t)(end - start) : most;
    *line = s->line;
    s->at += *size;
    s->within = *size > EXAMPLE_LIMIT;
    return true;
}

// Moves behind the object that starts here: to the brace that closes it, strings skipped.
static bool skip_object(struct dataset_source *s)
{
    int64_t depth = 0;
    bool in_string = false;
    const size_t end = s->size - s->at > EXAMPLE_LIMIT ? s->at + EXAMPLE_LIMIT : s->size;
    for (; s->at < end; s->at++) {
        const char c = s->bytes[s->at];
        s->line += c == '\n';
        if (in_string) {
            if (c == '\\') s->at++;
            if (c == '"') in_string = false;
            continue;
        }
        if (c == '"') in_string = true;
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (depth > 0) continue;
        s->at++;
        return true;
    }
    return false;
}

static bool array_error(const struct dataset_source *s, const char *expected, struct error *err)
{
    if (s->at >= s->size) {
        return fail(err, "%s:%" PRId64 ": the file ends within the array, expected %s", s->path,
                    s->line, expected);
    }
    const unsigned char c = (unsigned char)s->bytes[s->at];
    if (c < 0x20 || c > 0x7E) {
        return fail(err, "%s:%" PRId64 ": found byte 0x%02X, expected %s", s->path, s->line, c,
                    expected);
    }
    return fail(err, "%s:%" PRId64 ": found '%c', expected %s", s->path, s->line, c, expected);
}

static bool array_end(struct dataset_source *s, struct error *err)
{
    s->at++;
    skip_space(s);
    return s->at < s->size ? array_error(s, "nothing after the array", err) : false;
}

static bool next_element(struct dataset_source *s, const char **text, size_t *size, int64_t *line,
                         struct error *err)
{
    skip_space(s);
    if (s->at >= s->size && s->first) return array_error(s, "an object or ']'", err);
    if (s->at < s->size && s->bytes[s->at] == ']') return array_end(s, err);
    if (!s->first) {
        if (s->at >= s->size || s->bytes[s->at] != ',') return array_error(s, "',' or ']'", err);
        s->at++;
        skip_space(s);
    }
    if (s->at >= s->size || s->bytes[s->at] != '{') return array_error(s, "an object", err);
    const size_t start = s->at;
    *line = s->line;
    s->first = false;
    const bool closed = skip_object(s);
    if (!closed && s->at < s->size) {
        return fail(err, "%s:%" PRId64 ": more than %d bytes without its '}'", s->path, *line,
                    EXAMPLE_LIMIT);
    }
    if (!closed) return array_error(s, "'}'", err);
    *text = s->bytes + start;
    *size = s->at - start;
    return true;
}

bool dataset_source_next(struct dataset_source *s, const char **text, size_t *size, int64_t *line,
                         struct error *err)
{
    err->msg[0] = 0;
    return s->array ? next_element(s, text, size, line, err) : next_line(s, text, size, line);
}
