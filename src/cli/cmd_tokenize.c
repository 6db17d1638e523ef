// cli/cmd_tokenize.c - text to ids, or ids to text, line by line.
#include "base/mem.h"
#include "cli/commands.h"
#include "io/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct lines {
    FILE *file;
    const char *name;
    char *text; // of getline, so freed with free
    size_t capacity;
    int64_t number;
};

static bool write_ids(struct output *io, const struct tokens *ids)
{
    fputc('[', io->result);
    for (int64_t i = 0; i < ids->count; i++) {
        fprintf(io->result, i ? ", %" PRId32 : "%" PRId32, ids->id[i]);
    }
    fputs("]\n", io->result);
    return !ferror(io->result);
}

static bool read_ids(struct tokens *ids, const char *text, size_t size, const char *where,
                     struct error *err)
{
    json_t *root = json_parse(text, size, where, err);
    if (!root) return false;
    bool ok = json_is_array(root) || fail(err, "%s: expected a JSON array of token ids", where);
    for (size_t i = 0; ok && i < json_array_size(root); i++) {
        const json_t *id = json_array_get(root, i);
        const json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value > INT32_MAX) {
            ok = fail(err, "%s: element %zu is no token id", where, i);
        } else {
            ok = tokens_add(ids, (int32_t)value) || fail(err, "%s: no memory", where);
        }
    }
    json_decref(root);
    return ok;
}

static bool one_line(const struct options *o, const struct tokenizer *t, struct output *io,
                     const struct lines *l, size_t size, struct error *err)
{
    struct tokens ids = {0};
    struct buf text = {0};
    char where[4200];
    snprintf(where, sizeof where, "%s:%" PRId64, l->name, l->number);
    bool ok;
    if (o->config.decode) {
        ok = read_ids(&ids, l->text, size, where, err) &&
             (tokenizer_decode(t, ids.id, ids.count, !o->config.special, &text, err) ||
              fail_in(err, "%s", where));
        if (ok && text.size) fwrite(text.data, 1, text.size, io->result);
        if (ok) fputc('\n', io->result);
    } else {
        ok = tokenizer_encode(t, l->text, size, o->config.special, &ids, err) ||
             fail_in(err, "%s", where);
        if (ok) write_ids(io, &ids);
    }
    tokens_free(&ids);
    buf_free(&text);
    return ok;
}

static bool all_lines(const struct options *o, const struct tokenizer *t, struct output *io,
                      struct lines *l, struct error *err)
{
    ssize_t n;
    errno = 0;
    while (!ferror(io->result) && (n = getline(&l->text, &l->capacity, l->file)) >= 0) {
        l->number++;
        size_t size = (size_t)n;
        if (size && l->text[size - 1] == '\n') size--;
        if (!one_line(o, t, io, l, size, err)) return false;
        errno = 0;
    }
    if (ferror(l->file) || errno) return fail(err, "%s: cannot read: %s", l->name, strerror(errno));
    return true;
}

enum status command_tokenize(struct options *o, struct output *io, struct error *err)
{
    struct lines l = {.file = stdin, .name = "standard input"};
    struct tokenizer *t = tokenizer_open(o->config.model, err);
    if (!t) return STATUS_FAILED;
    bool ok = true;
    if (o->config.file) {
        l.name = o->config.file;
        l.file = fopen(l.name, "rb");
        if (!l.file) ok = fail(err, "%s: cannot open: %s", l.name, strerror(errno));
    }
    ok = ok && all_lines(o, t, io, &l, err);
    if (l.file && l.file != stdin) fclose(l.file);
    free(l.text);
    tokenizer_close(t);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
