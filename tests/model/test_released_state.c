// test_released_state.c - a state that the released code left in a model's folder, in files or among the
// tensors: taken over where it fits the model, refused where it does not.
#include "stateful.h"

// The fixture with the released code's tensors, over two shards or in one file.
static const char *base_with_tensors(const struct parity *p, const struct model_config *c,
                                     bool shards)
{
    struct error err;
    struct checkpoint from;
    const struct model_setup s = setup_of(p, NULL, &variants[0], true);
    const char *to = folder("released");
    static float bias[16][64];
    static int64_t experts[16][2];
    static char names[32][64];
    int64_t n = 0, half = 0;
    check_ok(checkpoint_open(&from, s.dir, &err), &err);
    struct st_named *t = mem_zalloc((size_t)(checkpoint_tensors(&from) + 32), sizeof *t);
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        for (int64_t e = 0; e < c->n_experts; e++) {
            bias[l][e] = (float)some_bias(l, e);
        }
        experts[l][0] = c->n_experts - 1;
        experts[l][1] = l % 2;
        snprintf(names[n], sizeof names[n], "model.layers.%d.mlp.bias", (int)l);
        t[n] = (struct st_named){names[n], tensor_1d(bias[l], DTYPE_F32, c->n_experts)};
        n++;
        snprintf(names[n], sizeof names[n], "model.layers.%d.mlp.forced_expert_indices", (int)l);
        t[n] = (struct st_named){names[n], tensor_1d(experts[l], DTYPE_I64, 2)};
        n++;
    }
    half = n + 3;
    for (int64_t i = 0; i < checkpoint_tensors(&from); i++) {
        const struct st_entry *e = checkpoint_at(&from, i);
        t[n++] = (struct st_named){e->name, e->tensor};
    }
    copy_file(to, s.dir, "config.json");
    const char *first = shards ? "model-00001-of-00002.safetensors" : "model.safetensors";
    const char *second = "model-00002-of-00002.safetensors";
    check_ok(safetensors_write(in(to, first), t, shards ? half : n, "{\"format\":\"pt\"}", &err),
             &err);
    if (shards) {
        struct buf index = {0};
        check_ok(safetensors_write(in(to, second), t + half, n - half, NULL, &err), &err);
        buf_puts(&index, "{\"metadata\": {\"total_size\": 1000000}, \"weight_map\": {");
        for (int64_t i = 0; i < n; i++) {
            buf_printf(&index, "%s\"%s\": \"%s\"", i ? ", " : "", t[i].name,
                       i < half ? first : second);
        }
        buf_puts(&index, "}}");
        put(to, "model.safetensors.index.json", index.data);
        buf_free(&index);
    }
    mem_free(t);
    checkpoint_close(&from);
    return to;
}

static void open_released(struct model *m, const struct parity *p, const char *dir,
                          const struct variant *v, bool learns)
{
    const struct model_setup s = setup_of(p, dir, v, learns);
    parity_model(m, &s);
}

static void check_no_state_tensors(const char *dir, const struct model_config *c)
{
    struct error err;
    struct checkpoint out;
    check_ok(checkpoint_open(&out, dir, &err), &err); // the index fits the shards
    for (int64_t i = 0; i < checkpoint_tensors(&out); i++) {
        assert_false(routing_source_owns_tensor(checkpoint_at(&out, i)->name, c));
    }
    checkpoint_close(&out);
}

// Tensors among the weights are the state, and an export has it in files instead.
static void tensors_are_taken_over(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS * 2; i++) {
        struct parity p;
        struct model by_tensors, by_files, again;
        struct error err;
        const bool shards = i % 2;
        parity_open(&p, models[i / 2]);
        const struct model_config c = config_of(&p);
        char base[1024], out[1024];
        snprintf(base, sizeof base, "%s", base_with_tensors(&p, &c, shards));
        snprintf(out, sizeof out, "%s", folder("out"));
        // the bias alone
        open_released(&by_tensors, &p, base, &variants[1], false);
        model_with_state(&by_files, &p, NULL, &variants[1]);
        check_same_logits(&by_tensors, &by_files, &p);
        model_close(&by_tensors);
        model_close(&by_files);
        // with condensers
        open_released(&by_tensors, &p, base, &variants[3], true);
        check_ok(model_begin_last_phase(&by_tensors, &err), &err);
        check_ok(model_export(&by_tensors, out, &err), &err);
        check_no_state_tensors(out, &c);
        if (shards) {
            char *index = text_of(out, "model.safetensors.index.json");
            assert_null(strstr(index, "mlp.bias"));
            assert_null(strstr(index, "1000000"));
            mem_free(index);
        }
        open_released(&again, &p, out, &variants[3], false);
        check_same_logits(&by_tensors, &again, &p);
        const struct tensor experts = model_route(&by_tensors, c.n_layers - 1).expert;
        assert_int_equal(experts.dim[1], c.experts_per_tok + 2);
        assert_int_equal(data_i32(experts)[c.experts_per_tok + 1], c.n_experts - 1);
        model_close(&again);
        model_close(&by_tensors);
        parity_close(&p);
    }
}

// A base that a stage of the run wrote has the weights alone; the state is still the first folder's.
static void the_state_may_lie_in_another_folder(void **state)
{
    (void)state;
    struct parity p;
    struct model m, apart;
    parity_open(&p, models[0]);
    const struct model_config c = config_of(&p);
    const char *base = base_with_tensors(&p, &c, false);
    open_released(&m, &p, base, &variants[3], false);
    struct model_setup s = setup_of(&p, NULL, &variants[3], false);
    s.state_dir = base;
    parity_model(&apart, &s);
    check_same_logits(&m, &apart, &p);
    assert_int_equal(model_route(&apart, 0).expert.dim[1], c.experts_per_tok + 2);
    model_close(&apart);
    model_close(&m);
    parity_close(&p);
}

static void files_beat_tensors(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    parity_open(&p, models[0]);
    const struct model_config c = config_of(&p);
    const char *base = base_with_tensors(&p, &c, false);
    struct buf records = {0};
    for (int64_t l = 0; l < c.n_layers; l++) {
        buf_printf(&records, "%s\"model.layers.%d.mlp.gate\": [2, 0, 1]", l ? ", " : "{", (int)l);
    }
    buf_puts(&records, "}");
    put(base, "forced_experts.json", records.data);
    buf_free(&records);
    open_released(&m, &p, base, &variants[3], false);
    mem_free(logits_of(&m, &p).data);
    const struct tensor experts = model_route(&m, 0).expert;
    assert_int_equal(experts.dim[1], c.experts_per_tok + 3); // as many as the file names
    for (int r = 0; r < 3; r++) {
        assert_int_equal(data_i32(experts)[c.experts_per_tok + r], r);
    }
    model_close(&m);
    static const struct variant topk = {.routing = "topk"};
    listen();
    open_released(&m, &p, base, &topk, false);
    assert_int_equal(warnings, 1);
    log_set_sink(NULL, NULL);
    model_close(&m);
    parity_close(&p);
}

// Without condensers the choice is made from the bias, at evaluation too; without a bias it is refused.
static void condensers_are_chosen_where_none_are_named(void **state)
{
    (void)state;
    struct parity p;
    struct model m, again;
    struct error err;
    parity_open(&p, models[0]);
    model_with_state(&m, &p, NULL, &variants[1]);
    const char *out = folder("out");
    check_ok(model_export(&m, out, &err), &err);
    model_close(&m);
    model_with_state(&m, &p, NULL, &variants[3]);
    open_released(&again, &p, out, &variants[3], false);
    check_same_logits(&m, &again, &p);
    model_close(&again);
    model_close(&m);
    const struct model_setup s = setup_of(&p, NULL, &variants[3], false);
    check_ok(model_open(&m, &s, &err), &err);
    check_error(model_allocate(&m, &err), &err, "bias is zero everywhere");
    model_close(&m);
    parity_close(&p);
}

static void a_state_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const struct variant paper = {"condenser", 0, CONDENSER_PAPER, CONDENSER_ROUTER, NULL};
    struct parity p;
    struct model m;
    struct error err;
    parity_open(&p, models[0]);
    const char *base = copy_of_fixture(&p, "base");
    const struct model_setup s = setup_of(&p, base, &paper, false);
    put(base, "forced_experts.json",
        "{\"model.layers.0.mlp\": [0, 1, 2, 3], \"model.layers.1.mlp\": [1]}");
    check_error(model_open(&m, &s, &err), &err,
                "forced_experts.json: 4 in layer 0, but a token runs 3 experts");
    put(base, "forced_experts.json", "{\"model.layers.0.mlp\": [0]}");
    check_error(model_open(&m, &s, &err), &err, "forced_experts.json: layer 1 is missing");
    put(base, "forced_experts.json", "{\"model.layers.0.mlp\": [0], \"model.layers.1.mlp\": [1]}");
    put(base, "moe_bias_states.json", "{\"moe_bias_states\": {\"model.layers.0.mlp\": {}}}");
    check_error(model_open(&m, &s, &err), &err, "moe_bias_states.json: layer 0: bias_values");
    parity_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_taken_over),
        cmocka_unit_test(the_state_may_lie_in_another_folder),
        cmocka_unit_test(files_beat_tensors),
        cmocka_unit_test(condensers_are_chosen_where_none_are_named),
        cmocka_unit_test(a_state_that_does_not_fit_is_refused),
    };
    snprintf(root, sizeof root, "%s", test_dir());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
