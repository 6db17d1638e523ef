// cli/bench_child.c - see bench_child.h.
#include "cli/bench_child.h"

#include "base/mem.h"
#include "base/rng.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "model/init.h"
#include "train/optimizer.h"

#include <inttypes.h>

// CALLS of a product on a device before it is waited for, whose way there and back would count else.
enum { REPEATS = 4, CALLS = 8 };

// Multiply-adds counted as two, of the linear layers over all tokens, the router and the head included,
// and of attention's two products over a causal triangle.
static double forward_flops(const struct model_config *c, const struct batch *b)
{
    const double C = (double)c->width, HD = (double)(c->n_heads * c->head_dim);
    const double GD = (double)(c->n_kv_heads * c->head_dim);
    double linear = C * (double)c->vocab, pairs = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        linear += 2 * C * HD + 2 * C * GD;
        if (c->moe_layer[l]) {
            linear += C * (double)c->n_experts;
            linear += 3 * C * (double)(c->experts_per_tok * c->expert_width);
            linear += 3 * C * (double)c->shared_width + (c->shared_gate ? C : 0);
        } else {
            linear += 3 * C * (double)c->dense_width;
        }
    }
    for (int64_t n = 0; n < b->n; n++) {
        const bool last = n + 1 == b->n || b->position[n + 1] == 0;
        const double length = (double)b->position[n] + 1;
        if (last) pairs += length * length / 2;
    }
    return 2 * linear * (double)b->n + 4 * HD * pairs * (double)c->n_layers;
}

static bool random_batch(struct batch *b, const struct run_config *c, int64_t vocab,
                         struct error *err)
{
    struct rng r = {.seed = (uint64_t)c->seed, .stream = 0x62656e6368};
    const int64_t tokens = c->tokens;
    int32_t *id = mem_alloc((size_t)tokens * sizeof *id);
    uint8_t *learn = mem_alloc((size_t)tokens);
    bool ok = (id && learn) || fail(err, "no memory for %" PRId64 " tokens", tokens);
    ok = ok && batch_reserve(b, tokens, err);
    for (int64_t i = 0; ok && i < tokens; i++) {
        id[i] = (int32_t)rng_below(&r, vocab);
        learn[i] = 1;
    }
    for (int64_t at = 0; ok && at < tokens; at += c->sequence) {
        batch_append(b, id + at, learn, tokens - at < c->sequence ? tokens - at : c->sequence);
    }
    mem_free(id);
    mem_free(learn);
    return ok;
}

static void end_micro_batch(const struct model *m)
{
    const struct routing *r = m->setup.routing;
    if (m->routing_state && r->after_micro_batch) r->after_micro_batch(m->routing_state);
}

// The backward pass and the n-th update.
static void move(struct model *m, struct optimizer *o, const struct batch *b, int64_t n)
{
    const struct train_options t = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1};
    struct update fused = {o, &t, 1e-5, n};
    double norm;
    if (m->setup.storage.shared_gradients) {
        fused_update_begin(&fused, m->loss_sum);
        m->gradients = (struct gradient_watcher){&fused, fused_update_section};
        model_backward(m, b);
    } else {
        model_backward(m, b);
        optimizer_measure(o, m->loss_sum, t.clip);
        optimizer_update(o, &t, 1e-5, n);
    }
    model_refresh(m);
    end_micro_batch(m);
    if (m->setup.storage.shared_gradients) {
        fused_update_outcome(&fused, &norm);
    } else {
        optimizer_outcome(o, &norm);
    }
    model_take_loss(m);
}

// The same calls as a step of train, without reading data and writing files.
static void step(struct model *m, struct optimizer *o, const struct batch *b, int64_t n)
{
    const struct routing *r = m->setup.routing;
    struct routing_state *state = m->routing_state;
    m->pass = (uint64_t)n;
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)b->supervised);
    move(m, o, b, n);
    if (state && r->after_step) r->after_step(state, true);
    if (m->setup.routing_options.without_telemetry) return;
    json_t *report;
    if (!routing_report(&report, m, NULL, NULL)) return;
    mem_free(routing_report_text(report));
    json_decref(report);
}

// A step in each phase of the routing: a run spends its time in the last, where the condensers stand.
static bool warm_up(struct model *m, struct optimizer *o, const struct batch *b, int64_t *n,
                    struct error *err)
{
    const struct routing *r = m->setup.routing;
    const int64_t phases = r->phases ? r->phases(&m->setup.routing_options) : 1;
    for (int64_t phase = 0; phase < phases; phase++) {
        if (!model_begin_phase(m, phase, err)) return false;
        step(m, o, b, ++*n);
    }
    return true;
}

static bool steps(struct bench_result *out, struct model *m, const struct batch *b,
                  struct error *err)
{
    struct optimizer o;
    bool ok = optimizer_open(&o, m->setup.ops, &m->leaves, err);
    out->forward_flops = forward_flops(&m->config, b);
    int64_t n = 0;
    ok = ok && warm_up(m, &o, b, &n, err);
    for (int i = 0; ok && i < BENCH_STEPS; i++) {
        const double start = monotonic_seconds();
        step(m, &o, b, ++n);
        model_take_loss(m); // waits for a device
        out->seconds[i] = monotonic_seconds() - start;
    }
    const struct ops *backend = m->setup.ops;
    if (backend->peak_bytes) {
        out->device_peak = (int64_t)backend->peak_bytes();
        out->device_plan = (int64_t)(model_device_bytes(m) + optimizer_bytes(backend, &m->leaves));
    }
    optimizer_close(&o);
    return ok && backend->check(err);
}

static bool measure_steps(struct bench_result *out, const struct bench_job *job, struct error *err)
{
    struct options o = *job->options;
    struct model m = {0};
    struct batch b = {0};
    struct model_setup setup;
    o.config.model = job->model;
    o.config.routing = job->routing;
    o.config.tuning = job->tuning;
    o.config.routing_options.without_telemetry = !job->telemetry;
    if (!setup_model(&setup, &o, true, err)) return false;
    setup.max_tokens = o.config.tokens;
    const double start = monotonic_seconds();
    bool ok = model_open(&m, &setup, err) && model_allocate(&m, err);
    out->load_seconds = monotonic_seconds() - start;
    ok = ok && random_batch(&b, &o.config, m.config.vocab, err);
    ok = ok && steps(out, &m, &b, err);
    batch_free(&b);
    model_close(&m);
    return ok;
}

struct product_setup {
    const struct ops *ops;
    int64_t m, n, k;
    struct tensor y, x, w;
    void **table; // of one pointer, to w, where the backend reads it
};

static void through_ops(const struct product_setup *p, int calls)
{
    const struct matrices w = {1, p->n, p->k, p->w.dtype, p->table};
    float first;
    for (int i = 0; i < calls; i++) {
        p->ops->matmul_forward(p->y, p->x, &w, tensor_absent(), false);
    }
    p->ops->download(&first, p->y.data, dtype_size(p->y.dtype)); // waits
}

// The best of several tries, so that what else runs on the machine costs nothing.
static double product_rate(const struct product_setup *p, bool library)
{
    const int calls = p->ops->reads_host ? 1 : CALLS;
    double best = 0;
    for (int i = 0; i <= REPEATS; i++) {
        const double start = monotonic_seconds();
        if (!library) {
            through_ops(p, calls);
        } else if (p->ops != &cpu_ops || !cpu_library_product(p->y, p->x, p->w)) {
            return 0;
        }
        const double seconds = monotonic_seconds() - start;
        const double flops = 2.0 * (double)p->m * (double)p->n * (double)p->k * calls;
        const double rate = 1e-9 * flops / seconds;
        if (i && rate > best) best = rate;
    }
    return best;
}

// Random values: a device is faster on zeros than on what a model holds.
static bool fill_random(const struct ops *o, struct tensor x, uint64_t seed, struct error *err)
{
    float *values = mem_alloc((size_t)tensor_count(x) * sizeof *values);
    if (!values) return fail(err, "no memory for a product");
    rng_fill_uniform(values, tensor_count(x), 1, seed, 0, 0);
    o->import(x, tensor_1d(values, DTYPE_F32, tensor_count(x)));
    mem_free(values);
    return true;
}

static bool shape_rate(double *best, const struct ops *o, const int64_t shape[3], enum dtype t,
                       struct error *err)
{
    const int64_t m = shape[0], n = shape[1], k = shape[2];
    const size_t size = dtype_size(t);
    const size_t bytes[] = {(size_t)(m * n) * size, (size_t)(m * k) * size, (size_t)(n * k) * size,
                            sizeof(void *)};
    void *data[4];
    bool ok = true;
    for (int i = 0; i < 4; i++) {
        data[i] = o->allocate(bytes[i]);
        ok =
            (data[i] && ok) || fail(err, "no memory for a product of %" PRId64 " x %" PRId64, m, n);
    }
    const struct product_setup p = {o,
                                    m,
                                    n,
                                    k,
                                    tensor_2d(data[0], t, m, n),
                                    tensor_2d(data[1], t, m, k),
                                    tensor_2d(data[2], t, n, k),
                                    data[3]};
    if (ok) o->upload(p.table, &p.w.data, sizeof p.w.data);
    ok = ok && fill_random(o, p.x, 1, err) && fill_random(o, p.w, 2, err);
    for (int library = 0; ok && library < 2; library++) {
        const double rate = product_rate(&p, library);
        if (rate > *best) *best = rate;
    }
    for (int i = 0; i < 4; i++) {
        if (data[i]) o->release(data[i], bytes[i]);
    }
    return ok && o->check(err);
}

// The best that the machine's library or our own products reach, in either type: an engine that loses
// time in its products cannot hide it by measuring against them.
static bool yardstick(struct bench_result *out, const struct bench_job *job, struct error *err)
{
    static const int64_t shapes[][3] = {{4096, 4096, 4096}, {4096, 8192, 2048}, {512, 1024, 2048}};
    const struct ops *o;
    setup_machine(job->options);
    if (!setup_device(&o, job->options, err)) return false;
    for (int i = 0; i < 3; i++) {
        if (!shape_rate(&out->gflops, o, shapes[i], DTYPE_BF16, err) ||
            !shape_rate(&out->gflops, o, shapes[i], DTYPE_F32, err)) {
            return false;
        }
    }
    return true;
}

static bool make_model(const struct bench_job *job, struct error *err)
{
    const struct model_init_options init = {.config = job->options->config.config,
                                            .out = job->model,
                                            .seed = (uint64_t)job->options->config.seed};
    return model_init(&init, err);
}

void bench_measure(struct bench_result *out, const struct bench_job *job)
{
    *out = (struct bench_result){0};
    if (job->task == BENCH_INIT) {
        out->ok = make_model(job, &out->err);
    } else if (job->task == BENCH_PRODUCTS) {
        out->ok = yardstick(out, job, &out->err);
    } else {
        out->ok = measure_steps(out, job, &out->err);
    }
}
