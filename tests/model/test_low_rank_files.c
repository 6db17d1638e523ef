// tests/model/test_low_rank_files.c - adapters of lora and dora in folders: what peft wrote is read, written again
// and merged without a change; first values; and every file or option that does not fit is refused by name.
#include "low_rank.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/json.h"

#include <math.h>

static struct tensor logits_of(const struct parity *p, const struct model_setup *s)
{
    struct model m;
    parity_model(&m, s);
    model_forward(&m, &p->batch[0], NULL, false);
    const struct tensor logits = parity_logits(&m, &p->batch[0]);
    model_close(&m);
    return logits;
}

static const char *fresh_dir(void)
{
    static char dir[4][1024];
    static const char *root; // a second call of test_dir would remove the first's folder
    static int turn;
    if (!root) root = test_dir();
    turn++;
    snprintf(dir[turn % 4], sizeof dir[0], "%s/%d", root, turn);
    return dir[turn % 4];
}

static void merged_models_compute_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < LOW_RANK_CASES; i++) {
        const struct low_rank_case *c = &low_rank_cases[i];
        struct parity p;
        struct model m;
        struct error err = {0};
        parity_open(&p, c->model);
        struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
        const bool exact = !strcmp(c->model, "olmoe-gqa"); // its weights are stored as float32
        s.frozen = true;
        const struct tensor apart = logits_of(&p, &s);
        parity_model(&m, &s);
        const char *dir = fresh_dir();
        check_ok(model_export(&m, dir, &err), &err);
        model_close(&m);
        s.dir = dir;
        s.tuning = NULL;
        s.adapter = NULL;
        const struct tensor merged = logits_of(&p, &s);
        print_message("%s over %s: merged differs by %.1e\n", c->name, c->model,
                      relative_error(merged, apart));
        check_close("merged", merged, apart, exact ? 1e-6 : 2e-2);
        mem_free(apart.data);
        mem_free(merged.data);
        parity_close(&p);
    }
}

static void check_same_file(const char *a, const char *b, const char *name)
{
    char path[2][2048];
    struct file_map x, y;
    struct error err = {0};
    snprintf(path[0], sizeof path[0], "%s/%s", a, name);
    snprintf(path[1], sizeof path[1], "%s/%s", b, name);
    check_ok(file_map_open(&x, path[0], &err), &err);
    check_ok(file_map_open(&y, path[1], &err), &err);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    file_map_close(&x);
    file_map_close(&y);
}

// Written by a model that learns, then by one that is frozen, which has the routers only as they were brought.
static void adapters_survive_being_written(void **state)
{
    (void)state;
    for (int i = 0; i < LOW_RANK_CASES; i++) {
        const struct low_rank_case *c = &low_rank_cases[i];
        struct parity p;
        struct error err = {0};
        struct model m;
        parity_open(&p, c->model);
        struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
        const struct tensor want = logits_of(&p, &s);
        const char *dir[2] = {fresh_dir(), fresh_dir()};
        for (int k = 0; k < 2; k++) {
            parity_model(&m, &s);
            check_ok(model_save_adapter(&m, dir[k], &err), &err);
            model_close(&m);
            s = low_rank_setup(&p, c, dir[k]);
            const struct tensor got = logits_of(&p, &s);
            assert_memory_equal(got.data, want.data, tensor_bytes(want));
            mem_free(got.data);
            s.frozen = true;
        }
        check_same_file(dir[0], dir[1], "adapter_model.safetensors");
        check_same_file(dir[0], dir[1], "adapter_config.json");
        mem_free(want.data);
        parity_close(&p);
    }
}

static struct model_setup fresh_setup(const struct parity *p, const struct parity_case *c,
                                      const char *tuning)
{
    struct error err = {0};
    struct model_setup s = parity_setup(p, c, DTYPE_F32);
    s.tuning = tuning_find(tuning, &err);
    s.tuning_options = (struct tuning_options){
        .seed = 5,
        .lora_rank = 4,
        .lora_alpha = 8,
        .lora_dropout = 0.1,
        .lora_targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"};
    return s;
}

static struct leaf *leaf_of(struct model *m, const char *name)
{
    for (int64_t i = 0; i < m->leaves.count; i++) {
        if (!strcmp(m->leaves.leaf[i].name, name)) return &m->leaves.leaf[i];
    }
    fail_msg("no leaf %s", name);
    return NULL;
}

// A fresh adapter changes nothing: B is zero, m is |W|. A is drawn by seed and module alone.
static void fresh_adapters_change_nothing(void **state)
{
    (void)state;
    static const char *const tunings_here[] = {"lora", "dora"};
    for (int i = 0; i < 2 * parity_n_cases; i++) {
        const struct parity_case *c = &parity_cases[i / 2];
        struct parity p;
        parity_open(&p, c->name);
        struct model_setup s = parity_setup(&p, c, DTYPE_F32);
        s.tuning = NULL;
        const struct tensor want = logits_of(&p, &s);
        s = fresh_setup(&p, c, tunings_here[i % 2]);
        const struct tensor got = logits_of(&p, &s);
        check_close("logits", got, want, i % 2 ? 2e-6 : 0);
        mem_free(want.data);
        mem_free(got.data);
        parity_close(&p);
    }
}

static void first_values_follow_from_seed_and_module(void **state)
{
    (void)state;
    struct parity p;
    struct model m, other;
    parity_open(&p, "olmoe-gqa");
    struct model_setup s = fresh_setup(&p, &parity_cases[0], "lora");
    parity_model(&m, &s);
    static const char name[] = "model.layers.1.mlp.experts.*.down_proj.lora_A.weight";
    const struct tensor a = leaf_of(&m, name)->value;
    assert_int_equal(a.dim[0], 4 * m.config.n_experts);
    assert_int_equal(a.dim[1], m.config.expert_width);
    double largest = 0;
    for (int64_t i = 0; i < tensor_count(a); i++) {
        largest = fmax(largest, fabs((double)data_f32(a)[i]));
    }
    const double bound = 1 / sqrt((double)a.dim[1]);
    assert_true(largest < bound && largest > 0.95 * bound);
    s.tuning_options.lora_targets = "*.layers.1.*down*";
    s.tuning_options.lora_rank = 4;
    parity_model(&other, &s);
    assert_int_equal(other.leaves.count, 2);
    assert_memory_equal(leaf_of(&other, name)->value.data, a.data, tensor_bytes(a));
    model_close(&other);
    s.tuning_options.seed = 6;
    parity_model(&other, &s);
    assert_memory_not_equal(leaf_of(&other, name)->value.data, a.data, tensor_bytes(a));
    model_close(&other);
    model_close(&m);
    parity_close(&p);
}

// `*` is every projection: neither routers nor the gate of a shared expert.
static void routers_are_no_targets(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    parity_open(&p, "qwen-dense");
    struct model_setup s = fresh_setup(&p, &parity_cases[4], "lora");
    s.tuning_options.lora_targets = "*";
    parity_model(&m, &s);
    assert_true(m.leaves.count > 20);
    for (int64_t i = 0; i < m.leaves.count; i++) {
        assert_null(strstr(m.leaves.leaf[i].name, "mlp.gate."));
        assert_null(strstr(m.leaves.leaf[i].name, "shared_expert_gate"));
    }
    model_close(&m);
    parity_close(&p);
}

static void check_refused(const struct model_setup *s, const char *needle)
{
    struct model m;
    struct error err = {0};
    const bool ok = model_open(&m, s, &err) && model_allocate(&m, &err);
    model_close(&m);
    check_error(ok, &err, needle);
    assert_null(strchr(err.msg, '\n'));
}

static void options_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct parity p;
    parity_open(&p, "olmoe-gqa");
    const struct model_setup good = fresh_setup(&p, &parity_cases[0], "lora");
    struct model_setup s = good;
    s.tuning_options.lora_rank = 14;
    check_refused(
        &s, "--lora-rank 14: model.layers.0.self_attn.k_proj is 12 x 24, a rank of at most 12");
    s = good;
    s.tuning_options.lora_targets = "q_proj,w_proj";
    check_refused(&s, "--lora-targets: 'w_proj' matches no projection");
    s.tuning_options.lora_targets = "*.mlp.gate";
    check_refused(&s, "--lora-targets: '*.mlp.gate' matches no projection");
    s.tuning_options.lora_targets = "";
    check_refused(&s, "--lora-targets");
    s = good;
    s.tuning_options.lora_rank = 0;
    check_refused(&s, "--lora-rank is 0");
    s = good;
    s.tuning_options.lora_alpha = -1;
    check_refused(&s, "--lora-alpha is -1");
    s = good;
    s.tuning_options.lora_dropout = 1;
    check_refused(&s, "--lora-dropout is 1");
    s = fresh_setup(&p, &parity_cases[0], "dora");
    s.tuning_options.train = "*.1.self_attn.v_proj.weight";
    check_refused(&s, "model.layers.1.self_attn.v_proj.weight has a magnitude");
    parity_close(&p);
}

// A copy of a fixture's adapter whose config has `edit` merged into it.
static const char *edited(const char *name, const char *edit)
{
    static const char file[] = "adapter_model.safetensors";
    const char *dir = fresh_dir();
    char from[2048], to[2048];
    struct error err = {0};
    struct file_map map;
    check_ok(dir_make(dir, &err), &err);
    snprintf(from, sizeof from, "%s/tuning/%s/%s", FIXTURES, name, file);
    snprintf(to, sizeof to, "%s/%s", dir, file);
    check_ok(file_map_open(&map, from, &err), &err);
    check_ok(file_write(to, map.data, map.size, &err), &err);
    file_map_close(&map);
    snprintf(from, sizeof from, "%s/tuning/%s/adapter_config.json", FIXTURES, name);
    snprintf(to, sizeof to, "%s/adapter_config.json", dir);
    json_t *config = json_parse_file(from, 1 << 20, &err);
    json_t *change = json_parse(edit, strlen(edit), "edit", &err);
    assert_true(config && change && json_object_update(config, change) == 0);
    check_ok(json_write_file(to, config, &err), &err);
    json_decref(change);
    json_decref(config);
    return dir;
}

static void configs_that_are_not_implemented_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *edit, *needle;
    } bad[] = {
        {"{\"bias\": \"all\"}", "bias 'all' is not implemented"},
        {"{\"fan_in_fan_out\": true}", "fan_in_fan_out is not implemented"},
        {"{\"lora_bias\": true}", "lora_bias is not implemented"},
        {"{\"layer_replication\": [[0, 2]]}", "layer_replication is not implemented"},
        {"{\"trainable_token_indices\": [1]}", "trainable_token_indices is not implemented"},
        {"{\"use_qalora\": true}", "use_qalora is not implemented"},
        {"{\"tomorrows_idea\": 1}", "tomorrows_idea is not implemented"},
        {"{\"init_lora_weights\": \"pissa_niter_4\"}", "'pissa_niter_4' changes the base"},
        {"{\"peft_type\": \"IA3\"}", "peft_type 'IA3' is not implemented"},
        {"{\"r\": 0}", "r"},
        {"{\"lora_dropout\": \"much\"}", "lora_dropout"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        const struct tuning *t;
        struct tuning_options o = {0};
        const char *dir = edited("lora", bad[i].edit);
        check_error(tuning_of_adapter(&t, &o, dir, &err), &err, bad[i].needle);
        assert_non_null(strstr(err.msg, "adapter_config.json"));
    }
}

// The config says otherwise than the tensors.
static void configs_that_do_not_fit_their_tensors_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *edit, *needle;
    } bad[] = {
        {"{\"r\": 6}", "rank 6 for model.layers.0.self_attn.q_proj, but its lora_A has 5 rows"},
        {"{\"rank_pattern\": {\"k_proj\": 2}}", "rank 2 for model.layers.0.self_attn.k_proj"},
        {"{\"alpha_pattern\": {\"experts.3.up_proj\": 2}}",
         "model.layers.0.mlp.experts.3.up_proj has another rank or alpha"},
        {"{\"alpha_pattern\": {\"q_(proj\": 2}}", "'q_(proj' is not a regular expression"},
        {"{\"alpha_pattern\": {\"q_proj\": -2}}", "'q_proj': a number from 1e-30 to 1e+30"},
        {"{\"alpha_pattern\": {\"q_proj\": 1e200}}", "'q_proj': a number from 1e-30 to 1e+30"},
        {"{\"alpha_pattern\": {\".*.*.*.*.*[A-Z]\": 2}}", "takes too long"},
    };
    struct parity p;
    parity_open(&p, "olmoe-gqa");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct model_setup s =
            low_rank_setup(&p, &low_rank_cases[0], edited("lora", bad[i].edit));
        check_refused(&s, bad[i].needle);
    }
    // A module that is named and not there; one regular expression, and a list.
    struct model_setup s = low_rank_setup(
        &p, &low_rank_cases[6],
        edited("fused", "{\"target_modules\": [\"q_proj\", \"v_proj\", \"k_proj\"]}"));
    check_refused(&s, "model.layers.0.self_attn.k_proj is one of target_modules");
    s = low_rank_setup(&p, &low_rank_cases[6],
                       edited("fused", "{\"target_modules\": \".*attn.[qvo]_proj\"}"));
    check_refused(&s, "model.layers.0.self_attn.o_proj is one of target_modules");
    parity_close(&p);
}

static void adapters_of_another_base_are_refused(void **state)
{
    (void)state;
    struct parity p;
    parity_open(&p, "olmoe-many");
    const struct low_rank_case on_many = {"lora", "olmoe-many", "v4", false};
    struct model_setup s = low_rank_setup(&p, &on_many, low_rank_folder(&low_rank_cases[0]));
    check_refused(&s, "lora_A.weight: not of the shape that fits the base");
    parity_close(&p);

    // One of ours says on what it was made.
    struct model m;
    struct error err = {0};
    parity_open(&p, "olmoe-gqa");
    s = low_rank_setup(&p, &low_rank_cases[0], low_rank_folder(&low_rank_cases[0]));
    parity_model(&m, &s);
    const char *dir = fresh_dir();
    check_ok(model_save_adapter(&m, dir, &err), &err);
    model_close(&m);
    parity_close(&p);
    parity_open(&p, "olmoe-many");
    s = low_rank_setup(&p, &on_many, dir);
    check_refused(&s, "made on another base");
    parity_close(&p);
}

// The run's dropout outlives a config that cannot hold it, and a lora adapter is none of dora's.
static void dropout_is_kept_beside_the_config(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct error err = {0};
    char path[2048];
    parity_open(&p, "olmoe-gqa");
    struct model_setup s = fresh_setup(&p, &parity_cases[0], "dora");
    parity_model(&m, &s);
    const char *dir = fresh_dir();
    check_ok(model_save_adapter(&m, dir, &err), &err);
    model_close(&m);
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    json_t *config = json_parse_file(path, 1 << 20, &err);
    assert_true(json_integer_value(json_object_get(config, "lora_dropout")) == 0);
    assert_int_equal(json_integer_value(json_object_get(config, "r")), 4);
    assert_int_equal(json_array_size(json_object_get(config, "target_modules")), 7);
    json_decref(config);
    s = low_rank_setup(&p, &low_rank_cases[0], dir);
    assert_string_equal(s.tuning->name, "dora");
    assert_true(fabs(s.tuning_options.lora_dropout - 0.1) < 1e-12);
    assert_true(fabs(s.tuning_options.lora_alpha - 8) < 1e-12);
    parity_close(&p);
}

// A copy of an adapter without its tensors of one name's end.
static const char *without(const char *dir, const char *end)
{
    const char *out = fresh_dir();
    struct safetensors st = {0};
    struct st_named named[512];
    struct error err = {0};
    struct file_map map;
    char from[2048], to[2048];
    int64_t n = 0;
    check_ok(dir_make(out, &err), &err);
    snprintf(from, sizeof from, "%s/adapter_model.safetensors", dir);
    snprintf(to, sizeof to, "%s/adapter_model.safetensors", out);
    check_ok(safetensors_open(&st, from, &err), &err);
    for (int64_t i = 0; i < st.count; i++) {
        if (strstr(st.entry[i].name, end)) continue;
        assert_true(n < 512);
        named[n++] = (struct st_named){st.entry[i].name, st.entry[i].tensor};
    }
    assert_true(n < st.count);
    check_ok(safetensors_write(to, named, n, NULL, &err), &err);
    safetensors_close(&st);
    snprintf(from, sizeof from, "%s/adapter_config.json", dir);
    snprintf(to, sizeof to, "%s/adapter_config.json", out);
    check_ok(file_map_open(&map, from, &err), &err);
    check_ok(file_write(to, map.data, map.size, &err), &err);
    file_map_close(&map);
    return out;
}

static void check_logits(const struct parity *p, const struct low_rank_case *c, const char *dir,
                         struct tensor want)
{
    const struct model_setup s = low_rank_setup(p, c, dir);
    const struct tensor got = logits_of(p, &s);
    assert_memory_equal(got.data, want.data, tensor_bytes(want));
    mem_free(got.data);
}

// Mixtral's routers have one name in transformers 4 and another in 5: a file has both, and either is read.
static void routers_go_by_both_names(void **state)
{
    (void)state;
    static const char *const layouts[] = {"v4", "v5"};
    for (int i = 0; i < 2; i++) {
        const struct parity_case c = {"mixtral", layouts[i]};
        const struct low_rank_case other = {"lora", "mixtral", layouts[1 - i], false};
        struct parity p;
        struct model m;
        struct error err = {0};
        parity_open(&p, "mixtral");
        struct model_setup s = fresh_setup(&p, &c, "lora");
        const struct tensor plain = logits_of(&p, &s);
        s.tuning_options.train = "*.mlp.gate.weight";
        parity_model(&m, &s);
        for (int64_t k = 0; k < m.weights.count; k++) {
            if (m.weights.weight[k].learns)
                data_f32(m.leaves.leaf[m.weights.weight[k].leaf].value)[3] += 1;
        }
        const char *dir = fresh_dir();
        check_ok(model_save_adapter(&m, dir, &err), &err);
        model_forward(&m, &p.batch[0], NULL, false);
        const struct tensor want = parity_logits(&m, &p.batch[0]);
        assert_true(relative_error(want, plain) > 1e-3);
        check_logits(&p, &other, dir, want);
        check_logits(&p, &other, without(dir, ".mlp.gate.weight"), want);
        check_logits(&p, &other, without(dir, ".block_sparse_moe.gate.weight"), want);
        mem_free(plain.data);
        mem_free(want.data);
        model_close(&m);
        parity_close(&p);
    }
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_models_compute_the_same),
        cmocka_unit_test(adapters_survive_being_written),
        cmocka_unit_test(fresh_adapters_change_nothing),
        cmocka_unit_test(first_values_follow_from_seed_and_module),
        cmocka_unit_test(routers_are_no_targets),
        cmocka_unit_test(options_that_do_not_fit_are_refused),
        cmocka_unit_test(configs_that_are_not_implemented_are_refused),
        cmocka_unit_test(configs_that_do_not_fit_their_tensors_are_refused),
        cmocka_unit_test(adapters_of_another_base_are_refused),
        cmocka_unit_test(dropout_is_kept_beside_the_config),
        cmocka_unit_test(routers_go_by_both_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
