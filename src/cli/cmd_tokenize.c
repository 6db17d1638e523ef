// cli/cmd_tokenize.c - text to ids, or ids to text, line by line.
#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "io/dataset_source.h"
#include "io/json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct lines {
    FILE *file;
    const char *name;
    struct buf text; // of the line last read, without its end
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
                     const struct lines *l, struct error *err)
{
    struct tokens ids = {0};
    struct buf text = {0};
    char where[4200];
    snprintf(where, sizeof where, "%s:%" PRId64, l->name, l->number);
    bool ok;
    if (o->config.decode) {
        ok = read_ids(&ids, l->text.data, l->text.size, where, err) &&
             (tokenizer_decode(t, ids.id, ids.count, !o->config.special, &text, err) ||
              fail_in(err, "%s", where));
        if (ok && text.size) fwrite(text.data, 1, text.size, io->result);
        if (ok) fputc('\n', io->result);
    } else {
        ok = tokenizer_encode(t, l->text.data, l->text.size, o->config.special, &ids, err) ||
             fail_in(err, "%s", where);
        if (ok) write_ids(io, &ids);
    }
    tokens_free(&ids);
    buf_free(&text);
    return ok;
}

// Bytes of a line up to its end or `most`, *ended at its end or the file's.
static size_t read_piece(char *piece, size_t most, bool *ended, FILE *f)
{
    size_t n = 0;
    for (int c; n < most; piece[n++] = (char)c) {
        c = getc_unlocked(f);
        *ended = c == EOF || c == '\n';
        if (*ended) break;
    }
    return n;
}

// The next line: false at the end, and on an error, which err then holds. A device can have a line without an
// end, so no more is read of one than an example may hold.
static bool next_line(struct lines *l, struct error *err)
{
    char piece[4096];
    bool ended = false;
    l->text.size = 0;
    errno = 0;
    while (!ended) {
        const size_t n = read_piece(piece, sizeof piece, &ended, l->file);
        if (l->text.size + n > EXAMPLE_LIMIT) {
            return fail(err, "%s:%" PRId64 ": more than %d bytes, the limit", l->name,
                        l->number + 1, EXAMPLE_LIMIT);
        }
        if (!buf_append(&l->text, piece, n)) return fail(err, "%s: no memory", l->name);
    }
    if (ferror(l->file)) return fail(err, "%s: cannot read: %s", l->name, strerror(errno));
    if (feof(l->file) && !l->text.size) return false;
    l->number++;
    return true;
}

static bool all_lines(const struct options *o, const struct tokenizer *t, struct output *io,
                      struct lines *l, struct error *err)
{
    err->msg[0] = 0;
    while (!ferror(io->result) && next_line(l, err)) {
        if (!one_line(o, t, io, l, err)) return false;
    }
    return !err->msg[0];
}

// A stream comes on standard input; under a name it would be waited for.
static bool open_file(struct lines *l, const char *path, struct error *err)
{
    uint64_t size;
    l->name = path;
    l->file = NULL;
    if (!file_size(&size, path, err)) return false;
    l->file = fopen(path, "rb");
    return l->file || fail(err, "%s: cannot open: %s", path, strerror(errno));
}

enum status command_tokenize(struct options *o, struct output *io, struct error *err)
{
    struct lines l = {.file = stdin, .name = "standard input"};
    struct tokenizer *t = tokenizer_open(o->config.model, err);
    if (!t) return STATUS_FAILED;
    bool ok = !o->config.file || open_file(&l, o->config.file, err);
    ok = ok && all_lines(o, t, io, &l, err);
    if (l.file && l.file != stdin) fclose(l.file);
    buf_free(&l.text);
    tokenizer_close(t);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
