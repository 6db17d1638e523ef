// tests/torture/bad_step.h - runs of a toy through a user's options in which something stops being a finite
// number at a chosen step. The reference of a skipped step is the same run where no token of that step carries
// loss: neither may move weights, moments, the routing's state, random numbers or the order of the data.
#pragma once
#include "../cli/pairs.h"

#include "train/trainer.h"

enum poison {
    LOSS_NAN,    // of one token
    LOSS_INF,    // of one token, its gradient as it was
    ACTIVATION,  // the first row of a norm's output overflows
    ROUTER,      // a router's logit of the first token overflows
    GRADIENTS,   // one number of one leaf's gradient: -inf
    POISONS,     // those above are skipped; what follows is not
    MOMENT = 16, // AdamW's
    LAST_ROUTER, // a logit of the first token in the last layer, whose row predicts nothing
};

static const char *const poison_names[POISONS] = {"loss nan", "loss inf", "activation", "router",
                                                  "gradient"};

// Ops that break one number, put in place of the CPU's for one step.
static struct ops bad_ops;

static inline void break_number(struct tensor x, float value)
{
    if (x.dtype == DTYPE_F32) {
        data_f32(x)[0] = value;
    } else {
        dtype_convert(x.data, x.dtype, &value, DTYPE_F32, 1);
    }
}

static inline void bad_loss(struct tensor loss, struct tensor logits, struct tensor targets,
                            float scale)
{
    cpu_ops.cross_entropy(loss, logits, targets, scale);
    break_number(loss, NAN);
    break_number(logits, NAN);
}

static inline void infinite_loss(struct tensor loss, struct tensor logits, struct tensor targets,
                                 float scale)
{
    cpu_ops.cross_entropy(loss, logits, targets, scale);
    break_number(loss, INFINITY);
}

static inline void bad_norm(struct tensor y, struct tensor rstd, struct tensor x, struct tensor w,
                            float eps)
{
    cpu_ops.rmsnorm_forward(y, rstd, x, w, eps);
    break_number(y, INFINITY);
}

static inline void bad_router(struct tensor y, struct tensor x, const struct matrices *w,
                              struct tensor offsets, bool accumulate)
{
    cpu_ops.matmul_forward(y, x, w, offsets, accumulate);
    if (w->groups == 1 && w->rows == 6 && y.dtype == DTYPE_F32) break_number(y, INFINITY);
}

static inline void bad_last_router(struct tensor y, struct tensor x, const struct matrices *w,
                                   struct tensor offsets, bool accumulate)
{
    static int64_t calls; // the toy has two layers
    cpu_ops.matmul_forward(y, x, w, offsets, accumulate);
    if (w->groups != 1 || w->rows != 6 || y.dtype != DTYPE_F32) return;
    if (++calls % 2 == 0) break_number(y, INFINITY);
}

static inline void poison_model(struct model *m, enum poison p, int64_t which)
{
    bad_ops = cpu_ops;
    m->setup.ops = &bad_ops;
    if (p == LOSS_NAN) bad_ops.cross_entropy = bad_loss;
    if (p == LOSS_INF) bad_ops.cross_entropy = infinite_loss;
    if (p == ACTIVATION) bad_ops.rmsnorm_forward = bad_norm;
    if (p == ROUTER) bad_ops.matmul_forward = bad_router;
    if (p == LAST_ROUTER) bad_ops.matmul_forward = bad_last_router;
    if (!m->leaves.count) return; // scores are taken
    const struct leaf *f = &m->leaves.leaf[which % m->leaves.count];
    if (p == GRADIENTS) break_number(f->grad, -INFINITY);
    if (p == MOMENT) break_number(f->m_scale.data ? f->m_scale : f->m, NAN);
}

struct bad_run {
    struct job job;
    int64_t from, to; // steps that are bad; 0: none
    enum poison poison;
    bool silent;   // no token carries loss in them instead
    int64_t which; // leaf
    uint8_t *learn;
    int64_t *supervised; // what the data said, while it is silent
    struct train_result result;
    struct error err;
    bool ok;
};

static inline void silence(struct bad_run *r)
{
    struct dataset *d = &r->job.data;
    r->learn = mem_alloc((size_t)d->n_tokens);
    r->supervised = mem_alloc((size_t)d->count * sizeof *r->supervised);
    memcpy(r->learn, d->learn, (size_t)d->n_tokens);
    memset(d->learn, 0, (size_t)d->n_tokens);
    for (int64_t i = 0; i < d->count; i++) {
        r->supervised[i] = d->example[i].supervised;
        d->example[i].supervised = 0;
    }
}

static inline void speak_again(struct bad_run *r)
{
    struct dataset *d = &r->job.data;
    if (!r->learn) return;
    memcpy(d->learn, r->learn, (size_t)d->n_tokens);
    for (int64_t i = 0; i < d->count; i++) {
        d->example[i].supervised = r->supervised[i];
    }
    mem_free(r->learn);
    mem_free(r->supervised);
    r->learn = NULL;
    r->supervised = NULL;
}

// Before step `next`.
static inline void bad_run_before(struct bad_run *r, int64_t next)
{
    struct model *m = trainer_model(r->job.trainer);
    const bool bad = next >= r->from && next <= r->to;
    m->setup.ops = &cpu_ops;
    if (r->silent && bad && !r->learn) silence(r);
    if (r->silent && !bad) speak_again(r);
    if (!r->silent && bad) poison_model(m, r->poison, r->which);
}

static inline void bad_run_started(void *user, int64_t step, int64_t steps)
{
    (void)steps;
    bad_run_before(user, step + 1);
}

static inline void bad_run_stepped(void *user, const struct train_step *s)
{
    bad_run_before(user, s->step + 1);
}

// What keeps each tuning small enough for the toy.
static inline const char *bad_run_options(const char *tuning)
{
    static const char *const small[][2] = {
        {"esft", "--esft-tokens 30 --esft-top-p 0.4"},
        {"smt", "--smt-block 5 --smt-warmup-steps 1 --smt-attention-blocks 6 --smt-mlp-blocks 20"},
        {"lora", "--lora-rank 3 --lora-alpha 6 --lora-dropout 0.1"},
        {"dora", "--lora-rank 3 --lora-alpha 6"},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        if (!strcmp(small[i][0], tuning)) return small[i][1];
    }
    return "";
}

// Runs to the end or to its failure; `more` beats what stands here.
static inline void bad_run(struct bad_run *r, const char *out, const char *routing,
                           const char *tuning, const char *more)
{
    struct options o;
    char line[2048];
    const struct train_listener listener = {
        .user = r, .start = bad_run_started, .step = bad_run_stepped};
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --out %s --dtype f32 --routing %s --tuning %s "
             "--batch-tokens 60 --max-steps 4 --lr 2e-2 --schedule constant --warmup-ratio 0 "
             "--phase1-epochs 0.3 --bias-rate 1e-2 --threads 1 --no-report %s %s",
             out, routing, tuning, bad_run_options(tuning), more);
    r->err = (struct error){0};
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, &r->err), &r->err);
    check_ok(job_open(&r->job, &o, out, &listener, &r->err), &r->err);
    r->ok = trainer_run(r->job.trainer, &r->result, &r->err);
    trainer_model(r->job.trainer)->setup.ops = &cpu_ops;
    speak_again(r);
    job_close(&r->job);
    options_close(&o);
}

// What differs by right between a run that skipped and one that had nothing to learn: how often it skipped.
static inline bool may_differ(const char *name)
{
    return !strcmp(name, "state.json") || !strcmp(name, "manifest.json");
}

static inline void check_same_checkpoint(const char *a, const char *b, int64_t skipped_last)
{
    struct dir_names names, other;
    struct error err = {0};
    char p[4096], q[4096];
    check_ok(dir_list(&names, a, &err) && dir_list(&other, b, &err), &err);
    assert_int_equal(names.count, other.count);
    for (int64_t i = 0; i < names.count; i++) {
        snprintf(p, sizeof p, "%s/%s", a, names.name[i]);
        snprintf(q, sizeof q, "%s/%s", b, names.name[i]);
        if (!may_differ(names.name[i])) check_same_file(p, q);
    }
    struct train_state x, y;
    check_ok(train_state_read(&x, toy_path(a, "state.json"), &err), &err);
    check_ok(train_state_read(&y, toy_path(b, "state.json"), &err), &err);
    assert_int_equal(x.updates, y.updates);
    assert_int_equal(x.tokens, y.tokens);
    assert_int_equal(x.skipped + x.skipped_in_a_row, 0);
    assert_int_equal(y.skipped, 1);
    assert_int_equal(y.skipped_in_a_row, skipped_last);
    train_state_free(&x);
    train_state_free(&y);
    dir_names_free(&names);
    dir_names_free(&other);
}
