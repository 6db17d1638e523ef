// cli/cmd_dump.c - what a model computes for one batch, as tensors: for checking against another
// implementation.
#include "base/mem.h"
#include "cli/batch_file.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "io/safetensors.h"
#include "model/families.h"

#include <inttypes.h>
#include <math.h>

struct dump {
    struct model model;
    struct batch_file batch;
    struct st_named *named; // tensors in host memory, names and data owned
    int64_t count, capacity;
    float *logits;
    float loss;
};

static bool add(struct dump *d, const char *name, struct tensor t, struct error *err)
{
    void *grown = array_grow(d->named, d->count, &d->capacity, sizeof *d->named);
    if (grown) d->named = grown;
    char *copy = grown ? mem_strdup(name) : NULL;
    if (!copy) return fail(err, "no memory for %s", name);
    d->named[d->count++] = (struct st_named){copy, t};
    return true;
}

// Copies a tensor of the backend.
static bool add_download(struct dump *d, const char *name, struct tensor t, struct error *err)
{
    struct tensor host = t;
    host.data = mem_alloc(tensor_bytes(t));
    if (!host.data) return fail(err, "no memory for %s", name);
    d->model.setup.ops->download(host.data, t.data, tensor_bytes(t));
    if (add(d, name, host, err)) return true;
    mem_free(host.data);
    return false;
}

static bool add_logits(struct dump *d, struct error *err)
{
    const struct batch_file *b = &d->batch;
    const int64_t N = b->batch.n, V = d->model.config.vocab;
    int32_t *row = mem_alloc((size_t)N * sizeof *row);
    float *logits = mem_zalloc((size_t)N, (size_t)V * sizeof *logits);
    bool ok = (row && logits) || fail(err, "no memory for %" PRId64 " x %" PRId64 " logits", N, V);
    for (int64_t i = 0; ok && i < N; i++) {
        row[i] = (int32_t)i;
    }
    if (ok) model_logits(&d->model, row, N, logits);
    const struct tensor t = tensor_make(logits, DTYPE_F32, 3, (int64_t[]){b->rows, b->columns, V});
    ok = ok && add(d, "logits", t, err);
    mem_free(row);
    if (!ok) mem_free(logits);
    return ok;
}

static bool add_routes(struct dump *d, struct error *err)
{
    bool ok = true;
    for (int64_t l = 0; ok && l < d->model.config.n_layers; l++) {
        char name[64];
        const struct tensor z = model_router_logits(&d->model, l);
        const struct route route = model_route(&d->model, l);
        if (!z.data) continue;
        snprintf(name, sizeof name, "router_logits.%" PRId64, l);
        ok = add_download(d, name, z, err);
        snprintf(name, sizeof name, "routes.%" PRId64, l);
        ok = ok && add_download(d, name, route.expert, err);
        snprintf(name, sizeof name, "route_weights.%" PRId64, l);
        ok = ok && add_download(d, name, route.weight, err);
    }
    return ok;
}

// The gradient of a tensor of the checkpoint, made up of its matrices where it holds several; those that
// do not learn are zero. *out.data NULL: none of it learns.
static bool gradient_of(struct dump *d, struct tensor *out, const struct st_entry *e,
                        struct error *err)
{
    const struct weights *w = &d->model.weights;
    *out = e->tensor;
    out->dtype = DTYPE_F32;
    out->data = NULL;
    for (int64_t i = 0; i < w->count; i++) {
        const struct weight *x = &w->weight[i];
        if (x->entry != e || !x->grad.data) continue;
        if (!out->data) out->data = mem_zalloc((size_t)tensor_count(*out), sizeof(float));
        if (!out->data) return fail(err, "no memory for the gradient of %s", e->name);
        d->model.setup.ops->download((float *)out->data + x->offset, x->grad.data,
                                     tensor_bytes(x->grad));
    }
    return true;
}

static bool add_adapter_gradient(void *user, const struct adapter_tensor *t, struct error *err)
{
    char name[NAME_MAX_LENGTH + 8];
    snprintf(name, sizeof name, "grad.%s", t->name);
    return !t->grad.data || add_download(user, name, t->grad, err);
}

static bool add_gradients(struct dump *d, struct error *err)
{
    const struct model *m = &d->model;
    const struct tuning *t = m->setup.tuning;
    for (int64_t i = 0; i < checkpoint_tensors(&m->checkpoint); i++) {
        char name[1024];
        struct tensor grad;
        const struct st_entry *e = checkpoint_at(&m->checkpoint, i);
        snprintf(name, sizeof name, "grad.%s", e->name);
        if (!gradient_of(d, &grad, e, err)) return false;
        if (!grad.data || add(d, name, grad, err)) continue;
        mem_free(grad.data);
        return false;
    }
    return !t->format || !t->format->tensors ||
           t->format->tensors(m->tuning_state, add_adapter_gradient, d, err);
}

static bool add_loss(struct dump *d, struct error *err)
{
    float *value = mem_alloc(sizeof *value);
    if (!value) return fail(err, "no memory for the loss");
    *value = d->loss;
    if (add(d, "loss", tensor_make(value, DTYPE_F32, 0, NULL), err)) return true;
    mem_free(value);
    return false;
}

static bool compute(struct dump *d, bool gradients, struct error *err)
{
    const struct batch *b = &d->batch.batch;
    struct model *m = &d->model;
    model_zero_grad(m);
    model_forward(m, b, NULL, true);
    if (!add_logits(d, err) || !add_routes(d, err)) return false;
    model_take_loss(m);
    model_loss(m, b, gradients ? 1.0F / (float)b->supervised : 0);
    d->loss = (float)(model_take_loss(m) / (double)b->supervised);
    if (!add_loss(d, err)) return false;
    if (!gradients) return true;
    model_backward(m, b);
    return add_gradients(d, err);
}

// Gradients of what a stage before would choose: only where the choice is made.
static bool check_chosen(const struct model_setup *s, struct error *err)
{
    int64_t steps, tokens;
    const struct tuning *t = s->tuning;
    if (!t->scoring || s->adapter || !t->scoring(&s->tuning_options, &steps, &tokens)) return true;
    return fail(err, "--tuning %s: what learns is chosen on data; a choice or --adapter expected",
                t->name);
}

static bool open_model(struct dump *d, struct options *o, struct error *err)
{
    struct model_setup setup;
    struct model_config c;
    const struct family *family;
    if (!family_read_config(&family, &c, o->config.model, err)) return false;
    if (!batch_file_read(&d->batch, o->config.batch, c.vocab, err)) return false;
    // Routes are kept by a training pass only; without gradients it trains nothing.
    if (!o->config.gradients) {
        o->config.tuning_options.train = NULL;
        o->config.tuning_options.freeze = "*";
    }
    if (!setup_model(&setup, o, true, err) || (o->config.gradients && !check_chosen(&setup, err))) {
        return false;
    }
    setup.tuning_options.lora_dropout = o->config.tuning_options.lora_dropout; // not an adapter's
    setup.max_tokens = d->batch.batch.n;
    return model_open(&d->model, &setup, err) && model_allocate(&d->model, err) &&
           model_begin_last_phase(&d->model, err);
}

enum status command_dump(struct options *o, struct output *io, struct error *err)
{
    struct dump d = {0};
    const bool ok = open_model(&d, o, err) && compute(&d, o->config.gradients, err) &&
                    d.model.setup.ops->check(err) &&
                    safetensors_write(o->config.out, d.named, d.count, NULL, err);
    if (ok && !io->quiet) {
        fprintf(io->status, "loss %.7g over %" PRId64 " labels; %" PRId64 " tensors in %s\n",
                (double)d.loss, d.batch.batch.supervised, d.count, o->config.out);
    }
    for (int64_t i = 0; i < d.count; i++) {
        mem_free((void *)(uintptr_t)d.named[i].name);
        mem_free(d.named[i].tensor.data);
    }
    mem_free(d.named);
    model_close(&d.model);
    batch_file_close(&d.batch);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
