// test_export_state.c - an export of a routing with a state carries it, says so and is run by it; an export of
// another routing is plain again.
#include "stateful.h"

#include "model/remote.h"

static const char *const classes[] = {"MoetuneOlmoeForCausalLM", "MoetuneQwen2MoeForCausalLM",
                                      "MoetuneQwen2MoeForCausalLM"};

static void check_description(const char *dir, const char *want)
{
    struct error err;
    char *text = text_of(dir, "routing.json");
    json_t *got = json_parse(text, strlen(text), "routing.json", &err);
    json_t *expected = json_parse(want, strlen(want), "want", &err);
    assert_true(got && expected && json_equal(got, expected));
    json_decref(got);
    json_decref(expected);
    mem_free(text);
}

// config.json has the entry, last, and everything else as it was, in its order.
static void check_config(const char *dir, const char *base, const char *class_name)
{
    struct error err;
    char *text = text_of(dir, "config.json"), *before = text_of(base, "config.json");
    json_t *got = json_parse(text, strlen(text), "config.json", &err);
    json_t *was = json_parse(before, strlen(before), "config.json", &err);
    check_ok(got && was, &err);
    char want[128];
    snprintf(want, sizeof want, "modeling_moetune.%s", class_name);
    const json_t *map = json_object_get(got, "auto_map");
    assert_string_equal(json_string_value(json_object_get(map, "AutoModelForCausalLM")), want);
    assert_int_equal(json_object_size(map), 1);
    void *x = json_object_iter(got), *y = json_object_iter(was);
    for (; y; x = json_object_iter_next(got, x), y = json_object_iter_next(was, y)) {
        assert_string_equal(json_object_iter_key(x), json_object_iter_key(y));
        assert_true(json_equal(json_object_iter_value(x), json_object_iter_value(y)));
    }
    assert_string_equal(json_object_iter_key(x), "auto_map");
    json_decref(got);
    json_decref(was);
    mem_free(text);
    mem_free(before);
}

static void check_readme(const char *dir, const struct model *m)
{
    char *text = text_of(dir, "README.md");
    const char *const words[] = {"Not a plain checkpoint",
                                 m->config.architecture,
                                 m->setup.routing->name,
                                 "without `trust_remote_code`",
                                 "trust_remote_code=True",
                                 "modeling_moetune.py",
                                 "moetune eval"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!strstr(text, words[i])) fail_msg("README.md does not say '%s'", words[i]);
    }
    mem_free(text);
}

// An export says what it is and runs as it was trained, without a word; training goes on from its state.
static void an_export_carries_its_state(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS * VARIANTS; i++) {
        struct parity p;
        struct model m, again;
        struct error err;
        const struct variant *v = &variants[i / MODELS];
        parity_open(&p, models[i % MODELS]);
        model_with_state(&m, &p, NULL, v);
        const char *out = folder("out");
        listen();
        check_ok(model_export(&m, out, &err), &err);
        assert_int_equal(warnings, 1);
        assert_non_null(strstr(warned, "not part of the architecture"));
        check_description(out, v->described);
        check_config(out, m.setup.dir, classes[i % MODELS]);
        check_readme(out, &m);
        char *code = text_of(out, remote_file);
        assert_int_equal(strlen(code), remote_code_size);
        assert_memory_equal(code, remote_code, remote_code_size);
        assert_non_null(strstr(code, classes[i % MODELS]));
        mem_free(code);
        assert_int_equal(file_exists(in(out, "condenser_gates.safetensors")),
                         v->gate == CONDENSER_SIGMOID);
        for (int learns = 0; learns < 2; learns++) {
            const struct model_setup s = setup_of(&p, out, v, learns);
            listen();
            parity_model(&again, &s);
            assert_int_equal(
                again.setup.routing->phases ? s.routing->phases(&again.setup.routing_options) : 1,
                1);
            check_ok(!learns || model_begin_phase(&again, 0, &err), &err);
            assert_int_equal(warnings, 0);
            check_same_logits(&m, &again, &p);
            model_close(&again);
        }
        log_set_sink(NULL, NULL);
        model_close(&m);
        parity_close(&p);
    }
}

static const char card[] = "---\nlicense: mit\n---\n# A card\n\nWords.\n";

// From a base with a model card: the section stands once, after the front matter; an export of topk from there
// has the base's bytes again.
static void a_plain_export_is_plain_again(void **state)
{
    (void)state;
    static const struct variant topk = {.routing = "topk"};
    for (int with_card = 0; with_card < 2; with_card++) {
        struct parity p;
        struct model m;
        struct error err;
        char base[1024], one[1024], two[1024], three[1024];
        parity_open(&p, models[0]);
        snprintf(base, sizeof base, "%s", copy_of_fixture(&p, "base"));
        snprintf(one, sizeof one, "%s", folder("one"));
        snprintf(two, sizeof two, "%s", folder("two"));
        snprintf(three, sizeof three, "%s", folder("three"));
        if (with_card) put(base, "README.md", card);
        model_with_state(&m, &p, base, &variants[3]);
        check_ok(model_export(&m, one, &err), &err);
        model_close(&m);
        model_with_state(&m, &p, one, &variants[3]);
        check_ok(model_export(&m, two, &err), &err);
        model_close(&m);
        check_same_text(one, two, "README.md");
        check_same_text(one, two, "config.json");
        if (with_card) {
            char *text = text_of(one, "README.md");
            assert_memory_equal(text, card, strlen("---\nlicense: mit\n---\n"));
            assert_memory_equal(text + strlen("---\nlicense: mit\n---\n"), "<!-- moetune: begin",
                                19);
            assert_string_equal(text + strlen(text) - strlen("# A card\n\nWords.\n"),
                                "# A card\n\nWords.\n");
            mem_free(text);
        }
        const struct model_setup s = setup_of(&p, two, &topk, true);
        listen();
        parity_model(&m, &s);
        assert_int_equal(warnings, 1);
        assert_non_null(strstr(warned, "was trained with another routing, and runs with topk"));
        check_ok(model_export(&m, three, &err), &err);
        assert_int_equal(warnings, 1);
        log_set_sink(NULL, NULL);
        model_close(&m);
        struct dir_names n, was;
        check_ok(dir_list(&n, three, &err) && dir_list(&was, base, &err), &err);
        assert_int_equal(n.count, was.count);
        for (int64_t i = 0; i < n.count; i++) {
            assert_string_equal(n.name[i], was.name[i]);
            if (!strstr(n.name[i], ".safetensors")) check_same_text(three, base, n.name[i]);
        }
        dir_names_free(&n);
        dir_names_free(&was);
        parity_close(&p);
    }
}

static void no_code_for_other_families(void **state)
{
    (void)state;
    struct error err;
    struct buf text = {0};
    static struct model m;
    snprintf(m.config.architecture, sizeof m.config.architecture, "Another");
    m.setup.routing = routing_find("bias", &err);
    assert_null(family_remote_class("Another"));
    check_ok(remote_readme(&text, NULL, &m, false, &err), &err);
    assert_non_null(strstr(text.data, "no code for transformers for Another"));
    assert_null(strstr(text.data, "trust_remote_code=True"));
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_carries_its_state),
        cmocka_unit_test(a_plain_export_is_plain_again),
        cmocka_unit_test(no_code_for_other_families),
    };
    snprintf(root, sizeof root, "%s", test_dir());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
