// tests/io/test_dataset.c - data files against the ids and masks that make_data.py works out of the
// whole rendered texts (fixtures/data/expected.json).
#include "data_fixtures.h"

static struct tokenizer *tokenizer; // the fixtures'; opened once, as it does not change

static int open_tokenizer(void **state)
{
    (void)state;
    tokenizer = small_tokenizer();
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static void check_example(const struct dataset *d, int64_t i, const json_t *want)
{
    const struct example *e = &d->example[i];
    const json_t *ids = json_object_get(want, "ids"), *learn = json_object_get(want, "learn");
    int64_t supervised = 0;
    assert_int_equal(e->count, json_array_size(ids));
    for (int64_t k = 0; k < e->count; k++) {
        const size_t at = (size_t)k;
        assert_int_equal(d->id[e->first + k], json_integer_value(json_array_get(ids, at)));
        assert_int_equal(d->learn[e->first + k], json_integer_value(json_array_get(learn, at)));
        supervised += d->learn[e->first + k];
    }
    assert_int_equal(e->supervised, supervised);
    assert_int_equal(e->prompt_count, json_integer_value(json_object_get(want, "prompt_count")));
}

static enum loss_on loss_of(const json_t *c)
{
    const char *name = text_of(c, "loss");
    return !strcmp(name, "all")    ? LOSS_ON_ALL
           : !strcmp(name, "last") ? LOSS_ON_LAST
                                   : LOSS_ON_ASSISTANT;
}

static void formats_give_the_ids_of_the_whole_text(void **state)
{
    (void)state;
    static const char *const files[] = {DATA "/mixed.jsonl", DATA "/mixed.json"};
    json_t *cases = expected_values("encoded");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *want = json_object_get(c, "examples");
        struct dataset_options o = small_options(files, text_of(c, "template"));
        o.n_files = 2;
        o.loss_on = loss_of(c);
        o.special.deepseek_marks = json_is_true(json_object_get(c, "marks"));
        struct dataset d;
        struct error err = {0};
        check_ok(dataset_open(&d, &o, tokenizer, &err), &err);
        const int64_t n = (int64_t)json_array_size(want);
        assert_int_equal(d.count, 2 * n);
        for (int64_t k = 0; k < d.count; k++) {
            check_example(&d, k, json_array_get(want, (size_t)(k % n)));
        }
        dataset_close(&d);
    }
    json_decref(cases);
}

static void an_example_knows_its_line(void **state)
{
    (void)state;
    static const char *const files[] = {DATA "/mixed.jsonl", DATA "/mixed.json"};
    struct dataset_options o = small_options(files, "chatml");
    struct dataset d;
    struct error err = {0};
    o.n_files = 2;
    check_ok(dataset_open(&d, &o, tokenizer, &err), &err);
    assert_int_equal(d.example[0].line, 1);
    assert_int_equal(d.example[2].line, 4); // an empty line before it
    assert_string_equal(d.example[2].file, files[0]);
    assert_int_equal(d.example[6].line, 2);  // the array's first element, behind the bracket's line
    assert_int_equal(d.example[7].line, 27); // its lines are counted, not its elements
    assert_string_equal(d.example[6].file, files[1]);
    dataset_close(&d);
}

// Opens one file of this text; the caller closes.
static struct dataset open_text(const char *text, const char *template,
                                void (*change)(struct dataset_options *))
{
    const char *file = file_of(text);
    struct dataset_options o = small_options(&file, template);
    struct dataset d;
    struct error err = {0};
    if (change) change(&o);
    check_ok(dataset_open(&d, &o, tokenizer, &err), &err);
    return d;
}

static void check_decoded(const struct dataset *d, int64_t i, const char *want)
{
    struct buf text = {0};
    struct error err = {0};
    const struct example *e = &d->example[i];
    check_ok(tokenizer_decode(tokenizer, d->id + e->first, e->count, false, &text, &err), &err);
    assert_string_equal(text.data, want);
    buf_free(&text);
}

static void set_bos(struct dataset_options *o)
{
    o->special.add_bos = true;
}

static void set_special_text(struct dataset_options *o)
{
    o->special_text = true;
}

static void text_learns_whole(void **state)
{
    (void)state;
    static const char text[] = "{\"text\":\"one <|im_end|>\"}";
    struct dataset d = open_text(text, "plain", set_bos);
    check_decoded(&d, 0, "<bos>one <|im_end|><|endoftext|>");
    assert_int_equal(d.supervised, d.n_tokens - 1);
    assert_int_equal(d.learn[0], 0);
    const int64_t as_words = d.n_tokens;
    dataset_close(&d);
    d = open_text(text, "plain", set_special_text);
    assert_true(d.n_tokens < as_words - 1);
    assert_int_equal(d.id[d.n_tokens - 2], tokenizer_id(tokenizer, "<|im_end|>"));
    dataset_close(&d);
}

static void prompts_stand_as_they_are_in_plain(void **state)
{
    (void)state;
    struct dataset d = open_text("{\"prompt\":\"2+2=\",\"completion\":\"4\"}\n"
                                 "{\"question\":\"2+2?\",\"answer\":\"4\"}\n"
                                 "{\"instruction\":\"Add\",\"input\":\"2, 2\",\"output\":\"4\"}\n"
                                 "{\"instruction\":\"Add\",\"input\":null,\"output\":\"4\"}",
                                 "plain", NULL);
    check_decoded(&d, 0, "2+2=4<|endoftext|>");
    check_decoded(&d, 1, "2+2?\n4<|endoftext|>");
    check_decoded(&d, 2, "Add\n2, 2\n4<|endoftext|>");
    check_decoded(&d, 3, "Add\n4<|endoftext|>");
    assert_int_equal(d.supervised, 8);
    dataset_close(&d);
}

static void labels_say_what_learns(void **state)
{
    (void)state;
    const char *file =
        file_of("{\"input_ids\":[5,6,7,8],\"labels\":[5,-100,7,8]}\n"
                "{\"input_ids\":[9,5],\"labels\":[-100,5],\"attention_mask\":[1,1]}");
    const struct dataset_options o = {.files = &file, .n_files = 1};
    struct dataset d;
    struct error err = {0};
    check_ok(dataset_open(&d, &o, NULL, &err), &err); // no tokenizer is needed
    static const int32_t id[] = {5, 6, 7, 8, 9, 5};
    static const uint8_t learn[] = {0, 0, 1, 1, 0, 1};
    assert_int_equal(d.n_tokens, 6);
    assert_memory_equal(d.id, id, sizeof id);
    assert_memory_equal(d.learn, learn, sizeof learn);
    assert_int_equal(d.supervised, 3);
    dataset_close(&d);
}

// "ab" and so on are one token a letter in this tokenizer, and eos is one more.
static const char lengths[] = "\xEF\xBB\xBF{\"prompt\":\"q\",\"completion\":\"xyz\"}\r\n"
                              "{\"prompt\":\"qqqq\",\"completion\":\"xyz\"}\n"
                              "{\"prompt\":\"qqqqqqqqq\",\"completion\":\"x\"}\n";

static void set_drop(struct dataset_options *o)
{
    o->max_length = 5;
}

static void set_cut_left(struct dataset_options *o)
{
    o->max_length = 5;
    o->too_long = TOO_LONG_CUT_LEFT;
}

static void set_cut_right(struct dataset_options *o)
{
    o->max_length = 5;
    o->too_long = TOO_LONG_CUT_RIGHT;
}

static void what_is_too_long_is_counted(void **state)
{
    (void)state;
    struct dataset d = open_text(lengths, "plain", NULL);
    assert_int_equal(d.count, 3);
    dataset_close(&d);

    d = open_text(lengths, "plain", set_drop);
    assert_int_equal(d.count, 1);
    assert_int_equal(d.dropped, 2);
    assert_int_equal(d.cut, 0);
    dataset_close(&d);

    d = open_text(lengths, "plain", set_cut_left);
    assert_int_equal(d.count, 3);
    assert_int_equal(d.cut, 2);
    check_decoded(&d, 1, "qxyz<|endoftext|>");
    assert_int_equal(d.example[1].supervised, 4);
    assert_int_equal(d.example[1].prompt_count, 1);
    assert_int_equal(d.example[2].prompt_count, 3);
    dataset_close(&d);

    d = open_text(lengths, "plain", set_cut_right);
    assert_int_equal(d.count, 2); // the third has lost its answer
    assert_int_equal(d.cut, 2);
    assert_int_equal(d.unsupervised, 1);
    check_decoded(&d, 1, "qqqqx");
    assert_int_equal(d.supervised, 5);
    dataset_close(&d);

    const char *file = file_of(lengths);
    struct dataset_options o = small_options(&file, "plain");
    struct error err = {0};
    o.max_length = 5, o.too_long = TOO_LONG_REFUSE, o.skip_bad = true;
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, ":2: 8 tokens, expected at most 5");
}

static void set_limit(struct dataset_options *o)
{
    o->limit = 2;
    o->keep_prompts = true;
}

static void set_cut_prompts(struct dataset_options *o)
{
    set_cut_left(o);
    o->keep_prompts = true;
}

static void limits_and_prompts(void **state)
{
    (void)state;
    struct dataset d = open_text(lengths, "deepseek", set_limit);
    assert_int_equal(d.count, 2);
    assert_string_equal(d.example[1].prompt, "<bos>User: qqqq\n\nAssistant:");
    assert_string_equal(d.example[1].answer, "xyz");
    dataset_close(&d);

    d = open_text("{\"prompt\":\"q\",\"completion\":\"abcdefgh\"}\n" // its prompt would be cut away
                  "{\"prompt\":\"qqqq\",\"completion\":\"xyz\"}",
                  "plain", set_cut_prompts);
    assert_int_equal(d.count, 1);
    assert_int_equal(d.dropped, 1);
    assert_int_equal(d.cut, 1);
    dataset_close(&d);
}

static const char *many_examples(int64_t n)
{
    struct buf text = {0};
    for (int64_t i = 0; i < n; i++) {
        assert_true(buf_printf(&text, "{\"prompt\":\"%d\",\"completion\":\"xy\"}\n", (int)i));
    }
    const char *file = file_of(text.data);
    buf_free(&text);
    return file;
}

static void a_split_takes_its_share(void **state)
{
    (void)state;
    const char *file = many_examples(500);
    const struct dataset_options o = small_options(&file, "plain");
    struct dataset d, held, again, held_again;
    struct error err = {0};
    check_ok(dataset_open(&d, &o, tokenizer, &err), &err);
    check_ok(dataset_open(&again, &o, tokenizer, &err), &err);
    const int64_t tokens = d.n_tokens, supervised = d.supervised;
    check_ok(dataset_split(&d, &held, 0.1, 7, &err), &err);
    check_ok(dataset_split(&again, &held_again, 0.1, 7, &err), &err);
    assert_int_equal(d.count + held.count, 500);
    assert_in_range(held.count, 30, 70);
    assert_int_equal(d.n_tokens + held.n_tokens, tokens);
    assert_int_equal(d.supervised + held.supervised, supervised);
    assert_int_equal(held.n_tokens, held_again.n_tokens);
    assert_memory_equal(held.id, held_again.id, (size_t)held.n_tokens * sizeof *held.id);
    dataset_close(&again); // held_out owns what it points to
    dataset_close(&d);
    for (int64_t i = 0; i < held.count; i++) {
        char want[64];
        snprintf(want, sizeof want, "%dxy<|endoftext|>", (int)held.example[i].line - 1);
        check_decoded(&held, i, want);
        assert_string_equal(held.example[i].file, file);
    }
    dataset_close(&held), dataset_close(&held_again);
}

static void a_split_leaves_both_sides_something(void **state)
{
    (void)state;
    const char *file = many_examples(3);
    const struct dataset_options o = small_options(&file, "plain");
    for (int k = 0; k < 2; k++) {
        struct dataset d, held;
        struct error err = {0};
        check_ok(dataset_open(&d, &o, tokenizer, &err), &err);
        check_ok(dataset_split(&d, &held, k ? 0.999999 : 1e-9, 1, &err), &err);
        assert_int_equal(held.count, k ? 2 : 1);
        assert_int_equal(d.count, k ? 1 : 2);
        dataset_close(&held);
        check_error(dataset_split(&d, &held, 1, 1, &err), &err, "fraction");
        dataset_close(&d);
    }
}

static void figures_are_right(void **state)
{
    (void)state;
    struct dataset d = open_text(lengths, "plain", NULL);
    struct dataset_stats s;
    struct error err = {0};
    check_ok(dataset_stats(&s, &d, &err), &err);
    assert_int_equal(s.examples, 3);
    assert_int_equal(s.shortest, 5);
    assert_int_equal(s.median, 8);
    assert_int_equal(s.longest, 11);
    assert_int_equal(s.tokens, 24);
    assert_int_equal(s.supervised, 10);
    assert_true(s.supervised_share > 0.416 && s.supervised_share < 0.417);
    dataset_close(&d);
}

static int64_t weighted_sum(const struct dataset *d, bool learn)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < d->n_tokens; i++) {
        sum += (i % 65521 + 1) * (learn ? d->learn[i] : d->id[i]);
    }
    return sum;
}

// Real files under real tokenizers, where they lie beside the checkout.
static void real_files_give_the_ids_of_tokenizers(void **state)
{
    (void)state;
    if (!file_exists(SHARED_DATA "/data/gsm8k/test.jsonl")) skip();
    json_t *cases = expected_values("shared");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        char dir[1024], path[1024];
        snprintf(dir, sizeof dir, "%s/tokenizers/%s", SHARED_DATA, text_of(c, "tokenizer"));
        snprintf(path, sizeof path, "%s/data/%s", SHARED_DATA, text_of(c, "file"));
        const char *file = path;
        struct error err = {0};
        struct tokenizer *t = tokenizer_open(dir, &err);
        check_ok(t != NULL, &err);
        struct dataset_options o = small_options(&file, text_of(c, "template"));
        check_ok(special_tokens_read(&o.special, dir, t, &err), &err);
        snprintf(o.special.bos, sizeof o.special.bos, "%s", text_of(c, "bos"));
        snprintf(o.special.eos, sizeof o.special.eos, "%s", text_of(c, "eos"));
        struct dataset d;
        check_ok(dataset_open(&d, &o, t, &err), &err);
        assert_int_equal(d.count, json_integer_value(json_object_get(c, "examples")));
        assert_int_equal(d.n_tokens, json_integer_value(json_object_get(c, "tokens")));
        assert_int_equal(d.supervised, json_integer_value(json_object_get(c, "supervised")));
        assert_int_equal(weighted_sum(&d, false),
                         json_integer_value(json_object_get(c, "ids_sum")));
        assert_int_equal(weighted_sum(&d, true),
                         json_integer_value(json_object_get(c, "learn_sum")));
        dataset_close(&d);
        tokenizer_close(t);
    }
    json_decref(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_give_the_ids_of_the_whole_text),
        cmocka_unit_test(an_example_knows_its_line),
        cmocka_unit_test(text_learns_whole),
        cmocka_unit_test(prompts_stand_as_they_are_in_plain),
        cmocka_unit_test(labels_say_what_learns),
        cmocka_unit_test(what_is_too_long_is_counted),
        cmocka_unit_test(limits_and_prompts),
        cmocka_unit_test(a_split_takes_its_share),
        cmocka_unit_test(a_split_leaves_both_sides_something),
        cmocka_unit_test(figures_are_right),
        cmocka_unit_test(real_files_give_the_ids_of_tokenizers),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
