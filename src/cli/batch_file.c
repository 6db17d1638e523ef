// cli/batch_file.c - see batch_file.h.
#include "cli/batch_file.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>

enum { FILE_LIMIT = 256 << 20, MOST_TOKENS = 1 << 24 };

struct parser {
    const json_t *ids, *labels, *segments;
    const char *where;
    int64_t vocab;
    struct error *err;
};

static bool matrix(const struct parser *p, const json_t *root, const char *key, bool required,
                   const json_t **out)
{
    *out = json_object_get(root, key);
    if (*out && json_is_null(*out)) *out = NULL;
    if (!*out) return !required || fail(p->err, "%s: no %s", p->where, key);
    if (!json_is_array(*out)) return fail(p->err, "%s: %s is no list of rows", p->where, key);
    const size_t rows = json_array_size(p->ids ? p->ids : *out);
    if (json_array_size(*out) != rows || !rows) {
        return fail(p->err, "%s: %s has %zu rows, expected %zu", p->where, key,
                    json_array_size(*out), rows ? rows : 1);
    }
    const size_t columns = json_array_size(json_array_get(p->ids ? p->ids : *out, 0));
    for (size_t i = 0; i < rows; i++) {
        const json_t *row = json_array_get(*out, i);
        if (json_is_array(row) && json_array_size(row) == columns && columns) continue;
        return fail(p->err, "%s: row %zu of %s: expected a list of %zu numbers", p->where, i, key,
                    columns ? columns : 1);
    }
    return true;
}

static bool number(const struct parser *p, const json_t *list, const char *key, size_t r, size_t c,
                   int64_t most, int32_t *out)
{
    const json_t *v = json_array_get(json_array_get(list, r), c);
    const json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    const bool ignored = list == p->labels && n == -100;
    if ((n < 0 && !ignored) || n > most) {
        return fail(p->err,
                    "%s: row %zu, column %zu of %s: expected a whole number from 0 to %" PRId64,
                    p->where, r, c, key, most);
    }
    *out = (int32_t)n;
    return true;
}

static bool fill_row(struct batch_file *b, const struct parser *p, size_t r)
{
    struct batch *x = &b->batch;
    const size_t columns = (size_t)b->columns;
    int32_t segment = 0, before = 0;
    int64_t first = x->n;
    for (size_t c = 0; c < columns; c++) {
        const int64_t i = x->n;
        x->target[i] = -100;
        if (!number(p, p->ids, "input_ids", r, c, p->vocab - 1, &x->id[i])) return false;
        if (c + 1 < columns &&
            !number(p, p->labels, "labels", r, c + 1, p->vocab - 1, &x->target[i])) {
            return false;
        }
        if (p->segments && !number(p, p->segments, "segment_ids", r, c, INT32_MAX, &segment)) {
            return false;
        }
        if (c && segment != before) first = i;
        before = segment;
        x->position[i] = (int32_t)(i - first);
        x->span[2 * i] = (int32_t)first;
        x->span[2 * i + 1] = (int32_t)i;
        x->supervised += x->target[i] >= 0;
        x->n++;
    }
    int32_t unused; // the first label of a row is nobody's target, but it must be one
    return number(p, p->labels, "labels", r, 0, p->vocab - 1, &unused);
}

static bool fill(struct batch_file *b, struct parser *p, const json_t *root)
{
    if (!json_is_object(root)) return fail(p->err, "%s: expected an object", p->where);
    if (!matrix(p, root, "input_ids", true, &p->ids) ||
        !matrix(p, root, "labels", true, &p->labels) ||
        !matrix(p, root, "segment_ids", false, &p->segments)) {
        return false;
    }
    b->rows = (int64_t)json_array_size(p->ids);
    b->columns = (int64_t)json_array_size(json_array_get(p->ids, 0));
    if (b->columns > MOST_TOKENS / b->rows) {
        return fail(p->err, "%s: %" PRId64 " rows of %" PRId64 " tokens, at most %d expected",
                    p->where, b->rows, b->columns, MOST_TOKENS);
    }
    if (!batch_reserve(&b->batch, b->rows * b->columns, p->err)) return false;
    for (int64_t r = 0; r < b->rows; r++) {
        if (!fill_row(b, p, (size_t)r)) return false;
    }
    return b->batch.supervised > 0 || fail(p->err, "%s: no label carries loss", p->where);
}

bool batch_file_parse(struct batch_file *b, const char *text, size_t size, const char *where,
                      int64_t vocab, struct error *err)
{
    struct parser p = {.where = where, .vocab = vocab, .err = err};
    *b = (struct batch_file){0};
    json_t *root = json_parse(text, size, where, err);
    const bool ok = root && fill(b, &p, root);
    json_decref(root);
    if (!ok) batch_file_close(b);
    return ok;
}

bool batch_file_read(struct batch_file *b, const char *path, int64_t vocab, struct error *err)
{
    char *text;
    size_t size;
    *b = (struct batch_file){0};
    if (!file_read(&text, &size, path, FILE_LIMIT, err)) return false;
    const bool ok = batch_file_parse(b, text, size, path, vocab, err);
    mem_free(text);
    return ok;
}

void batch_file_close(struct batch_file *b)
{
    batch_free(&b->batch);
    *b = (struct batch_file){0};
}
