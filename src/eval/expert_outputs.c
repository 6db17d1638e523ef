// eval/expert_outputs.c - what every expert of a layer puts out for the same tokens (similarity.h): one route after
// another that names a single expert with weight 1.
#include "eval/similarity.h"

#include "base/mem.h"

#include <math.h>

enum { BLOCK = 32 };

// One description of the backend's memory: base NULL measures.
static size_t lay_out(struct expert_outputs *o, char *base, enum dtype A)
{
    const int64_t B = o->block, E = o->experts, C = o->width;
    size_t at = 0;
    struct {
        struct tensor *t;
        enum dtype dtype;
        int64_t rows, cols;
    } all[] = {{&o->y, DTYPE_F32, B * E, C},
               {&o->gram, DTYPE_F32, B * E, E},
               {&o->one, A, B, C},
               {&o->of, DTYPE_F32, B, C},
               {&o->expert, DTYPE_I32, B, 1},
               {&o->weight, DTYPE_F32, B, 1},
               {&o->row, DTYPE_I32, B, 1},
               {&o->offsets, DTYPE_I32, B + 1, 1}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *all[i].t = tensor_2d(base ? base + at : NULL, all[i].dtype, all[i].rows, all[i].cols);
        at += (tensor_bytes(*all[i].t) + 63) / 64 * 64;
    }
    o->table = base ? base + at : NULL;
    return at + (size_t)B * sizeof(void *);
}

// Where each token's rows of y begin does not change.
static void fill_tables(struct expert_outputs *o)
{
    void *pointer[BLOCK];
    int32_t offset[BLOCK + 1];
    for (int64_t n = 0; n <= o->block; n++) {
        offset[n] = (int32_t)(n * o->experts);
        if (n < o->block) pointer[n] = tensor_rows(o->y, n * o->experts, o->experts).data;
    }
    o->ops->upload(o->table, pointer, (size_t)o->block * sizeof *pointer);
    o->ops->upload(o->offsets.data, offset, (size_t)(o->block + 1) * sizeof *offset);
    o->ops->fill(o->weight, 1);
}

bool expert_outputs_open(struct expert_outputs *o, const struct model *m, int64_t tokens,
                         struct error *err)
{
    const enum dtype A = model_moe_input(m, 0).dtype;
    *o = (struct expert_outputs){.ops = m->setup.ops,
                                 .experts = m->config.n_experts,
                                 .width = m->config.width,
                                 .block = tokens < BLOCK ? tokens : BLOCK};
    o->bytes = lay_out(o, NULL, A);
    o->memory = o->ops->allocate(o->bytes);
    const int64_t rows = o->block * o->experts;
    o->host = mem_alloc((size_t)(rows * o->width) * sizeof *o->host);
    o->host_gram = mem_alloc((size_t)(rows * o->experts) * sizeof *o->host_gram);
    o->fill = mem_alloc((size_t)o->block * 2 * sizeof *o->fill);
    if (!o->memory || !o->host || !o->host_gram || !o->fill) {
        expert_outputs_close(o);
        return fail(err, "no memory for the outputs of %lld experts",
                    (long long)m->config.n_experts);
    }
    lay_out(o, o->memory, A);
    fill_tables(o);
    return true;
}

void expert_outputs_close(struct expert_outputs *o)
{
    if (o->memory) o->ops->release(o->memory, o->bytes);
    mem_free(o->host);
    mem_free(o->host_gram);
    mem_free(o->fill);
    *o = (struct expert_outputs){0};
}

void expert_outputs_of(struct expert_outputs *o, struct model *m, int64_t layer, struct tensor x)
{
    const int64_t n = x.dim[0], E = o->experts;
    int32_t *named = o->fill, *row = o->fill + o->block;
    const struct route route = {tensor_rows(o->expert, 0, n), tensor_rows(o->weight, 0, n)};
    const struct tensor one = tensor_rows(o->one, 0, n), of = tensor_rows(o->of, 0, n);
    for (int64_t e = 0; e < E; e++) {
        for (int64_t i = 0; i < n; i++) {
            named[i] = (int32_t)e;
            row[i] = (int32_t)(i * E + e);
        }
        o->ops->upload(route.expert.data, named, (size_t)n * sizeof *named);
        o->ops->upload(o->row.data, row, (size_t)n * sizeof *row);
        model_moe_output(m, layer, x, &route, one);
        o->ops->convert(of, one);
        o->ops->place_rows(o->y, of, tensor_1d(o->row.data, DTYPE_I32, n));
    }
    const struct tensor y = tensor_rows(o->y, 0, n * E), gram = tensor_rows(o->gram, 0, n * E);
    const struct matrices w = {n, E, o->width, DTYPE_F32, o->table};
    o->ops->matmul_forward(gram, y, &w, tensor_1d(o->offsets.data, DTYPE_I32, n + 1), false);
    o->ops->download(o->host, y.data, tensor_bytes(y));
    o->ops->download(o->host_gram, gram.data, tensor_bytes(gram));
}

void expert_outputs_kept(double *sum, const struct expert_outputs *a,
                         const struct expert_outputs *b, int64_t n)
{
    const int64_t C = a->width;
    for (int64_t i = 0; i < n * a->experts; i++) {
        const float *x = a->host + i * C, *y = b->host + i * C;
        double xy = 0, xx = 0, yy = 0;
        for (int64_t c = 0; c < C; c++) {
            xy += (double)x[c] * (double)y[c];
            xx += (double)x[c] * (double)x[c];
            yy += (double)y[c] * (double)y[c];
        }
        if (xx > 0 && yy > 0) *sum += xy / sqrt(xx * yy);
    }
}
