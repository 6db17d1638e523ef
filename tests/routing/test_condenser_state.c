// tests/routing/test_condenser_state.c - the life of ExpertCondenser's state: phases, where its gates begin, its
// files and what of them is refused, in a model with a dense layer before.
#include "routing_test.h"

#include "routing/condenser_state.h"

enum { L = 3, E = 6, K = 2, TOKENS = 2 };

static const struct model_config config = {.architecture = "toy",
                                           .width = WIDTH,
                                           .n_layers = L,
                                           .n_experts = E,
                                           .experts_per_tok = K,
                                           .moe_layer = {false, true, true}};
static const char gates_name[] = "condenser_gates.safetensors";

// A router's row that names its layer and expert.
static float row_value(int64_t layer, int64_t expert, int c)
{
    return (float)(100 * layer + 10 * expert) + 0.5F * (float)c;
}

static void router_row(void *user, int64_t layer, int64_t expert, float *row)
{
    (void)user;
    for (int c = 0; c < WIDTH; c++) {
        row[c] = row_value(layer, expert, c);
    }
}
static const struct router_rows rows = {NULL, router_row};

struct run {
    struct routing_state *st;
    struct arena arena;
    struct leaves leaves;
};

static void run_open(struct run *r, const struct routing_options *o)
{
    struct error err = {0};
    *r = (struct run){0};
    for (int placing = 0; placing < 2; placing++) {
        r->arena.used = 0;
        r->leaves.count = 0;
        check_ok(condenser_open(&r->st, &cpu_ops, &config, o, TOKENS, &r->arena, &r->leaves, &err),
                 &err);
        if (placing) break;
        r->arena.capacity = r->arena.used;
        r->arena.base = cpu_ops.allocate(r->arena.capacity);
        assert_non_null(r->arena.base);
    }
}

static void run_close(struct run *r)
{
    condenser_close(r->st);
    cpu_ops.release(r->arena.base, r->arena.capacity);
    leaves_free(&r->leaves);
}

static void begin(struct run *r, int64_t phase)
{
    struct error err = {0};
    check_ok(condenser_begin(r->st, phase, &rows, &err), &err);
}

// A learnt gate, experts 1 and 3 in layer 1, 4 in layer 2.
static const struct routing_options learnt = {.condenser_gate = CONDENSER_SIGMOID,
                                              .condenser_experts = "3,1;4"};

static float *gate_row(const struct run *r, int64_t leaf, int64_t i)
{
    return row_f32(r->leaves.leaf[leaf].value, i);
}

static void check_row(const float *row, int64_t layer, int64_t expert, float more)
{
    for (int c = 0; c < WIDTH; c++) {
        assert_true(row[c] == row_value(layer, expert, c) + more);
    }
}

static void gates_begin_as_the_routers_rows(void **state)
{
    (void)state;
    struct run r;
    run_open(&r, &learnt);
    begin(&r, 0);
    assert_int_equal(r.leaves.count, 2);
    assert_string_equal(r.leaves.leaf[0].name, "model.layers.1.mlp.condenser_gate");
    assert_string_equal(r.leaves.leaf[1].name, "model.layers.2.mlp.condenser_gate");
    check_row(gate_row(&r, 0, 0), 1, 1, 0);
    check_row(gate_row(&r, 0, 1), 1, 3, 0);
    check_row(gate_row(&r, 1, 0), 2, 4, 0);
    run_close(&r);
}

static void gates_that_do_not_learn_are_no_leaves(void **state)
{
    (void)state;
    static const int gates[] = {CONDENSER_ROUTER, CONDENSER_ONE};
    for (int i = 0; i < 2; i++) {
        const char *dir = test_dir();
        struct error err = {0};
        char path[1200];
        struct run r;
        struct routing_options o = learnt;
        o.condenser_gate = gates[i];
        run_open(&r, &o);
        begin(&r, 0);
        assert_int_equal(r.leaves.count, 0);
        check_ok(condenser_save(r.st, dir, &err), &err);
        snprintf(path, sizeof path, "%s/%s", dir, gates_name);
        assert_false(file_exists(path));
        run_close(&r);
    }
}

// A folder with the state of a run whose gates moved by 0.25.
static const char *saved_state(const struct routing_options *o)
{
    const char *dir = test_dir();
    struct error err = {0};
    struct run r;
    run_open(&r, o);
    begin(&r, 0);
    for (int64_t l = 0; l < r.leaves.count; l++) {
        const struct tensor v = r.leaves.leaf[l].value;
        for (int64_t i = 0; i < tensor_count(v); i++) {
            data_f32(v)[i] += 0.25F;
        }
    }
    check_ok(condenser_save(r.st, dir, &err), &err);
    run_close(&r);
    return dir;
}

// What a run of these options makes of a folder; r is open afterwards.
static bool load(struct run *r, const struct routing_options *o, const char *dir, struct error *err)
{
    struct routing_source from;
    run_open(r, o);
    check_ok(routing_source_find(&from, dir, NULL, err), err);
    return condenser_load(r->st, &from, err);
}

static void gates_travel(void **state)
{
    (void)state;
    struct error err = {0};
    struct run r;
    check_ok(load(&r, &learnt, saved_state(&learnt), &err), &err);
    begin(&r, 0); // leaves them as they were loaded
    check_row(gate_row(&r, 0, 0), 1, 1, 0.25F);
    check_row(gate_row(&r, 0, 1), 1, 3, 0.25F);
    check_row(gate_row(&r, 1, 0), 2, 4, 0.25F);
    run_close(&r);
}

static void missing_gates_begin_again(void **state)
{
    (void)state;
    struct error err = {0};
    char path[1200];
    struct run r;
    const char *dir = saved_state(&learnt);
    snprintf(path, sizeof path, "%s/%s", dir, gates_name);
    assert_int_equal(remove(path), 0);
    check_ok(load(&r, &learnt, dir, &err), &err);
    begin(&r, 0);
    check_row(gate_row(&r, 0, 1), 1, 3, 0);
    run_close(&r);
}

static void bad_gates_are_refused_by_name(void **state)
{
    (void)state;
    static const char first[] = "model.layers.1.mlp.condenser_gate",
                      second[] = "model.layers.2.mlp.condenser_gate";
    float good[3 * WIDTH] = {0}, bad[WIDTH] = {0};
    double wide[2 * WIDTH] = {0};
    bad[WIDTH - 1] = NAN;
    const struct tensor fine = tensor_2d(good, DTYPE_F32, 2, WIDTH),
                        one = tensor_2d(good, DTYPE_F32, 1, WIDTH);
    const struct {
        struct st_named tensor[2];
        int64_t n;
        const char *words;
    } cases[] = {
        {{{first, fine}}, 1, "model.layers.2.mlp.condenser_gate: F32 [1, 8] expected"},
        {{{first, one}, {second, one}},
         2,
         "model.layers.1.mlp.condenser_gate: F32 [2, 8] expected"},
        {{{first, fine}, {second, fine}}, 2, "2.mlp.condenser_gate: F32 [1, 8] expected"},
        {{{first, tensor_2d(good, DTYPE_F32, 3, WIDTH)}, {second, one}}, 2, "F32 [2, 8] expected"},
        {{{first, tensor_2d(good, DTYPE_F32, 2, WIDTH - 1)}, {second, one}}, 2, "F32 [2, 8]"},
        {{{first, tensor_2d(good, DTYPE_F32, 2, WIDTH + 1)}, {second, one}}, 2, "F32 [2, 8]"},
        {{{first, tensor_1d(good, DTYPE_F32, 2)}, {second, one}}, 2, "F32 [2, 8] expected"},
        {{{first, tensor_2d(wide, DTYPE_F64, 2, WIDTH)}, {second, one}}, 2, "F32 [2, 8] expected"},
        {{{first, fine}, {second, tensor_2d(bad, DTYPE_F32, 1, WIDTH)}},
         2,
         "2.mlp.condenser_gate: element 7: a finite number expected"},
    };
    const char *dir = saved_state(&learnt);
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, gates_name);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        struct run r;
        check_ok(safetensors_write(path, cases[i].tensor, cases[i].n, NULL, &err), &err);
        check_error(load(&r, &learnt, dir, &err), &err, cases[i].words);
        assert_non_null(strstr(err.msg, gates_name));
        run_close(&r);
    }
}

// Room for the condensers is made before the state is read.
static void more_condensers_than_there_is_room_for_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct run r;
    const struct routing_options two = {.condenser_experts = "3,1;4"},
                                 one = {.condenser_count = "1"};
    const char *dir = saved_state(&two);
    check_error(load(&r, &one, dir, &err), &err, "layer 1: 2 condensers, at most 1 expected");
    run_close(&r);
    check_ok(load(&r, &(struct routing_options){.condenser_count = "2"}, dir, &err), &err);
    assert_true(r.st->chosen);
    assert_int_equal(r.st->set.count[1], 2);
    assert_int_equal(r.st->set.count[2], 1);
    assert_int_equal(data_i32(r.st->layer[1].experts)[1], 3);
    run_close(&r);
}

static void the_room_is_that_of_the_largest_layer(void **state)
{
    (void)state;
    static const struct {
        struct routing_options o;
        int64_t most;
    } cases[] = {
        {{.condenser_experts = "3,1;4"}, 2},
        {{.condenser_experts = "3;4,5"}, 2},
        {{.condenser_experts = "3"}, 1},
        {{.condenser_count = "0,1"}, 1},
        {{.condenser_total = 3, .condenser_max = 1}, 1},
        {{.condenser_total = 3, .condenser_max = 9}, K},
        {{.condenser_total = 3, .condenser_max = 9, .condenser_preset = CONDENSER_RELEASED}, E}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run r;
        run_open(&r, &cases[i].o);
        assert_int_equal(r.st->most, cases[i].most);
        run_close(&r);
    }
}

static void a_phase_of_learning_comes_first_unless_something_is_known(void **state)
{
    (void)state;
    assert_int_equal(condenser_phases(&(struct routing_options){0}), 2);
    assert_int_equal(condenser_phases(&(struct routing_options){.bias_file = "b.json"}), 1);
    assert_int_equal(condenser_phases(&(struct routing_options){.condenser_experts = "1"}), 1);
    assert_int_equal(condenser_phases(&(struct routing_options){.source.bias = true}), 1);
    assert_int_equal(condenser_phases(&(struct routing_options){.source.experts = true}), 1);
}

static void the_second_phase_has_the_least_biased_and_its_own_rate(void **state)
{
    (void)state;
    static const float bias[L][E] = {{0}, {0.5F, -0.25F, 0, 0.5F, -0.5F, 0}, {1, 1, 1, -1, 1, 1}};
    struct error err = {0};
    struct run r;
    run_open(&r, &(struct routing_options){
                     .condenser_count = "2,1", .bias_rate = 0.5, .phase2_rate = 0.125});
    begin(&r, 0);
    assert_false(r.st->chosen);
    assert_true(r.st->bias.step == 0.5F);
    for (int64_t l = 1; l < L; l++) {
        memcpy(r.st->bias.layer[l].b.data, bias[l], sizeof bias[l]);
        data_f32(r.st->bias.layer[l].phase)[0] = 7;
    }
    begin(&r, 1);
    assert_true(r.st->chosen);
    assert_true(r.st->bias.step == 0.125F);
    assert_int_equal(r.st->set.count[1], 2);
    assert_int_equal(r.st->set.expert[1][0], 1);
    assert_int_equal(r.st->set.expert[1][1], 4);
    assert_int_equal(r.st->set.count[2], 1);
    assert_int_equal(r.st->set.expert[2][0], 3);
    assert_int_equal(data_i32(r.st->layer[1].experts)[1], 4); // where the ops read them
    for (int64_t l = 1; l < L; l++) {
        assert_true(data_f32(r.st->bias.layer[l].phase)[0] == 0); // a new sum
        assert_memory_equal(r.st->bias.layer[l].b.data, bias[l], sizeof bias[l]);
    }
    run_close(&r);

    // A bias that is zero everywhere chooses nothing.
    run_open(&r, &(struct routing_options){.condenser_count = "1"});
    memset(r.st->bias.layer[1].b.data, 0, E * sizeof(float));
    memset(r.st->bias.layer[2].b.data, 0, E * sizeof(float));
    check_error(condenser_begin(r.st, 1, &rows, &err), &err, "the bias is zero everywhere");
    run_close(&r);
}

static void the_bias_enters_where_the_preset_has_it(void **state)
{
    (void)state;
    static const struct {
        int preset, given, want;
    } cases[] = {{CONDENSER_PAPER, BIAS_IN_DEFAULT, BIAS_IN_SELECTION},
                 {CONDENSER_RELEASED, BIAS_IN_DEFAULT, BIAS_IN_LOGITS},
                 {CONDENSER_PAPER, BIAS_IN_LOGITS, BIAS_IN_LOGITS},
                 {CONDENSER_RELEASED, BIAS_IN_SELECTION, BIAS_IN_SELECTION}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run r;
        run_open(&r, &(struct routing_options){.condenser_count = "1",
                                               .condenser_preset = cases[i].preset,
                                               .bias_in = cases[i].given});
        assert_int_equal((int)r.st->bias.in, cases[i].want);
        run_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gates_begin_as_the_routers_rows),
        cmocka_unit_test(gates_that_do_not_learn_are_no_leaves),
        cmocka_unit_test(gates_travel),
        cmocka_unit_test(missing_gates_begin_again),
        cmocka_unit_test(bad_gates_are_refused_by_name),
        cmocka_unit_test(more_condensers_than_there_is_room_for_are_refused),
        cmocka_unit_test(the_room_is_that_of_the_largest_layer),
        cmocka_unit_test(a_phase_of_learning_comes_first_unless_something_is_known),
        cmocka_unit_test(the_second_phase_has_the_least_biased_and_its_own_rate),
        cmocka_unit_test(the_bias_enters_where_the_preset_has_it),
    };
    return cmocka_run_group_tests_name("condenser state", tests, NULL, NULL);
}
