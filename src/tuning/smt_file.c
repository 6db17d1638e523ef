// tuning/smt_file.c - blocks by name: the selection that a scoring stage leaves or the user gives, and the files of
// an adapter, where each block is a tensor whose name says where it belongs.
#include "tuning/smt.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096, FILE_LIMIT = 1 << 30 };

static const char *const select_name[] = {"gradient", "activation"};
static const char *const score_name[] = {"abs_mean", "mean_abs", "l1", "l2"};
static const char config_file[] = "smt_config.json";

void smt_blocks_free(struct smt_blocks *b)
{
    mem_free(b->block);
    *b = (struct smt_blocks){0};
}

bool smt_blocks_add(struct smt_blocks *b, const struct tuning_input *in, const struct smt_block *at,
                    const char *where, struct error *err)
{
    const struct bank *bank = in->bank[at->bank];
    const bool whole = in->options->smt.select == SMT_SELECT_ACTIVATION;
    const int64_t height = whole ? bank->out : in->options->smt.block;
    const int64_t width = whole ? 1 : in->options->smt.block;
    if (at->row < 0 || at->column < 0 || at->row >= bank->out || at->column >= bank->in ||
        at->row % height || at->column % width) {
        char module[NAME_MAX_LENGTH];
        bank_module(module, bank, at->group);
        return fail(err,
                    "%s: %s (%" PRId64 " x %" PRId64 "): no block of %" PRId64 " x %" PRId64
                    " begins at row %" PRId64 ", column %" PRId64,
                    where, module, bank->out, bank->in, height, width, at->row, at->column);
    }
    struct smt_block *grown = array_grow(b->block, b->count, &b->capacity, sizeof *grown);
    if (!grown) return fail(err, "%s: no memory for %" PRId64 " blocks", where, b->count + 1);
    b->block = grown;
    struct smt_block *x = &b->block[b->count++];
    *x = *at;
    x->rows = height < bank->out - x->row ? height : bank->out - x->row;
    x->columns = width < bank->in - x->column ? width : bank->in - x->column;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct smt_block *x = a, *y = b;
    const int64_t p[] = {x->bank, x->group, x->row, x->column};
    const int64_t q[] = {y->bank, y->group, y->row, y->column};
    for (int i = 0; i < 4; i++) {
        if (p[i] != q[i]) return p[i] < q[i] ? -1 : 1;
    }
    return 0;
}

bool smt_blocks_sort(struct smt_blocks *b, const struct tuning_input *in, const char *where,
                     struct error *err)
{
    char name[NAME_MAX_LENGTH];
    if (!b->count) return fail(err, "%s: no block at all", where);
    qsort(b->block, (size_t)b->count, sizeof *b->block, by_place);
    for (int64_t i = 1; i < b->count; i++) {
        if (by_place(&b->block[i - 1], &b->block[i]) != 0) continue;
        smt_block_name(name, in, &b->block[i]);
        return fail(err, "%s: %s is there twice", where, name);
    }
    return true;
}

void smt_block_name(char out[NAME_MAX_LENGTH], const struct tuning_input *in,
                    const struct smt_block *b)
{
    char module[NAME_MAX_LENGTH];
    bank_module(module, in->bank[b->bank], b->group);
    snprintf(out, NAME_MAX_LENGTH, "%.100s.weight[%" PRId64 ":%" PRId64 ",%" PRId64 ":%" PRId64 "]",
             module, b->row, b->row + b->rows, b->column, b->column + b->columns);
}

// "model.layers.3.mlp.experts.7.up_proj" is matrix 7 of the bank "model.layers.3.mlp.experts.*.up_proj".
static bool find_module(const struct tuning_input *in, const char *module, struct smt_block *at)
{
    for (int64_t i = 0; i < in->n_banks; i++) {
        const struct bank *b = in->bank[i];
        const char *star = strchr(b->name, '*');
        at->bank = i;
        at->group = 0;
        if (!star && !strcmp(b->name, module)) return true;
        if (!star || strncmp(b->name, module, (size_t)(star - b->name)) != 0) continue;
        const char *number = module + (star - b->name);
        const size_t digits = strspn(number, "0123456789");
        if (!digits || digits > 6 || strcmp(number + digits, star + 1) != 0) continue;
        at->group = strtoll(number, NULL, 10);
        if (at->group < b->groups) return true;
    }
    return false;
}

static bool read_block(struct smt_blocks *b, const struct tuning_input *in, struct smt_block at,
                       const json_t *x, const char *where, struct error *err)
{
    const json_t *row = json_array_get(x, 0), *column = json_array_get(x, 1);
    const json_t *score = json_array_get(x, 2);
    if (!json_is_integer(row) || !json_is_integer(column) || json_array_size(x) > 3 ||
        (score && !json_is_number(score))) {
        return fail(err, "%s: a block is [row, column] or [row, column, score]", where);
    }
    at.row = json_integer_value(row);
    at.column = json_integer_value(column);
    at.score = json_number_value(score);
    return smt_blocks_add(b, in, &at, where, err);
}

static bool read_modules(struct smt_blocks *b, const struct tuning_input *in, json_t *modules,
                         const char *where, struct error *err)
{
    const char *module;
    json_t *list;
    for (void *at = json_object_iter(modules); at; at = json_object_iter_next(modules, at)) {
        struct smt_block place = {0};
        module = json_object_iter_key(at);
        list = json_object_iter_value(at);
        if (!find_module(in, module, &place)) {
            return fail(err, "%s: %s: no linear of the model", where, module);
        }
        if (!json_is_array(list)) return fail(err, "%s: %s: not a list", where, module);
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (!read_block(b, in, place, json_array_get(list, i), where, err)) return false;
        }
    }
    return smt_blocks_sort(b, in, where, err);
}

// The two fields without which a position means nothing.
static bool read_head(const json_t *file, int64_t *size, int *select, const char *where,
                      struct error *err)
{
    const char *name = NULL;
    if (!json_is_object(file)) return fail(err, "%s: not an object", where);
    if (!json_get_int(file, "block_size", 1, INT32_MAX, true, size, where, err) ||
        !json_get_text(file, "select", true, &name, where, err)) {
        return false;
    }
    for (*select = 0; *select < 2; ++*select) {
        if (!strcmp(select_name[*select], name)) return true;
    }
    return fail(err, "%s: select is '%s'; gradient or activation expected", where, name);
}

bool smt_blocks_read(struct smt_blocks *b, const struct tuning_input *in, const char *path,
                     struct error *err)
{
    const struct smt_options *o = &in->options->smt;
    int64_t size = 0;
    int select = 0;
    *b = (struct smt_blocks){0};
    json_t *file = json_parse_file(path, FILE_LIMIT, err);
    if (!file) return false;
    bool ok = read_head(file, &size, &select, path, err);
    if (ok && size != o->block) {
        ok = fail(err, "%s: block_size is %" PRId64 ", --smt-block is %" PRId64, path, size,
                  o->block);
    }
    if (ok && select != o->select) {
        ok = fail(err, "%s: select is %s, --smt-select is %s", path, select_name[select],
                  select_name[o->select]);
    }
    json_t *modules = json_object_get(file, "blocks");
    if (ok && !json_is_object(modules)) {
        ok = fail(err, "%s: blocks: an object of modules expected", path);
    }
    ok = ok && read_modules(b, in, modules, path, err);
    json_decref(file);
    if (!ok) smt_blocks_free(b);
    return ok;
}

static json_t *json_of_blocks(const struct smt_blocks *b, const struct tuning_input *in)
{
    json_t *modules = json_object();
    for (int64_t i = 0; i < b->count; i++) {
        char module[NAME_MAX_LENGTH];
        const struct smt_block *x = &b->block[i];
        bank_module(module, in->bank[x->bank], x->group);
        json_t *list = json_object_get(modules, module);
        if (!list) {
            list = json_array();
            json_object_set_new(modules, module, list);
        }
        json_array_append_new(
            list, json_pack("[I, I, f]", (json_int_t)x->row, (json_int_t)x->column, x->score));
    }
    return modules;
}

bool smt_blocks_write(const struct smt_blocks *b, const struct tuning_input *in, const char *path,
                      struct error *err)
{
    const struct smt_options *o = &in->options->smt;
    json_t *file = json_pack("{s:I, s:s, s:s, s:o}", "block_size", (json_int_t)o->block, "select",
                             select_name[o->select], "score", score_name[o->score], "blocks",
                             json_of_blocks(b, in));
    const bool ok = file ? json_write_file(path, file, err) : fail(err, "%s: no memory", path);
    json_decref(file);
    return ok;
}

// MODULE.weight[ROW:END,COLUMN:END], or false: another tensor (a weight that learnt whole).
static bool parse_name(char module[NAME_MAX_LENGTH], struct smt_block *at, const char *name)
{
    static const char suffix[] = ".weight[";
    const char *open = strstr(name, suffix);
    long long row, rows, column, columns;
    int end = 0;
    if (!open || open - name >= NAME_MAX_LENGTH) return false;
    if (sscanf(open + sizeof suffix - 1, "%18lld:%18lld,%18lld:%18lld]%n", &row, &rows, &column,
               &columns, &end) != 4 ||
        !end || open[sizeof suffix - 1 + (size_t)end]) {
        return false;
    }
    snprintf(module, NAME_MAX_LENGTH, "%.*s", (int)(open - name), name);
    at->row = row, at->rows = rows - row;
    at->column = column, at->columns = columns - column;
    return true;
}

bool smt_blocks_of_adapter(struct smt_blocks *b, const struct tuning_input *in, struct error *err)
{
    const struct safetensors *file = in->adapter;
    *b = (struct smt_blocks){0};
    bool ok = true;
    for (int64_t i = 0; ok && i < file->count; i++) {
        char module[NAME_MAX_LENGTH];
        struct smt_block at = {0};
        if (!parse_name(module, &at, file->entry[i].name)) continue;
        if (!find_module(in, module, &at)) {
            ok = fail(err, "%s: %s: no linear of the model", file->path, file->entry[i].name);
        }
        ok = ok && smt_blocks_add(b, in, &at, file->path, err);
    }
    if (ok && smt_blocks_sort(b, in, file->path, err)) return true;
    smt_blocks_free(b);
    return false;
}

bool smt_config_write(const struct smt_blocks *b, const struct tuning_input *in, const char *dir,
                      struct error *err)
{
    char path[PATH_SIZE];
    if (!path_join(path, sizeof path, dir, config_file, err)) return false;
    json_t *file =
        json_pack("{s:I, s:s, s:I}", "block_size", (json_int_t)in->options->smt.block, "select",
                  select_name[in->options->smt.select], "blocks", (json_int_t)b->count);
    const bool ok = file ? json_write_file(path, file, err) : fail(err, "%s: no memory", path);
    json_decref(file);
    return ok;
}

bool smt_config_read(bool *mine, struct tuning_options *r, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    if (!path_join(path, sizeof path, dir, config_file, err)) return false;
    *mine = file_exists(path);
    if (!*mine) return true;
    json_t *file = json_parse_file(path, FILE_LIMIT, err);
    if (!file) return false;
    const bool ok = read_head(file, &r->smt.block, &r->smt.select, path, err);
    json_decref(file);
    return ok;
}
