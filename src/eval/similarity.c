// eval/similarity.c - see similarity.h; the outputs are in expert_outputs.c.
#include "eval/similarity.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { STRIP_ELEMENTS = 1 << 22 }; // of all experts' matrices, in F32 at a time

static double cosine(double xy, double xx, double yy)
{
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

int64_t similarity_add_pairs(double *sum, const float *gram, int64_t E)
{
    for (int64_t i = 0; i < E; i++) {
        for (int64_t j = i + 1; j < E; j++) {
            *sum +=
                cosine((double)gram[i * E + j], (double)gram[i * E + i], (double)gram[j * E + j]);
        }
    }
    return E * (E - 1) / 2;
}

// The matrices of a bank, one after another as vectors: where they lie, or with an adapter folded in.
struct flat {
    const struct model *m;
    const struct bank *bank;
    float *merged; // (E, out * in), where there is an adapter; else NULL
};

static const struct weight *weight_of(const struct flat *f, int64_t expert)
{
    return &f->m->weights.weight[f->bank->weight[expert]];
}

// Values [first, first + n) of an expert's matrix.
static void read_flat(const struct flat *f, float *out, int64_t expert, int64_t first, int64_t n)
{
    const struct bank *b = f->bank;
    if (f->merged) {
        memcpy(out, f->merged + expert * b->out * b->in + first, (size_t)n * sizeof *out);
        return;
    }
    const struct tensor w = weight_of(f, expert)->value;
    const size_t size = dtype_size(w.dtype);
    char raw[4096];
    for (int64_t i = 0, most = (int64_t)(sizeof raw / size); i < n; i += most) {
        const int64_t part = n - i < most ? n - i : most;
        f->m->setup.ops->download(raw, (const char *)w.data + (size_t)(first + i) * size,
                                  (size_t)part * size);
        dtype_convert(out + i, DTYPE_F32, raw, w.dtype, part);
    }
}

static bool open_flat(struct flat *f, const struct model *m, const struct bank *b,
                      struct error *err)
{
    *f = (struct flat){.m = m, .bank = b};
    const struct tuning *t = m->setup.tuning;
    const int64_t n = b->out * b->in;
    if (!b->adapter || !t->merge) return true;
    float *all = mem_alloc((size_t)(b->groups * n) * sizeof *all);
    if (!all) return fail(err, "%s: no memory for the merged matrices", b->name);
    bool ok = true;
    for (int64_t e = 0; ok && e < b->groups; e++) {
        read_flat(f, all + e * n, e, 0, n);
        ok = t->merge(m->tuning_state, b, e, all + e * n, err);
    }
    f->merged = all;
    return ok;
}

static const struct bank *bank_of(const struct model *m, int64_t layer, const char *projection)
{
    for (int64_t i = 0; i < m->n_banks; i++) {
        const struct bank *b = m->bank[i];
        if (b->part == PART_EXPERT && b->layer == layer && !strcmp(b->projection, projection)) {
            return b;
        }
    }
    return NULL;
}

// Products of the experts' vectors, of one layer so far.
struct products {
    const struct ops *ops;
    int64_t E, columns;     // of a strip
    struct tensor strip[2]; // (E, columns) F32 on the backend: the model's, the base's
    struct tensor gram;     // (E,E) F32, of one strip
    void *table, *memory;   // a pointer, for the products; all of the backend's memory
    size_t bytes;
    float *host[2], *one;  // strips in host memory; a gram
    double *sum[2], *kept; // (E,E) of each; (E) of an expert with itself
};

static bool products_open(struct products *p, const struct model *m, struct error *err)
{
    const int64_t E = m->config.n_experts, n = E > STRIP_ELEMENTS / 64 ? 64 : STRIP_ELEMENTS / E;
    *p = (struct products){.ops = m->setup.ops, .E = E, .columns = n};
    const size_t strip = (size_t)(E * n) * sizeof(float), gram = (size_t)(E * E) * sizeof(float);
    p->bytes = 64 + 2 * strip + gram;
    char *at = p->memory = p->ops->allocate(p->bytes);
    p->one = mem_alloc(gram);
    p->kept = mem_zalloc((size_t)E, sizeof *p->kept);
    for (int i = 0; i < 2; i++) {
        p->host[i] = mem_alloc(strip);
        p->sum[i] = mem_zalloc((size_t)(E * E), sizeof *p->sum[i]);
        if (at) p->strip[i] = tensor_2d(at + 64 + (size_t)i * strip, DTYPE_F32, E, n);
    }
    if (at) p->gram = tensor_2d(at + 64 + 2 * strip, DTYPE_F32, E, E);
    p->table = at;
    return (at && p->one && p->kept && p->host[0] && p->host[1] && p->sum[0] && p->sum[1]) ||
           fail(err, "no memory for the products of %lld experts", (long long)E);
}

static void products_close(struct products *p)
{
    if (p->memory) p->ops->release(p->memory, p->bytes);
    mem_free(p->one);
    mem_free(p->kept);
    for (int i = 0; i < 2; i++) {
        mem_free(p->host[i]);
        mem_free(p->sum[i]);
    }
}

// sum += X X^T of one strip (E,n), whose float32 sums are short.
static void add_strip(struct products *p, int which, const struct flat *f, int64_t first, int64_t n)
{
    const struct tensor x = tensor_2d(p->strip[which].data, DTYPE_F32, p->E, n);
    for (int64_t e = 0; e < p->E; e++) {
        read_flat(f, p->host[which] + e * n, e, first, n);
    }
    p->ops->upload(x.data, p->host[which], tensor_bytes(x));
    p->ops->upload(p->table, &x.data, sizeof x.data);
    const struct matrices w = {1, p->E, n, DTYPE_F32, p->table};
    p->ops->matmul_forward(p->gram, x, &w, tensor_absent(), false);
    p->ops->download(p->one, p->gram.data, tensor_bytes(p->gram));
    for (int64_t i = 0; i < p->E * p->E; i++) {
        p->sum[which][i] += (double)p->one[i];
    }
}

static void add_kept(struct products *p, int64_t n)
{
    for (int64_t e = 0; e < p->E; e++) {
        const float *x = p->host[0] + e * n, *y = p->host[1] + e * n;
        double dot = 0;
        for (int64_t i = 0; i < n; i++) {
            dot += (double)x[i] * (double)y[i];
        }
        p->kept[e] += dot;
    }
}

static bool add_bank(struct products *p, const struct model *m, const struct model *base,
                     const struct bank *b, struct error *err)
{
    struct flat f[2] = {{0}};
    const struct bank *other = base ? bank_of(base, b->layer, b->projection) : NULL;
    bool ok = open_flat(&f[0], m, b, err) && (!base || open_flat(&f[1], base, other, err));
    const int64_t total = b->out * b->in;
    for (int64_t first = 0; ok && first < total; first += p->columns) {
        const int64_t n = total - first < p->columns ? total - first : p->columns;
        for (int i = 0; i < (base ? 2 : 1); i++) {
            add_strip(p, i, &f[i], first, n);
        }
        if (base) add_kept(p, n);
    }
    mem_free(f[0].merged);
    mem_free(f[1].merged);
    return ok;
}

static double mean_pair(const double *sum, int64_t E)
{
    double all = 0;
    for (int64_t i = 0; i < E; i++) {
        for (int64_t j = i + 1; j < E; j++) {
            all += cosine(sum[i * E + j], sum[i * E + i], sum[j * E + j]);
        }
    }
    return E > 1 ? all / ((double)E * (double)(E - 1) / 2) : (double)NAN;
}

bool similarity_of_weights(struct similarity *s, const struct model *m, const struct model *base,
                           int64_t layer, struct error *err)
{
    struct products p;
    const int64_t E = m->config.n_experts;
    *s = (struct similarity){(double)NAN, (double)NAN, (double)NAN};
    bool ok = products_open(&p, m, err);
    for (int64_t i = 0; ok && i < m->n_banks; i++) {
        const struct bank *b = m->bank[i];
        if (b->part == PART_EXPERT && b->layer == layer) ok = add_bank(&p, m, base, b, err);
    }
    ok = ok && p.ops->check(err);
    if (ok) s->own = mean_pair(p.sum[0], E);
    if (ok && base) {
        s->base = mean_pair(p.sum[1], E);
        double kept = 0;
        for (int64_t e = 0; e < E; e++) {
            kept += cosine(p.kept[e], p.sum[0][e * E + e], p.sum[1][e * E + e]);
        }
        s->kept = kept / (double)E;
    }
    products_close(&p);
    return ok;
}
