// tests/train/test_run_checkpoint.c - checkpoints: what is saved comes back bit for bit, every changed
// byte is found and named, and a failure on the way leaves what was there before.
#include "support.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/rng.h"
#include "train/checkpoint.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

struct setting {
    struct arena arena;
    struct leaves leaves;
    struct saved saved;
};

static const struct {
    const char *name;
    int64_t rows, cols;
} shapes[] = {{"model.layers.0.mlp.gate.weight", 3, 7},
              {"model.layers.0.mlp.experts.1.up_proj.weight", 5, 2},
              {"model.norm.weight", 9, 0}};
enum { LEAVES = 3 };

static void add_leaves(struct setting *s)
{
    s->leaves.count = 0;
    for (int i = 0; i < LEAVES; i++) {
        const int64_t dim[] = {shapes[i].rows, shapes[i].cols};
        struct error err = {0};
        const struct tensor shape = tensor_make(NULL, DTYPE_F32, shapes[i].cols ? 2 : 1, dim);
        assert_non_null(leaves_add(&s->leaves, &s->arena, shapes[i].name, shape, DTYPE_BF16, &err));
    }
}

static void open_setting(struct setting *s)
{
    *s = (struct setting){0};
    add_leaves(s);
    s->arena.capacity = s->arena.used;
    s->arena.base = cpu_ops.allocate(s->arena.capacity);
    s->arena.used = 0;
    add_leaves(s);
    s->saved = (struct saved){.ops = &cpu_ops, .leaves = &s->leaves};
}

static void close_setting(struct setting *s)
{
    cpu_ops.release(s->arena.base, s->arena.capacity);
    leaves_free(&s->leaves);
}

static void fill_random(struct setting *s, uint64_t seed)
{
    struct rng r = {.seed = seed};
    for (int64_t i = 0; i < s->leaves.count; i++) {
        const struct leaf *f = &s->leaves.leaf[i];
        for (int64_t j = 0; j < tensor_count(f->value); j++) {
            data_f32(f->value)[j] = (float)rng_normal(&r);
            data_f32(f->m)[j] = (float)rng_normal(&r);
            data_f32(f->v)[j] = (float)rng_uniform(&r);
        }
        cpu_ops.convert(f->copy, f->value);
    }
}

static void check_same(const struct setting *a, const struct setting *b)
{
    for (int64_t i = 0; i < a->leaves.count; i++) {
        const struct leaf *x = &a->leaves.leaf[i], *y = &b->leaves.leaf[i];
        assert_memory_equal(x->value.data, y->value.data, tensor_bytes(x->value));
        assert_memory_equal(x->m.data, y->m.data, tensor_bytes(x->m));
        assert_memory_equal(x->v.data, y->v.data, tensor_bytes(x->v));
        assert_memory_equal(x->copy.data, y->copy.data, tensor_bytes(x->copy));
    }
}

static struct train_state some_state(void)
{
    struct error err = {0};
    static const char options[] = "{\"lr\": 1e-5, \"routing\": \"topk\"}";
    return (struct train_state){.step = 42,
                                .updates = 40,
                                .skipped = 2,
                                .skipped_in_a_row = 1,
                                .tokens = 123456789012,
                                .best_loss = 0.1 + 0.2,
                                .best_step = 30,
                                .evaluations_since_best = 3,
                                .data = 4294967295,
                                .deciding = json_parse(options, strlen(options), "o", &err)};
}

static bool load(const char *path, const struct setting *s, struct train_state *state,
                 struct error *err)
{
    struct manifest m;
    if (!run_checkpoint_state(path, 42, &m, state, err)) return false;
    const bool ok = run_checkpoint_values(path, &m, &s->saved, err) &&
                    run_checkpoint_rest(path, &m, &s->saved, err);
    manifest_free(&m);
    if (!ok) train_state_free(state);
    return ok;
}

static void comes_back_bit_for_bit(void **unused)
{
    (void)unused;
    struct setting a, b;
    struct error err = {0};
    struct train_state state = some_state(), again;
    char path[2048];
    open_setting(&a);
    open_setting(&b);
    fill_random(&a, 1);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);
    fill_random(&a, 2); // saved again over the first
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);
    check_ok(load(path, &b, &again, &err), &err);
    check_same(&a, &b);
    assert_int_equal(again.step, 42);
    assert_int_equal(again.updates, 40);
    assert_int_equal(again.skipped, 2);
    assert_int_equal(again.skipped_in_a_row, 1);
    assert_int_equal(again.tokens, 123456789012);
    assert_true(again.best_loss == state.best_loss);
    assert_int_equal(again.evaluations_since_best, 3);
    check_ok(train_state_same_run(&again, &state, "x", &err), &err);
    struct dir_names names;
    check_ok(dir_list(&names, out, &err), &err);
    assert_int_equal(names.count, 1); // nothing temporary is left
    dir_names_free(&names);
    train_state_free(&again);
    train_state_free(&state);
    close_setting(&a);
    close_setting(&b);
}

static void other_options_are_refused_by_name(void **unused)
{
    (void)unused;
    struct error err = {0};
    struct train_state a = some_state(), b = some_state();
    json_object_set_new(b.deciding, "lr", json_real(2e-5));
    check_error(train_state_same_run(&a, &b, "x", &err), &err, "option lr was 1e-5");
    json_object_set(b.deciding, "lr", json_object_get(a.deciding, "lr"));
    check_ok(train_state_same_run(&a, &b, "x", &err), &err);
    json_object_set_new(b.deciding, "seed", json_integer(1));
    check_error(train_state_same_run(&a, &b, "x", &err), &err, "option seed was not set");
    json_object_del(b.deciding, "seed");
    json_object_del(b.deciding, "routing");
    check_error(train_state_same_run(&a, &b, "x", &err), &err, "routing");
    json_object_set_new(b.deciding, "routing", json_string("topk"));
    b.data++;
    check_error(train_state_same_run(&a, &b, "x", &err), &err, "training data");
    train_state_free(&a);
    train_state_free(&b);
}

// The file's name, and the tensor's where the byte is a tensor's.
static void check_byte(const char *path, const char *file, const struct setting *s, size_t at)
{
    char name[4096];
    struct error err = {0};
    struct train_state state;
    snprintf(name, sizeof name, "%s/%s", path, file);
    FILE *f = fopen(name, "r+b");
    assert_non_null(f);
    fseek(f, (long)at, SEEK_SET);
    const int c = fgetc(f);
    fseek(f, (long)at, SEEK_SET);
    fputc(c ^ (1 << (at % 8)), f);
    fclose(f);
    if (load(path, s, &state, &err)) fail_msg("%s: byte %zu changed unseen", file, at);
    if (!strstr(err.msg, file)) fail_msg("'%s' does not name %s", err.msg, file);
    if (strstr(file, "safetensors") && !strstr(err.msg, "model.") && !strstr(err.msg, "header")) {
        fail_msg("'%s' names no tensor", err.msg);
    }
    f = fopen(name, "r+b");
    fseek(f, (long)at, SEEK_SET);
    fputc(c, f);
    fclose(f);
}

static void every_changed_byte_is_named(void **unused)
{
    (void)unused;
    struct setting a, b;
    struct error err = {0};
    struct train_state state = some_state(), again;
    struct dir_names names;
    char path[2048];
    open_setting(&a);
    open_setting(&b);
    fill_random(&a, 3);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);
    check_ok(dir_list(&names, path, &err), &err);
    assert_int_equal(names.count, 5);
    for (int64_t i = 0; i < names.count; i++) {
        char file[4096];
        struct file_map m;
        snprintf(file, sizeof file, "%s/%s", path, names.name[i]);
        check_ok(file_map_open(&m, file, &err), &err);
        const size_t size = m.size;
        file_map_close(&m);
        for (size_t at = 0; at < size; at++) {
            check_byte(path, names.name[i], &b, at);
        }
    }
    dir_names_free(&names);
    check_ok(load(path, &b, &again, &err), &err);
    check_same(&a, &b);
    train_state_free(&again);
    train_state_free(&state);
    close_setting(&a);
    close_setting(&b);
}

static void cut_and_missing_files_are_named(void **unused)
{
    (void)unused;
    static const char *const files[] = {"v.safetensors", "m.safetensors", "values.safetensors",
                                        "state.json", "manifest.json"};
    struct setting a;
    struct error err = {0};
    struct train_state state = some_state(), again;
    char path[2048], file[4096];
    open_setting(&a);
    fill_random(&a, 4);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(file, sizeof file, "%s/%s", path, files[i]);
        assert_int_equal(truncate(file, 100), 0);
        check_error(load(path, &a, &again, &err), &err, files[i]);
        assert_int_equal(unlink(file), 0);
        check_error(load(path, &a, &again, &err), &err, files[i]);
    }
    train_state_free(&state);
    close_setting(&a);
}

// A file that the manifest does not list might be read for a part of the state; another checkpoint's folder is whole,
// and yet not this one.
static void what_was_not_written_with_it_is_refused(void **unused)
{
    (void)unused;
    struct setting a;
    struct error err = {0};
    struct train_state state = some_state(), again;
    struct manifest m;
    char path[2048], file[4096];
    open_setting(&a);
    fill_random(&a, 4);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);
    snprintf(file, sizeof file, "%s/moe_bias_states.json", path);
    check_ok(file_write(file, "{}", 2, &err), &err);
    check_error(load(path, &a, &again, &err), &err, "moe_bias_states.json, which manifest.json");
    assert_int_equal(unlink(file), 0);
    snprintf(file, sizeof file, "%s/.DS_Store", path); // what a desktop leaves behind is never read
    check_ok(file_write(file, "x", 1, &err), &err);
    check_ok(load(path, &a, &again, &err), &err);
    train_state_free(&again);
    check_error(run_checkpoint_state(path, 43, &m, &again, &err), &err,
                "holds step 42, step 43 expected");
    train_state_free(&state);
    close_setting(&a);
}

// Numbers that count steps, and are more than there were, would be used as places in the data.
static void states_of_steps_to_come_are_refused(void **unused)
{
    (void)unused;
    static const char *const names[] = {
        "stage",     "stage_first",           "updates", "skipped", "skipped_in_a_row",
        "best_step", "evaluations_since_best"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[2048], text[8192];
        size_t size;
        struct error err = {0};
        struct train_state state = some_state(), again;
        json_t *o;
        snprintf(path, sizeof path, "%s/state.json", test_dir());
        check_ok(train_state_write(&state, path, &err), &err);
        train_state_free(&state);
        o = json_parse_file(path, 1 << 20, &err);
        assert_non_null(o);
        json_object_set_new(o, names[i], json_integer(43));
        size = json_dumpb(o, text, sizeof text, 0);
        snprintf(path, sizeof path, "%s: found 43, expected an integer from 0 to 42", names[i]);
        check_error(train_state_parse(&again, text, size, "state.json", &err), &err, path);
        json_object_set_new(o, names[i], json_integer(42));
        size = json_dumpb(o, text, sizeof text, 0);
        check_ok(train_state_parse(&again, text, size, "state.json", &err), &err);
        train_state_free(&again);
        json_decref(o);
    }
}

static void another_shape_is_refused(void **unused)
{
    (void)unused;
    struct setting a;
    struct error err = {0};
    struct train_state state = some_state(), again;
    char path[2048];
    open_setting(&a);
    fill_random(&a, 5);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);
    a.leaves.leaf[0].value.dim[0] = 7;
    a.leaves.leaf[0].value.dim[1] = 3;
    check_error(load(path, &a, &again, &err), &err, "mlp.gate.weight");
    a.leaves.leaf[0].value.dim[0] = 3;
    a.leaves.leaf[0].value.dim[1] = 7;
    a.leaves.count--;
    check_error(load(path, &a, &again, &err), &err, "3 tensors");
    a.leaves.count++;
    snprintf(a.leaves.leaf[1].name, NAME_MAX_LENGTH, "other");
    check_error(load(path, &a, &again, &err), &err, "no tensor other");
    train_state_free(&state);
    close_setting(&a);
}

// A limit on the size of files stands for a full disk: the write fails in the middle.
static void a_failed_save_leaves_the_old_one(void **unused)
{
    (void)unused;
    struct setting a, b;
    struct error err = {0};
    struct train_state state = some_state(), again;
    char path[2048];
    open_setting(&a);
    open_setting(&b);
    fill_random(&a, 6);
    fill_random(&b, 7);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    check_ok(run_checkpoint_save(out, &a.saved, &state, &err), &err);

    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 300;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const bool saved = run_checkpoint_save(out, &b.saved, &state, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    check_error(saved, &err, "values.safetensors");
    check_ok(load(path, &b, &again, &err), &err);
    check_same(&a, &b);
    struct dir_names names;
    check_ok(dir_list(&names, out, &err), &err);
    assert_int_equal(names.count, 1);
    dir_names_free(&names);
    train_state_free(&again);
    train_state_free(&state);
    close_setting(&a);
    close_setting(&b);
}

static void no_memory_is_an_error_and_no_more(void **unused)
{
    (void)unused;
    struct setting a;
    struct error err = {0};
    struct train_state state = some_state(), again;
    char path[2048];
    open_setting(&a);
    fill_random(&a, 8);
    const char *out = test_dir();
    snprintf(path, sizeof path, "%s/checkpoint-42", out);
    int64_t failures = 0;
    for (int64_t n = 1;; n++, failures++) {
        mem_fail_at(n, true);
        const bool ok = run_checkpoint_save(out, &a.saved, &state, &err);
        mem_fail_at(0, false);
        if (ok) break;
    }
    // Loading is left out: jansson's parser asserts, rather than fails, when it gets no memory.
    check_ok(load(path, &a, &again, &err), &err);
    assert_true(failures > 10);
    train_state_free(&again);
    train_state_free(&state);
    close_setting(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_bit_for_bit),
        cmocka_unit_test(other_options_are_refused_by_name),
        cmocka_unit_test(every_changed_byte_is_named),
        cmocka_unit_test(cut_and_missing_files_are_named),
        cmocka_unit_test(what_was_not_written_with_it_is_refused),
        cmocka_unit_test(states_of_steps_to_come_are_refused),
        cmocka_unit_test(another_shape_is_refused),
        cmocka_unit_test(a_failed_save_leaves_the_old_one),
        cmocka_unit_test(no_memory_is_an_error_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
