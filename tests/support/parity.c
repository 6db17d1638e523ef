// tests/support/parity.c - see parity.h.
#include "parity.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct parity_case parity_cases[] = {
    {"olmoe-gqa", "v4"},  {"olmoe-gqa", "v5"}, {"olmoe-clip", "v5"}, {"olmoe-many", "v4"},
    {"qwen-dense", "v4"}, {"qwen-step", "v5"}, {"qwen-all", "v4"},   {"qwen3-moe", "v5"},
    {"mixtral", "v4"},    {"mixtral", "v5"},   {"llama", "v4"},      {"llama3", "v5"},
    {"qwen2", "v4"},      {"qwen3", "v5"},     {"mistral", "v4"},
};
const int parity_n_cases = sizeof parity_cases / sizeof *parity_cases;
const int parity_n_moe_cases = 10;

static int32_t *batch_part(const struct parity *p, int i, const char *part)
{
    char name[64];
    snprintf(name, sizeof name, "batch%d.%s", i, part);
    return data_i32(fixture_get(&p->reference, name));
}

void parity_open(struct parity *p, const char *name)
{
    parity_open_in(p, "parity", name);
}

void parity_open_in(struct parity *p, const char *folder, const char *name)
{
    char path[256];
    *p = (struct parity){.folder = folder, .name = name, .prefix = ""};
    snprintf(path, sizeof path, "%s/%s/reference.safetensors", folder, name);
    fixture_open(&p->reference, path);
    for (int i = 0; i < PARITY_BATCHES; i++) {
        struct batch *b = &p->batch[i];
        char id[64];
        snprintf(id, sizeof id, "batch%d.id", i);
        b->n = fixture_get(&p->reference, id).dim[0];
        b->id = batch_part(p, i, "id");
        b->position = batch_part(p, i, "position");
        b->span = batch_part(p, i, "span");
        b->target = batch_part(p, i, "target");
        for (int64_t n = 0; n < b->n; n++) {
            b->supervised += b->target[n] >= 0;
        }
        if (b->n > p->max_tokens) p->max_tokens = b->n;
    }
}

void parity_close(struct parity *p)
{
    fixture_close(&p->reference);
}

struct model_setup parity_setup(const struct parity *p, const struct parity_case *c, enum dtype t)
{
    static char dir[1024]; // model_setup keeps the pointer
    snprintf(dir, sizeof dir, "%s/%s/%s/%s", FIXTURES, p->folder, c->name, c->layout);
    struct error err = {0};
    const struct routing *topk = routing_find("topk", &err);
    const struct tuning *full = tuning_find("full", &err);
    check_ok(topk && full, &err);
    return (struct model_setup){.dir = dir,
                                .ops = &cpu_ops,
                                .dtype = t,
                                .routing = topk,
                                .tuning = full,
                                .max_tokens = p->max_tokens};
}

void parity_model(struct model *m, const struct model_setup *s)
{
    struct error err = {0};
    check_ok(model_open(m, s, &err), &err);
    check_ok(model_allocate(m, &err), &err);
}

struct tensor parity_logits(struct model *m, const struct batch *b)
{
    const int64_t V = m->config.vocab;
    float *logits = mem_alloc((size_t)(b->n * V) * sizeof *logits);
    int32_t *row = mem_alloc((size_t)b->n * sizeof *row);
    assert_non_null(logits);
    assert_non_null(row);
    for (int64_t i = 0; i < b->n; i++) {
        row[i] = (int32_t)i;
    }
    model_logits(m, row, b->n, logits);
    mem_free(row);
    return tensor_2d(logits, DTYPE_F32, b->n, V);
}

// Mixtral's names where experts are one by one, in those of the others.
static void usual_name(char *out, size_t size, const char *leaf)
{
    static const char *const own[][2] = {{".block_sparse_moe.", ".mlp."},
                                         {".w1.", ".gate_proj."},
                                         {".w3.", ".up_proj."},
                                         {".w2.", ".down_proj."}};
    snprintf(out, size, "%s", leaf);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        const char *at = strstr(leaf, ".block_sparse_moe.") ? strstr(out, own[i][0]) : NULL;
        if (!at) continue;
        char rest[256];
        snprintf(rest, sizeof rest, "%s", at + strlen(own[i][0]));
        snprintf(out + (at - out), size - (size_t)(at - out), "%s%s", own[i][1], rest);
    }
}

// "A.experts.7.up_proj.weight" is the lower half of A.experts.gate_up_proj[7].
static struct tensor gradient_of_expert(const struct parity *p, const char *leaf,
                                        const char *experts)
{
    const int prefix = (int)(experts - leaf) + (int)strlen(".experts");
    char *projection, name[256];
    const long expert = strtol(leaf + prefix + 1, &projection, 10);
    const bool down = !strcmp(projection, ".down_proj.weight");
    snprintf(name, sizeof name, "%sgrad.%.*s.%s", p->prefix, prefix, leaf,
             down ? "down_proj" : "gate_up_proj");
    const struct tensor all = fixture_get(&p->reference, name);
    assert_int_equal(all.rank, 3);
    assert_in_range(expert, 0, all.dim[0] - 1);
    const struct tensor rows = tensor_reshape_2d(all, all.dim[0] * all.dim[1], all.dim[2]);
    if (down) return tensor_rows(rows, expert * all.dim[1], all.dim[1]);
    const bool up = !strcmp(projection, ".up_proj.weight");
    if (!up) assert_string_equal(projection, ".gate_proj.weight");
    const int64_t half = all.dim[1] / 2;
    return tensor_rows(rows, (2 * expert + up) * half, half);
}

struct tensor parity_gradient(const struct parity *p, const char *leaf)
{
    char name[256], usual[256];
    usual_name(usual, sizeof usual, leaf);
    snprintf(name, sizeof name, "%sgrad.%.200s", p->prefix, usual);
    if (fixture_has(&p->reference, name)) return fixture_get(&p->reference, name);
    const char *experts = strstr(usual, ".experts.");
    if (!experts) fail_msg("%s: no gradient of %s", p->name, leaf);
    return gradient_of_expert(p, usual, experts);
}

bool parity_dense(const struct parity *p)
{
    for (int64_t i = 0; i < p->reference.st.count; i++) {
        if (!strncmp(p->reference.st.entry[i].name, "routes.", 7)) return false;
    }
    return true;
}

struct tensor parity_of_layer(const struct parity *p, const char *what, int64_t layer)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s.%d", p->prefix, what, (int)layer);
    return fixture_get(&p->reference, name);
}
