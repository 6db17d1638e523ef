// tests/model/test_smt_blocks.c - smt on the tiny models of the parity fixtures: the blocks that it chooses against an
// implementation of its own (fixtures/make_tuning_smt.py), their gradients against those of transformers,
// recomputation, adapters in a folder, merging, and what a selection is refused for.
#include "parity.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const models[] = {"olmoe-gqa", "olmoe-clip", "qwen-dense", "qwen-step"};
enum { MODELS = 4 };
static const struct parity_case *case_of(const char *name)
{
    int i = 0;
    while (strcmp(parity_cases[i].name, name) != 0) {
        assert_true(++i < parity_n_cases);
    }
    return &parity_cases[i];
}

// Half of all matrices' blocks of 7 x 7, spread evenly, unless the test says otherwise.
static struct model_setup smt_setup(const struct parity *p, enum dtype t)
{
    struct error err = {0};
    struct model_setup s = parity_setup(p, case_of(p->name), t);
    s.tuning = tuning_find("smt", &err);
    s.tuning_options.smt = (struct smt_options){.block = 7,
                                                .attention_blocks = 17,
                                                .mlp_blocks = 60,
                                                .warmup_steps = 1,
                                                .attention_targets = "q_proj,k_proj,v_proj,o_proj",
                                                .mlp_targets = "gate_proj,up_proj,down_proj"};
    return s;
}

static void gradients(struct model *m, const struct batch *b)
{
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)b->supervised);
    model_backward(m, b);
    model_take_loss(m);
}

static const char *in_test_dir(const char *name)
{
    static char path[4][1200];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", test_dir(), name);
    return path[turn];
}

// The stage before smt, over some batches: what it leaves in a file.
static json_t *score(struct model_setup *s, const struct parity *p, int batches)
{
    struct model m;
    struct error err = {0};
    int64_t steps = 0, tokens = 0;
    s->tuning = s->tuning->scoring(&s->tuning_options, &steps, &tokens);
    assert_int_equal(steps, s->tuning_options.smt.warmup_steps);
    parity_model(&m, s);
    assert_true(s->tuning->observes == (m.leaves.count == 0));
    for (int i = 0; i < batches; i++) {
        model_zero_grad(&m);
        gradients(&m, &p->batch[i]);
        if (s->tuning->take_gradients) s->tuning->take_gradients(m.tuning_state);
    }
    const char *path = in_test_dir("smt_selection.json");
    check_ok(s->tuning->finish(m.tuning_state, path, &err), &err);
    model_close(&m);
    json_t *file = json_parse_file(path, 1 << 24, &err);
    assert_non_null(file);
    return file;
}

static int64_t option(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key)); // 0: not there
}

static int choice(const json_t *o, const char *key, const char *const *names)
{
    const char *name = json_string_value(json_object_get(o, key));
    for (int i = 0; names[i]; i++) {
        if (!strcmp(names[i], name)) return i;
    }
    fail_msg("%s: %s", key, name);
    return -1;
}

static struct smt_options options_of(const json_t *o)
{
    static const char *const scores[] = {"abs_mean", "mean_abs", "l1", "l2", NULL};
    static const char *const scopes[] = {"group", "all", "matrix", NULL};
    static const char *const selects[] = {"gradient", "activation", NULL};
    return (struct smt_options){.block = option(o, "block"),
                                .warmup_steps = 3,
                                .warmup = (int)option(o, "warmup"),
                                .blocks = option(o, "blocks"),
                                .attention_blocks = option(o, "attention_blocks"),
                                .mlp_blocks = option(o, "mlp_blocks"),
                                .attention_fraction =
                                    json_real_value(json_object_get(o, "attention_fraction")),
                                .mlp_fraction = json_real_value(json_object_get(o, "mlp_fraction")),
                                .channels = option(o, "channels"),
                                .score = choice(o, "score", scores),
                                .scope = choice(o, "scope", scopes),
                                .select = choice(o, "select", selects),
                                .attention_targets = "q_proj,k_proj,v_proj",
                                .mlp_targets = "gate_proj,up_proj,down_proj"};
}

static bool same_block(const json_t *a, const json_t *b)
{
    const double x = json_number_value(json_array_get(a, 2));
    const double y = json_number_value(json_array_get(b, 2));
    return json_equal(json_array_get(a, 0), json_array_get(b, 0)) &&
           json_equal(json_array_get(a, 1), json_array_get(b, 1)) &&
           fabs(x - y) <= 2e-5 * fabs(y) + 1e-12;
}

static void check_choice(json_t *expected, json_t *got, const char *what)
{
    const char *module;
    json_t *list;
    if (json_object_size(expected) != json_object_size(got)) fail_msg("%s: other modules", what);
    json_object_foreach(expected, module, list)
    {
        const json_t *mine = json_object_get(got, module);
        if (json_array_size(list) != json_array_size(mine)) fail_msg("%s: %s", what, module);
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (same_block(json_array_get(list, i), json_array_get(mine, i))) continue;
            fail_msg("%s: %s: block %d differs", what, module, (int)i);
        }
    }
}

static void choices_are_those_published(void **state)
{
    (void)state;
    struct error err = {0};
    json_t *cases = json_parse_file(FIXTURES "/tuning/smt.json", 1 << 24, &err);
    assert_non_null(cases);
    assert_true(json_array_size(cases) >= 51);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        struct parity p;
        const json_t *c = json_array_get(cases, i);
        char *what = json_dumps(json_object_get(c, "options"), JSON_COMPACT);
        parity_open(&p, json_string_value(json_object_get(c, "model")));
        struct model_setup s = smt_setup(&p, DTYPE_F32);
        s.tuning_options.smt = options_of(json_object_get(c, "options"));
        json_t *got = score(&s, &p, (int)option(c, "batches"));
        check_choice(json_object_get(c, "blocks"), json_object_get(got, "blocks"), what);
        json_decref(got);
        mem_free(what);
        parity_close(&p);
    }
    json_decref(cases);
}

// Signed sums of blocks add up: the score of single batches is that of their element-wise sum.
static void mean_abs_is_that_of_the_sum(void **state)
{
    (void)state;
    struct parity p;
    parity_open(&p, models[2]);
    json_t *file[2];
    for (int warmup = 0; warmup < 2; warmup++) {
        struct model_setup s = smt_setup(&p, DTYPE_F32);
        s.tuning_options.smt.score = SMT_MEAN_ABS;
        s.tuning_options.smt.warmup = warmup;
        s.tuning_options.smt.attention_blocks = 40;
        file[warmup] = score(&s, &p, PARITY_BATCHES);
    }
    check_choice(json_object_get(file[1], "blocks"), json_object_get(file[0], "blocks"), "sum");
    json_decref(file[0]);
    json_decref(file[1]);
    parity_close(&p);
}

// The weight and the part of it that a tensor of the adapter stands for.
struct place {
    char weight[NAME_MAX_LENGTH];
    int64_t row, rows, column, columns;
};

static struct place place_of(const char *name)
{
    struct place x = {0};
    int64_t end, last;
    const char *open = strchr(name, '[');
    assert_non_null(open);
    snprintf(x.weight, sizeof x.weight, "%.*s", (int)(open - name), name);
    assert_int_equal(sscanf(open, "[%" SCNd64 ":%" SCNd64 ",%" SCNd64 ":%" SCNd64 "]", &x.row, &end,
                            &x.column, &last),
                     4);
    x.rows = end - x.row, x.columns = last - x.column;
    return x;
}

struct comparison {
    const struct parity *p;
    int64_t blocks;
    double worst; // difference over the norm of the matrix's gradient
};

static bool compare_block(void *user, const struct adapter_tensor *t, struct error *err)
{
    (void)err;
    struct comparison *c = user;
    const struct place x = place_of(t->name);
    const struct tensor dense = parity_gradient(c->p, x.weight);
    double norm = 0, error = 0;
    for (int64_t i = 0; i < tensor_count(dense); i++) {
        norm += (double)data_f32(dense)[i] * (double)data_f32(dense)[i];
    }
    for (int64_t i = 0; i < x.rows * x.columns; i++) {
        const int64_t at = (x.row + i / x.columns) * dense.dim[1] + x.column + i % x.columns;
        const double d = (double)data_f32(t->grad)[i] - (double)data_f32(dense)[at];
        error += d * d;
    }
    c->blocks++;
    c->worst = fmax(c->worst, norm > 0 ? sqrt(error / norm) : error);
    return true;
}

static void gradients_are_blocks_of_the_dense(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        struct parity p;
        struct model m;
        parity_open(&p, models[i]);
        const struct model_setup s = smt_setup(&p, DTYPE_F32);
        struct comparison c = {.p = &p};
        parity_model(&m, &s);
        gradients(&m, &p.batch[0]);
        s.tuning->format->tensors(m.tuning_state, compare_block, &c, NULL);
        assert_int_equal(c.blocks, 77);
        if (!(c.worst < 1e-5)) fail_msg("%s: off by %.3g", models[i], c.worst);
        model_close(&m);
        parity_close(&p);
    }
}

// Leaves elsewhere than where they began, so that the blocks' share is not zero.
static void move(struct model *m)
{
    for (int64_t i = 0; i < m->leaves.count; i++) {
        float *v = data_f32(m->leaves.leaf[i].value);
        for (int64_t k = 0; k < tensor_count(m->leaves.leaf[i].value); k++) {
            v[k] += 0.05F * sinf((float)(3 * k + i));
        }
    }
    model_refresh(m);
}

static void recomputation_changes_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        struct parity p;
        struct model m[2];
        parity_open(&p, models[i]);
        struct model_setup s = smt_setup(&p, DTYPE_BF16);
        for (int k = 0; k < 2; k++) {
            s.recompute = k;
            parity_model(&m[k], &s);
            move(&m[k]);
            gradients(&m[k], &p.batch[0]);
        }
        assert_int_equal(m[0].leaves.count, m[1].leaves.count);
        for (int64_t l = 0; l < m[0].leaves.count; l++) {
            const struct tensor a = m[0].leaves.leaf[l].grad, b = m[1].leaves.leaf[l].grad;
            assert_memory_equal(a.data, b.data, tensor_bytes(a));
        }
        model_close(&m[0]);
        model_close(&m[1]);
        parity_close(&p);
    }
}

static struct tensor logits_of(struct model *m, const struct batch *b)
{
    model_forward(m, b, NULL, false);
    return parity_logits(m, b);
}

// From an adapter's folder the same logits; merged, within the rounding of F32. The base is stored in F32.
static void check_adapter(const char *name, int select)
{
    struct parity p;
    struct model m, again, merged;
    struct error err = {0};
    parity_open(&p, name);
    struct model_setup s = smt_setup(&p, DTYPE_F32);
    s.tuning_options.smt.select = select;
    s.tuning_options.smt.channels = 20;
    parity_model(&m, &s);
    move(&m);
    const char *adapter = in_test_dir("adapter"), *whole = in_test_dir("merged");
    check_ok(dir_remove(adapter, &err) && dir_remove(whole, &err), &err);
    check_ok(model_save_adapter(&m, adapter, &err), &err);
    check_ok(model_export(&m, whole, &err), &err);

    struct model_setup other = parity_setup(&p, case_of(name), DTYPE_F32);
    check_ok(tuning_of_adapter(&other.tuning, &other.tuning_options, adapter, &err), &err);
    assert_string_equal(other.tuning->name, "smt");
    other.adapter = adapter;
    other.frozen = true;
    parity_model(&again, &other);
    struct model_setup plain = parity_setup(&p, case_of(name), DTYPE_F32);
    plain.tuning = NULL;
    plain.dir = whole;
    parity_model(&merged, &plain);
    const struct tensor a = logits_of(&m, &p.batch[0]), b = logits_of(&again, &p.batch[0]);
    const struct tensor c = logits_of(&merged, &p.batch[0]);
    assert_memory_equal(a.data, b.data, tensor_bytes(a));
    check_close("merged", c, a, 1e-6);
    assert_true(relative_error(a, fixture_get(&p.reference, "logits")) > 1e-3); // they did move
    mem_free(a.data);
    mem_free(b.data);
    mem_free(c.data);
    model_close(&m);
    model_close(&again);
    model_close(&merged);
    parity_close(&p);
}

static void adapters_travel_and_merge(void **state)
{
    (void)state;
    check_adapter("olmoe-gqa", SMT_SELECT_GRADIENT);
    check_adapter("olmoe-gqa", SMT_SELECT_ACTIVATION);
    check_adapter("qwen-step", SMT_SELECT_GRADIENT);
}

struct dense {
    const struct model *full;
    int64_t blocks;
};

static bool compare_dense(void *user, const struct adapter_tensor *t, struct error *err)
{
    (void)err;
    struct dense *d = user;
    const struct place x = place_of(t->name);
    for (int64_t i = 0; i < d->full->leaves.count; i++) {
        const struct leaf *f = &d->full->leaves.leaf[i];
        if (strcmp(f->name, x.weight) != 0) continue;
        const int64_t cols = f->grad.dim[1];
        float *want = mem_alloc(tensor_bytes(t->grad));
        for (int64_t r = 0; r < x.rows; r++) {
            memcpy(want + r * x.columns, data_f32(f->grad) + (x.row + r) * cols + x.column,
                   (size_t)x.columns * sizeof *want);
        }
        check_close(t->name, t->grad, tensor_2d(want, DTYPE_F32, x.rows, x.columns), 1e-5);
        mem_free(want);
        d->blocks++;
    }
    return true;
}

// The gradients that full tuning has on the merged weights. With densemixer's zero slots, whose share of the
// router's gradient goes through views of the experts' banks.
static void gradients_are_those_of_the_merged(void **state)
{
    (void)state;
    static const char *const names[] = {"olmoe-gqa", "qwen-step"};
    for (int i = 0; i < 2; i++) {
        struct parity p;
        struct model m, full;
        struct error err = {0};
        parity_open(&p, names[i]);
        struct model_setup s = smt_setup(&p, DTYPE_F32);
        s.routing = routing_find("densemixer", &err);
        parity_model(&m, &s);
        move(&m);
        gradients(&m, &p.batch[0]);
        const char *whole = in_test_dir("dense");
        check_ok(dir_remove(whole, &err) && model_export(&m, whole, &err), &err);
        s.dir = whole;
        s.tuning = tuning_find("full", &err);
        parity_model(&full, &s);
        gradients(&full, &p.batch[0]);
        struct dense d = {.full = &full};
        tuning_find("smt", &err)->format->tensors(m.tuning_state, compare_dense, &d, NULL);
        assert_int_equal(d.blocks, 77);
        model_close(&m);
        model_close(&full);
        parity_close(&p);
    }
}

static void check_refused(const struct model_setup *s, const char *needle)
{
    struct model m;
    struct error err = {0};
    check_error(model_open(&m, s, &err), &err, needle);
    model_close(&m);
}

static void selections_are_checked(void **state)
{
    (void)state;
    struct parity p;
    struct error err = {0};
    static const struct {
        const char *text, *needle;
    } bad[] = {
        {"{\"select\": \"gradient\"}", "block_size"},
        {"{\"block_size\": 8, \"select\": \"gradient\"}", "--smt-block is 7"},
        {"{\"block_size\": 7, \"select\": \"activation\"}", "--smt-select is gradient"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": []}", "an object of modules"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": {}}", "no block at all"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": {\"model.layers.0.z\": []}}",
         "model.layers.0.z: no linear"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": "
         "{\"model.layers.0.mlp.experts.7.up_proj\": [[0, 0]]}}",
         "experts.7.up_proj: no linear"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": "
         "{\"model.layers.0.mlp.experts.6.up_proj\": [[0, 8]]}}",
         "no block of 7 x 7 begins at row 0, column 8"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": "
         "{\"model.layers.0.self_attn.q_proj\": [[0, 0], [7, 0], [0, 0, 1.5]]}}",
         "q_proj.weight[0:7,0:7] is there twice"},
        {"{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": "
         "{\"model.layers.0.self_attn.q_proj\": [[0, \"0\"]]}}",
         "[row, column]"},
    };
    parity_open(&p, "olmoe-gqa");
    const char *path = in_test_dir("bad.json");
    struct model_setup s = smt_setup(&p, DTYPE_F32);
    s.tuning_options.smt.selection = path;
    check_refused(&s, "bad.json"); // not there
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_ok(file_write(path, bad[i].text, strlen(bad[i].text), &err), &err);
        check_refused(&s, bad[i].needle);
    }
    const char *good = "{\"block_size\": 7, \"select\": \"gradient\", \"blocks\": "
                       "{\"model.layers.0.self_attn.o_proj\": [[7, 0], [21, 21]]}}";
    check_ok(file_write(path, good, strlen(good), &err), &err);
    s.tuning_options.train = "*.o_proj.weight";
    check_refused(&s, "o_proj.weight learns whole");
    s.tuning_options.train = "*.q_proj.weight";
    struct model m;
    parity_model(&m, &s);
    assert_int_equal(m.leaves.count, 3);                                   // q_proj of two layers
    assert_int_equal(tensor_count(m.leaves.leaf[2].value), 7 * 7 + 3 * 3); // 24 x 24
    model_close(&m);
    parity_close(&p);
}

static void budgets_are_checked(void **state)
{
    (void)state;
    struct parity p;
    parity_open(&p, "olmoe-gqa");
    struct model_setup s = smt_setup(&p, DTYPE_F32);
    struct smt_options *o = &s.tuning_options.smt;
    const struct smt_options good = *o;
    o->attention_blocks = 97; // 2 layers: 16 + 16 of q and o, 8 + 8 of k and v
    check_refused(&s, "97 blocks asked for in attention, where there are 96");
    *o = good, o->scope = SMT_SCOPE_MATRIX;
    check_refused(&s, "where there are 8");
    *o = good, o->scope = SMT_SCOPE_ALL, o->attention_blocks = o->mlp_blocks = 0, o->blocks = 9999;
    check_refused(&s, "9999 blocks asked for, there are");
    *o = good, o->attention_blocks = o->mlp_blocks = 0;
    check_refused(&s, "nothing to learn");
    *o = good, o->attention_targets = "q_proj,w_proj";
    check_refused(&s, "--smt-attention-targets: 'w_proj'");
    *o = good, o->mlp_targets = "gate";
    check_refused(&s, "--smt-mlp-targets: 'gate'"); // the router is no projection
    *o = good, o->select = SMT_SELECT_ACTIVATION, o->channels = 100000;
    check_refused(&s, "100000 channels asked for in attention");
    // What is frozen or learns whole has no blocks.
    *o = good, o->attention_blocks = 33, s.tuning_options.freeze = "*.layers.1.*,*.q_proj.weight";
    check_refused(&s, "where there are 32");
    parity_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_are_those_published),
        cmocka_unit_test(mean_abs_is_that_of_the_sum),
        cmocka_unit_test(gradients_are_blocks_of_the_dense),
        cmocka_unit_test(recomputation_changes_no_bit),
        cmocka_unit_test(adapters_travel_and_merge),
        cmocka_unit_test(gradients_are_those_of_the_merged),
        cmocka_unit_test(selections_are_checked),
        cmocka_unit_test(budgets_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
