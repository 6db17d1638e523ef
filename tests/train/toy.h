// tests/train/toy.h - a small random OLMoE in a folder and examples that it can learn, for tests of
// whole runs.
#pragma once
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/families.h"
#include "model/shapes.h"
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOY_VOCAB = 31, TOY_TENSORS = 256 };

static const char toy_config[] =
    "{\"architectures\": [\"OlmoeForCausalLM\"], \"model_type\": \"olmoe\", \"hidden_size\": 16,"
    " \"intermediate_size\": 12, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"num_experts\": 6, \"num_experts_per_tok\": 2,"
    " \"vocab_size\": 31, \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5,"
    " \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, \"norm_topk_prob\": false,"
    " \"hidden_act\": \"silu\"}";

struct toy_tensors {
    struct st_named list[TOY_TENSORS];
    char name[TOY_TENSORS][192];
    int64_t count;
    struct rng rng;
};

static inline bool toy_add(void *user, const struct tensor_spec *s, struct error *err)
{
    struct toy_tensors *t = user;
    (void)err;
    assert_true(t->count < TOY_TENSORS);
    snprintf(t->name[t->count], sizeof t->name[0], "%s", s->name);
    struct tensor x = tensor_make(NULL, DTYPE_F32, s->rank, s->dim);
    x.data = mem_alloc(tensor_bytes(x));
    for (int64_t i = 0; i < tensor_count(x); i++) {
        data_f32(x)[i] = s->rank == 1 ? 1.0F : 0.2F * (float)rng_normal(&t->rng);
    }
    t->list[t->count] = (struct st_named){t->name[t->count], x};
    t->count++;
    return true;
}

// poison: the tensor whose element `at` becomes NaN; NULL: none.
static inline void toy_model(const char *dir, const char *poison, int64_t at)
{
    struct error err = {0};
    struct toy_tensors t = {.rng = {.seed = 11}};
    const struct family *family;
    struct model_config c;
    char path[2048];
    check_ok(dir_make(dir, &err), &err);
    snprintf(path, sizeof path, "%s/config.json", dir);
    check_ok(file_write(path, toy_config, strlen(toy_config), &err), &err);
    check_ok(family_read_config(&family, &c, dir, &err), &err);
    check_ok(shapes_visit(family, &c, NULL, toy_add, &t, &err), &err);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    bool found = !poison;
    for (int64_t i = 0; i < t.count; i++) {
        if (!poison || strcmp(t.name[i], poison) != 0) continue;
        data_f32(t.list[i].tensor)[at] = NAN;
        found = true;
    }
    assert_true(found);
    check_ok(safetensors_write(path, t.list, t.count, NULL, &err), &err);
    for (int64_t i = 0; i < t.count; i++) {
        mem_free(t.list[i].tensor.data);
    }
}

// Examples of 5 to 12 tokens that count upwards in steps of 1 to 3; the first two tokens carry no loss.
// Token TOY_VOCAB - 1 appears in none of them.
static inline void toy_data(struct dataset *d, int64_t count, uint64_t seed)
{
    struct rng r = {.seed = seed};
    *d = (struct dataset){0};
    d->id = mem_alloc((size_t)count * 12 * sizeof *d->id);
    d->learn = mem_alloc((size_t)count * 12);
    d->example = mem_zalloc((size_t)count, sizeof *d->example);
    d->count = count;
    for (int64_t i = 0; i < count; i++) {
        const int64_t n = 5 + rng_below(&r, 8), stride = 1 + rng_below(&r, 3);
        int64_t token = rng_below(&r, TOY_VOCAB - 1);
        d->example[i] = (struct example){.first = d->n_tokens, .count = n, .supervised = n - 2};
        for (int64_t j = 0; j < n; j++, token += stride) {
            d->id[d->n_tokens] = (int32_t)(token % (TOY_VOCAB - 1));
            d->learn[d->n_tokens++] = j >= 2;
        }
        d->supervised += n - 2;
    }
}

static inline void toy_data_free(struct dataset *d)
{
    mem_free(d->id);
    mem_free(d->learn);
    mem_free(d->example);
    *d = (struct dataset){0};
}

// A run of the toy, ready to be changed by a test and run.
struct toy {
    char base[1024], out[1024];
    struct dataset data, validation;
    struct stage stage;
    struct run run;
    struct train_result result;
};

static inline void toy_open(struct toy *t)
{
    struct error err = {0};
    *t = (struct toy){0};
    const char *dir = test_dir();
    snprintf(t->base, sizeof t->base, "%s/base", dir);
    snprintf(t->out, sizeof t->out, "%s/out", dir);
    toy_model(t->base, NULL, 0);
    toy_data(&t->data, 40, 5);
    toy_data(&t->validation, 9, 6);
    t->stage = (struct stage){
        .name = "main",
        .setup = {.dir = t->base,
                  .ops = &cpu_ops,
                  .dtype = DTYPE_F32,
                  .routing = routing_find("topk", &err),
                  .tuning = tuning_find("full", &err)},
        .options = {.batch_tokens = 40,
                    .accumulate = 2,
                    .max_steps = 12,
                    .lr = 5e-3,
                    .beta1 = 0.9,
                    .beta2 = 0.999,
                    .eps = 1e-8,
                    .clip = 1,
                    .schedule = SCHEDULE_COSINE_FLOOR,
                    .min_lr_rate = 0.1,
                    .warmup_ratio = 0.1,
                    .seed = 3,
                    .shuffle = true},
    };
    t->run = (struct run){.out = t->out,
                          .stage = &t->stage,
                          .n_stages = 1,
                          .data = &t->data,
                          .keep_last = 2,
                          .options = "{\"lr\": 0.005}\n",
                          .deciding = "{\"lr\": 0.005}"};
}

static inline void toy_close(struct toy *t)
{
    toy_data_free(&t->data);
    toy_data_free(&t->validation);
}

static inline bool toy_run(struct toy *t, struct error *err)
{
    struct trainer *trainer = trainer_open(&t->run, err);
    if (!trainer) return false;
    const bool ok = trainer_run(trainer, &t->result, err);
    trainer_close(trainer);
    return ok;
}

static inline const char *toy_path(const char *out, const char *name)
{
    static char path[4][2048];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", out, name);
    return path[turn];
}

static inline void check_same_file(const char *a, const char *b)
{
    struct file_map x, y;
    struct error err = {0};
    check_ok(file_map_open(&x, a, &err), &err);
    check_ok(file_map_open(&y, b, &err), &err);
    if (x.size != y.size || memcmp(x.data, y.data, x.size) != 0)
        fail_msg("%s differs from %s", b, a);
    file_map_close(&x);
    file_map_close(&y);
}
