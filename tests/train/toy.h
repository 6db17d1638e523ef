// tests/train/toy.h - a small random OLMoE in a folder and examples that it can learn, for tests of
// whole runs.
#pragma once
#include "support.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/init.h"
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOY_VOCAB = 31 };

static const char toy_config[] =
    "{\"architectures\": [\"OlmoeForCausalLM\"], \"model_type\": \"olmoe\", \"hidden_size\": 16,"
    " \"intermediate_size\": 12, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"num_experts\": 6, \"num_experts_per_tok\": 2,"
    " \"vocab_size\": 31, \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5,"
    " \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, \"norm_topk_prob\": false,"
    " \"hidden_act\": \"silu\", \"initializer_range\": 0.2}";

// poison: the tensor whose element `at` becomes NaN; NULL: none.
static inline void toy_model(const char *dir, const char *poison, int64_t at)
{
    struct error err = {0};
    char config[2048], path[2048];
    snprintf(config, sizeof config, "%s.json", dir);
    check_ok(file_write(config, toy_config, strlen(toy_config), &err), &err);
    const struct model_init_options o = {
        .config = config, .out = dir, .dtype = "f32", .seed = 11, .overwrite = true};
    check_ok(model_init(&o, &err), &err);
    if (!poison) return;

    struct safetensors st;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    check_ok(safetensors_open(&st, path, &err), &err);
    const struct st_entry *e = safetensors_find(&st, poison);
    assert_non_null(e);
    const long place = (long)((const unsigned char *)e->tensor.data - st.map.data) + (long)at * 4;
    safetensors_close(&st);
    const float nan = NAN;
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, place, SEEK_SET);
    assert_int_equal(fwrite(&nan, sizeof nan, 1, f), 1);
    fclose(f);
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
                          .changes = true,
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

static inline void check_same_folder(const char *a, const char *b)
{
    struct dir_names x, y;
    struct error err = {0};
    check_ok(dir_list(&x, a, &err), &err);
    check_ok(dir_list(&y, b, &err), &err);
    assert_int_equal(x.count, y.count);
    for (int64_t i = 0; i < x.count; i++) {
        assert_string_equal(x.name[i], y.name[i]);
        char p[8192], q[8192];
        snprintf(p, sizeof p, "%s/%s", a, x.name[i]);
        snprintf(q, sizeof q, "%s/%s", b, x.name[i]);
        check_same_file(p, q);
    }
    dir_names_free(&x);
    dir_names_free(&y);
}

static inline void other_out(struct toy *t, const char *name)
{
    snprintf(t->out, sizeof t->out, "%s", toy_path(t->base, name));
    t->run.out = t->out;
}
