// tests/torture/test_shapes.c - the edges of what a batch and a router can be: every token to one expert, experts
// without a token, fewer tokens than experts, k = E, one expert, a vocabulary of one to three, documents of one
// and two tokens, batches without a target. Each trains with every routing, its gradients are slopes (where there
// is a slope), and a second run with other threads ends with the same bytes.
#include "bad_step.h"
#include "form.h"

#include "model/families.h"

#include <unistd.h>

static int64_t runs, compared, refused;
static bool full;

static const struct shape {
    const char *name;
    int experts, top, vocab;
    int shortest, longest; // of documents
    bool one_expert;       // the router is zero and stays: ties go to the first
    const char *options;
} shapes[] = {
    {"every token to one expert", 6, 1, 31, 5, 12, true,
     "--freeze *.mlp.gate.* --condenser-count 1 --bias-usage count"},
    {"every token to two of six", 6, 2, 31, 5, 12, true,
     "--freeze *.mlp.gate.* --bias-usage count"},
    {"k = E", 5, 5, 31, 5, 12, false, ""},
    {"one expert", 1, 1, 31, 5, 12, false, "--condenser-count 1"},
    {"a vocabulary of one", 6, 2, 1, 5, 12, false, ""},
    {"a vocabulary of two", 6, 2, 2, 5, 12, false, ""},
    {"a vocabulary of three", 6, 2, 3, 5, 12, false, ""},
    {"fewer tokens than experts", 16, 2, 31, 3, 3, false, "--batch-sequences 1"},
    {"documents of two tokens", 6, 2, 31, 2, 2, false, "--batch-sequences 1 --accumulate 3"},
    {"documents as long as the batch", 6, 2, 31, 60, 60, false, ""},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, DOCUMENTS = 24 };

static void make_model(const struct shape *s)
{
    struct error err = {0};
    char text[1024];
    snprintf(text, sizeof text,
             "{\"architectures\": [\"OlmoeForCausalLM\"], \"model_type\": \"olmoe\", "
             "\"hidden_size\": 16, \"intermediate_size\": 12, \"num_hidden_layers\": 2, "
             "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"num_experts\": %d, "
             "\"num_experts_per_tok\": %d, \"vocab_size\": %d, \"max_position_embeddings\": 128, "
             "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, "
             "\"norm_topk_prob\": true, \"hidden_act\": \"silu\", \"initializer_range\": 0.2}",
             s->experts, s->top, s->vocab);
    check_ok(file_write("shape.json", text, strlen(text), &err), &err);
    const struct model_init_options o = {
        .config = "shape.json", .out = "base", .dtype = "f32", .seed = 3, .overwrite = true};
    check_ok(model_init(&o, &err), &err);
    if (!s->one_expert) return;
    for (int l = 0; l < 2; l++) {
        char name[64];
        struct safetensors st;
        snprintf(name, sizeof name, "model.layers.%d.mlp.gate.weight", l);
        check_ok(safetensors_open(&st, "base/model.safetensors", &err), &err);
        const struct tensor w = safetensors_find(&st, name)->tensor;
        const long at = (long)((const unsigned char *)w.data - st.map.data);
        const size_t bytes = tensor_bytes(w);
        safetensors_close(&st);
        void *zeros = mem_zalloc(bytes, 1);
        FILE *f = fopen("base/model.safetensors", "r+b");
        assert_non_null(f);
        fseek(f, at, SEEK_SET);
        assert_int_equal(fwrite(zeros, bytes, 1, f), 1);
        fclose(f);
        mem_free(zeros);
    }
}

static int64_t make_data(const struct shape *s)
{
    struct buf b = {0};
    struct error err = {0};
    struct rng r = {.seed = 9};
    int64_t tokens = 0;
    for (int64_t i = 0; i < DOCUMENTS; i++) {
        const int64_t n = s->shortest + rng_below(&r, s->longest - s->shortest + 1);
        int64_t id[64];
        for (int64_t k = 0; k < n; k++) {
            id[k] = rng_below(&r, s->vocab);
        }
        for (int list = 0; list < 2; list++) {
            buf_puts(&b, list ? "\"labels\": [" : "{\"input_ids\": [");
            for (int64_t k = 0; k < n; k++) {
                const bool learn = !list || k >= 2 || n < 4;
                buf_printf(&b, "%s%d", k ? ", " : "", learn ? (int)id[k] : -100);
            }
            buf_puts(&b, list ? "]}\n" : "], ");
        }
        tokens += n;
    }
    check_ok(file_write("base/data.jsonl", b.data, b.size, &err), &err);
    buf_free(&b);
    return tokens;
}

struct looking {
    struct job job;
    const struct shape *shape;
    const char *tuning;
    bool topk, compare, refused; // refused: before anything is loaded
    int64_t last, tokens, cut;
    struct train_result result;
};

// Every token has `top` rows, and where the router is zero they are the first experts'.
static void check_load(const struct looking *l, const struct train_step *s)
{
    const json_t *load = json_object_get(s->experts, "load");
    for (size_t layer = 0; layer < json_array_size(load); layer++) {
        const json_t *of = json_array_get(load, layer);
        int64_t all = 0;
        for (size_t e = 0; e < json_array_size(of); e++) {
            const int64_t rows = json_integer_value(json_array_get(of, e));
            if (l->shape->one_expert) {
                assert_int_equal(rows, (int)e < l->shape->top ? s->tokens : 0);
            }
            all += rows;
        }
        assert_int_equal(all, s->tokens * l->shape->top);
    }
}

// A few documents of the shape, with the toy's own tokens.
static void check_slopes(const struct looking *l, struct model *m)
{
    struct batch b = {0};
    struct error err = {0};
    int64_t of;
    const int64_t n = l->shape->longest < 9 ? l->shape->longest : 9;
    check_ok(batch_reserve(&b, PAIRS_TOKENS, &err), &err);
    for (int32_t d = 0; d < (n < 9 ? 1 : 2); d++) {
        int32_t id[9];
        uint8_t learn[9];
        for (int32_t i = 0; i < n; i++) {
            id[i] = (i * 7 + 3 + d) % l->shape->vocab;
            learn[i] = i > 0;
        }
        batch_append(&b, id, learn, n);
    }
    const bool fits = b.n * l->shape->experts <= m->setup.max_tokens * l->shape->top;
    if (fits || !m->setup.routing->zero_slots) { // the surrogate runs all experts of all tokens
        compared += pairs_check_gradients_of(m, &b, !strcmp(l->tuning, "dora"), &of);
    }
    batch_free(&b);
}

static void look(void *user, const struct train_step *s)
{
    struct looking *l = user;
    struct model *m = trainer_model(l->job.trainer);
    l->tokens += s->tokens;
    if (!m->setup.tuning->observes) assert_true(isfinite(s->loss) && isfinite(s->grad_norm));
    if (l->shape->vocab == 1) { // nothing to learn but what the router's own loss asks for
        assert_true(fabs(s->loss) < 1e-6);
        assert_true(router_losses_on(&m->router_losses) || !(s->grad_norm > 1e-6));
    }
    if (l->topk && s->experts) check_load(l, s);
    if (l->compare && s->step == l->last) check_slopes(l, m);
}

static bool run_shape(struct looking *l, const char *out, const char *routing, int threads,
                      struct error *err)
{
    struct options o;
    char line[2048];
    const struct train_listener listener = {.user = l, .step = look};
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --out %s --dtype f32 --routing %s --tuning %s "
             "--batch-tokens 60 --max-steps 4 --lr 1e-2 --schedule constant --warmup-ratio 0 "
             "--phase1-epochs 0.1 --bias-rate 1e-2 --threads %d --no-report --overwrite %s %s",
             out, routing, l->tuning, threads, bad_run_options(l->tuning), l->shape->options);
    const struct family *family;
    struct model_config c;
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, err) &&
                 family_read_config(&family, &c, "base", err),
             err);
    l->topk = !strcmp(routing, "topk");
    l->refused = !routing_check(routing_find(routing, err), &o.config.routing_options, &c, err);
    bool ok = !l->refused && job_open(&l->job, &o, out, &listener, err);
    if (ok) l->last = trainer_steps(l->job.trainer);
    l->cut = l->job.data.cut;
    ok = ok && trainer_run(l->job.trainer, &l->result, err);
    job_close(&l->job);
    options_close(&o);
    runs++;
    return ok;
}

// What cannot be: condensers are chosen by a bias, and that of one expert does not move.
static bool cannot_be(const struct shape *s, const char *routing)
{
    return !strcmp(routing, "condenser") && s->experts == 1;
}

static void check_shape(const struct shape *s, const char *routing, const char *tuning)
{
    struct error err = {0};
    struct looking one = {.shape = s, .tuning = tuning}, again = one, slopes = one;
    const bool ok = run_shape(&one, "one", routing, 1, &err);
    print_message("%s, %s x %s: %s\n", s->name, routing, tuning, ok ? "trains" : err.msg);
    if (cannot_be(s, routing)) {
        assert_true(!ok && one.refused && strstr(err.msg, "one expert"));
        refused++;
        return;
    }
    check_ok(ok, &err);
    assert_int_equal(one.result.skipped, 0);
    check_ok(run_shape(&again, "again", routing, 3, &err), &err);
    check_same_folder(one.result.exported, again.result.exported);
    char a[64], b[64];
    snprintf(a, sizeof a, "one/checkpoint-%d", (int)one.result.step);
    snprintf(b, sizeof b, "again/checkpoint-%d", (int)again.result.step);
    check_same_folder(a, b);
    slopes.compare = true;
    check_ok(run_shape(&slopes, "slopes", routing, 1, &err), &err);
}

static void every_shape_trains(void **state)
{
    (void)state;
    for (int64_t i = 0; i < SHAPES; i++) {
        make_model(&shapes[i]);
        const int64_t tokens = make_data(&shapes[i]);
        assert_true(tokens > 0);
        for (int64_t r = 0; routings[r]; r++) {
            for (int64_t t = 0; tunings[t]; t++) {
                if (!full && t && t != 1 + (i + r) % 4) continue;
                check_shape(&shapes[i], routings[r]->name, tunings[t]->name);
            }
        }
    }
}

static void one_token_too_many_is_named(void **state)
{
    (void)state;
    struct error err = {0};
    struct shape longer = shapes[SHAPES - 1];
    struct looking l = {.shape = &longer, .tuning = "full"};
    longer.shortest = longer.longest = 61;
    make_model(&longer);
    make_data(&longer);
    check_ok(dir_remove("one", &err), &err);
    check_ok(run_shape(&l, "one", "topk", 1, &err), &err); // cut, and counted
    assert_int_equal(l.cut, DOCUMENTS);
    check_ok(dir_remove("one", &err), &err);
    longer.options = "--too-long refuse";
    check_error(run_shape(&l, "one", "topk", 1, &err), &err, "data.jsonl:1: 61 tokens");
    assert_false(file_exists("one"));
    longer.shortest = longer.longest = 1; // nothing to predict
    make_data(&longer);
    check_error(run_shape(&l, "one", "topk", 1, &err), &err, "no token");
    assert_false(file_exists("one"));
}

static struct toy toy;

// First step's loss and norm of a few examples, cut as asked.
static void first_step(double out[2], int64_t sequences, int64_t accumulate)
{
    struct error err = {0};
    char *text;
    size_t size;
    toy.stage.options.batch_tokens = 0;
    toy.stage.options.batch_sequences = sequences;
    toy.stage.options.accumulate = accumulate;
    toy.stage.options.max_steps = 1;
    toy.stage.options.shuffle = false;
    toy.run.overwrite = true;
    check_ok(toy_run(&toy, &err), &err);
    check_ok(file_read(&text, &size, toy_path(toy.out, "metrics.jsonl"), 1 << 20, &err), &err);
    json_t *line = json_parse(text, size - 1, "line", &err);
    out[0] = json_number_value(json_object_get(line, "loss"));
    out[1] = json_number_value(json_object_get(line, "grad_norm"));
    json_decref(line);
    mem_free(text);
    runs++;
}

static void is_close(const double a[2], const double b[2])
{
    assert_true(isfinite(a[0]) && isfinite(a[1]) && a[1] > 0);
    assert_true(fabs(a[0] - b[0]) < 1e-6 * b[0] && fabs(a[1] - b[1]) < 1e-5 * b[1]);
}

static void drop_targets(int64_t i)
{
    struct example *e = &toy.data.example[i];
    memset(toy.data.learn + e->first, 0, (size_t)e->count);
    toy.data.supervised -= e->supervised;
    e->supervised = 0;
}

// Examples 0 to 3, some without a target or of one token: the same loss and gradient in one micro-batch and
// in four, and without those that carry nothing.
static void what_carries_nothing_weighs_nothing(void **state)
{
    (void)state;
    double whole[2], cut[2], without[2];
    toy_data_free(&toy.data);
    toy_data(&toy.data, 4, 21);
    drop_targets(1);
    drop_targets(2);
    toy.data.example[2].count = 1;
    first_step(whole, 4, 1);
    first_step(cut, 1, 4);
    is_close(cut, whole);
    toy.data.example[1] = toy.data.example[3];
    toy.data.count = 2;
    first_step(without, 2, 1);
    is_close(without, whole);
}

// A step of which no micro-batch has a target counts, and moves nothing.
static void a_step_without_a_target_moves_nothing(void **state)
{
    (void)state;
    struct error err = {0};
    toy_data_free(&toy.data);
    toy_data(&toy.data, 4, 22);
    toy.stage.options.batch_sequences = 1;
    toy.stage.options.accumulate = 1;
    toy.stage.options.max_steps = 4;
    for (int64_t i = 0; i < 3; i++) {
        drop_targets(i);
    }
    check_ok(toy_run(&toy, &err), &err);
    assert_int_equal(toy.result.step, 4);
    assert_int_equal(toy.result.skipped, 0);
    struct train_state s;
    check_ok(train_state_read(&s, toy_path(toy.out, "checkpoint-4/state.json"), &err), &err);
    assert_int_equal(s.updates, 1);
    assert_int_equal(s.tokens, toy.data.n_tokens);
    train_state_free(&s);
    runs++;
}

static int prepare(void **state)
{
    (void)state;
    full = torture_full();
    toy_open(&toy);
    return chdir(toy_path(toy.base, ".."));
}

static int finish(void **state)
{
    (void)state;
    toy_close(&toy);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_carries_nothing_weighs_nothing),
        cmocka_unit_test(a_step_without_a_target_moves_nothing),
        cmocka_unit_test(every_shape_trains),
        cmocka_unit_test(one_token_too_many_is_named),
    };
    const int failed = cmocka_run_group_tests(tests, prepare, finish);
    printf(
        "torture: %d shapes of batches, routers and vocabularies, %d runs, %d gradients compared "
        "with slopes, the same bytes with 1 and 3 threads; %d pairs refused by name\n",
        (int)SHAPES, (int)runs, (int)compared, (int)refused);
    return failed;
}
