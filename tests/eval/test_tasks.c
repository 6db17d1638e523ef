// test_tasks.c - prompts, extracted answers and verdicts of `math` and `choice`, and how multiple choice is read, against
// the published rules in Python (fixtures/make_tasks.py); and lines that lack what a task needs.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "eval/answers.h"
#include "eval/loglik.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT = 1 << 20, MOST = 64 };

// The lines of a JSONL file.
static int read_lines(json_t **out, const char *path)
{
    char *text;
    size_t size;
    int n = 0;
    struct error err = {0};
    check_ok(file_read(&text, &size, path, LIMIT, &err), &err);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(n < MOST);
        out[n] = json_parse(line, strlen(line), path, &err);
        check_ok(out[n++] != NULL, &err);
    }
    mem_free(text);
    return n;
}

static void drop_lines(json_t **line, int n)
{
    for (int i = 0; i < n; i++) {
        json_decref(line[i]);
    }
}

struct expectation {
    json_t *line[MOST];
    int n, at;
};

static bool compare(void *user, const struct judged *j, struct error *err)
{
    struct expectation *x = user;
    (void)err;
    assert_true(x->at < x->n);
    const json_t *want = x->line[x->at++], *prediction = json_object_get(want, "prediction");
    assert_string_equal(j->question->prompt, json_string_value(json_object_get(want, "prompt")));
    if (j->right != json_is_true(json_object_get(want, "correct"))) {
        fail_msg("line %d: '%.60s' is %s", x->at, j->output, j->right ? "right" : "wrong");
    }
    if (json_is_null(prediction)) {
        assert_true(!j->extracted.found || isinf(j->extracted.number));
    } else if (json_is_number(prediction)) {
        assert_true(j->extracted.found && j->extracted.number == json_number_value(prediction));
    } else {
        const char *text = json_string_value(prediction);
        assert_int_equal(j->extracted.size, strlen(text));
        assert_memory_equal(j->extracted.text, text, j->extracted.size);
    }
    return true;
}

static void check_task(const char *data, const char *outputs, const char *expected, unsigned kinds)
{
    struct expectation x = {0};
    struct questions q;
    struct answers_score score;
    struct error err = {0};
    const struct question_options o = {.files = &data, .n_files = 1, .kinds = kinds};
    const struct answers_options a = {.judged = compare, .user = &x};
    x.n = read_lines(x.line, expected);
    check_ok(questions_open(&q, &o, &err), &err);
    check_ok(answers_stored(&score, outputs, &q, &a, &err), &err);
    assert_int_equal(x.at, x.n);
    assert_int_equal(score.count, x.n);
    int right = 0, unparsed = 0;
    for (int i = 0; i < x.n; i++) {
        right += json_is_true(json_object_get(x.line[i], "correct"));
        unparsed += json_is_null(json_object_get(x.line[i], "prediction"));
    }
    assert_int_equal(score.right, right);
    assert_in_range(score.unparsed, 3, unparsed);
    questions_close(&q);
    drop_lines(x.line, x.n);
}

#define TASKS FIXTURES "/tasks/"
static const unsigned math_kinds = 1U << ANSWER_NUMBER | 1U << ANSWER_LETTER;
static const unsigned choice_kinds = ~(1U << ANSWER_NUMBER | 1U << ANSWER_TEXT);

static void answers_are_judged_by_the_published_rules(void **state)
{
    (void)state;
    check_task(TASKS "math.json", TASKS "math.out.jsonl", TASKS "math.expected.jsonl", math_kinds);
    check_task(TASKS "choice.jsonl", TASKS "choice.out.jsonl", TASKS "choice.expected.jsonl",
               choice_kinds);
}

static void check_item(const struct loglik_data *d, const struct loglik_item *x, const json_t *want)
{
    const json_t *choices = json_object_get(want, "choices"), *ids = json_object_get(want, "ids");
    const json_t *characters = json_object_get(want, "characters"),
                 *bytes = json_object_get(want, "bytes");
    assert_string_equal(x->context, json_string_value(json_object_get(want, "context")));
    assert_int_equal(x->n_choices, json_array_size(choices));
    assert_int_equal(x->gold, json_integer_value(json_object_get(want, "gold")));
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const struct loglik_choice *c = &x->choice[i];
        const json_t *id = json_array_get(ids, i);
        assert_string_equal(c->text, json_string_value(json_array_get(choices, i)));
        assert_int_equal(c->characters, json_integer_value(json_array_get(characters, i)));
        assert_int_equal(c->bytes, json_integer_value(json_array_get(bytes, i)));
        assert_int_equal(c->n, json_array_size(id));
        assert_int_equal(c->context, json_integer_value(json_object_get(want, "before")));
        for (int64_t t = 0; t < c->n; t++) {
            assert_int_equal(d->ids.id[c->first + t],
                             json_integer_value(json_array_get(id, (size_t)t)));
        }
    }
}

static void multiple_choice_is_read_as_the_harness_does(void **state)
{
    (void)state;
    json_t *want[MOST];
    struct error err = {0};
    struct loglik_data d;
    const char *const files[] = {TASKS "loglik.jsonl"};
    struct tokenizer *t = tokenizer_open(FIXTURES "/data", &err);
    check_ok(t != NULL, &err);
    struct loglik_options o = {
        .files = files, .n_files = 1, .tokenizer = t, .bos = -1, .max_positions = 1000};
    const int n = read_lines(want, TASKS "loglik.expected.jsonl");
    check_ok(loglik_open(&d, &o, &err), &err);
    assert_int_equal(d.count, n);
    for (int i = 0; i < n; i++) {
        check_item(&d, &d.item[i], want[i]);
    }
    loglik_close(&d);
    // The left of a context goes, never a choice: of item 0 choice 0 adds 4 tokens, choice 1 adds 5.
    o.limit = 1;
    o.max_positions = 5;
    check_ok(loglik_open(&d, &o, &err), &err);
    const json_t *ids = json_array_get(json_object_get(want[0], "ids"), 0);
    const struct loglik_choice *c = &d.item[0].choice[0];
    assert_int_equal(c[0].n, 6);
    assert_int_equal(c[0].context, 2);
    assert_int_equal(c[1].context, 1);
    assert_int_equal(d.ids.id[c->first],
                     json_integer_value(json_array_get(ids, json_array_size(ids) - 6)));
    assert_int_equal(d.longest, 5);
    loglik_close(&d);
    o.max_positions = 4;
    check_error(loglik_open(&d, &o, &err), &err, "loglik.jsonl:1: choice 1 has 5 tokens");
    tokenizer_close(t);
    drop_lines(want, n);
}

static const char *write_text(const char *name, const char *text)
{
    static char path[1024];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", test_dir(), name);
    check_ok(file_write(path, text, strlen(text), &err), &err);
    return path;
}

static void questions_that_lack_something_are_named(void **state)
{
    (void)state;
    static const struct {
        unsigned kinds;
        const char *text, *says;
    } bad[] = {
        {math_kinds, "{\"instruction\": \"a\"}\n", "q.jsonl:1: answer: found nothing, expected"},
        {math_kinds, "\n{\"answer\": \"1\"}\n", "q.jsonl:2: instruction: found nothing, expected"},
        {math_kinds, "{\"instruction\": \" \\n\", \"answer\": \"1\"}\n",
         "q.jsonl:1: instruction: found nothing"},
        {math_kinds, "{\"instruction\": \"a\", \"answer\": \"\"}\n",
         "q.jsonl:1: answer: found nothing"},
        {math_kinds, "{\"instruction\": 3, \"answer\": \"1\"}\n", "q.jsonl:1: "},
        {math_kinds, "{\"instruction\": \"a\", \"answer\": \"true\"}\n",
         "q.jsonl:1: answer: found 'true', expected a number"},
        {math_kinds, "{\"instruction\": \"a\", \"answer\": \"0x10\"}\n",
         "q.jsonl:1: answer: found '0x10'"},
        {math_kinds, "{\"instruction\": \"a\", \"answer\": \"nan\"}\n",
         "q.jsonl:1: answer: found 'nan'"},
        {choice_kinds, "{\"instruction\": \"a\", \"answer\": 4}\n",
         "q.jsonl:1: answer: found '4', expected true or false"},
        {choice_kinds, "{\"instruction\": \"a\", \"answer\": \"answer6\"}\n",
         "q.jsonl:1: answer: found 'answer6'"},
        {choice_kinds, "[3]", "q.jsonl:1: found '3', expected an object"},
        {choice_kinds, "3\n", "q.jsonl:1: "},
        {choice_kinds, "[]", "q.jsonl: no examples"},
    };
    struct error err = {0};
    struct questions q;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = write_text("q.jsonl", bad[i].text);
        const struct question_options o = {.files = &path, .n_files = 1, .kinds = bad[i].kinds};
        check_error(questions_open(&q, &o, &err), &err, bad[i].says);
        assert_null(strchr(err.msg, '\n'));
    }
    const char *path = write_text("q.jsonl", "{\"instruction\": \"a\"}\n"
                                             "{\"question\": \"b\", \"answer\": 1.5}\n");
    const struct question_options o = {
        .files = &path, .n_files = 1, .kinds = math_kinds, .skip_bad = true};
    check_ok(questions_open(&q, &o, &err), &err);
    assert_int_equal(q.count, 1);
    assert_int_equal(q.bad, 1);
    assert_int_equal(q.question[0].line, 2);
    questions_close(&q);
}

static void outputs_must_fit_the_questions(void **state)
{
    (void)state;
    struct error err = {0};
    struct questions q;
    struct answers_score s;
    const char *path = write_text("q.jsonl", "{\"instruction\": \"a\", \"answer\": \"A\"}\n"
                                             "{\"instruction\": \"b\", \"answer\": \"B\"}\n");
    const struct question_options o = {.files = &path, .n_files = 1, .kinds = choice_kinds};
    const struct answers_options a = {0};
    check_ok(questions_open(&q, &o, &err), &err);
    static const char one[] = "{\"output\": \"A\"}\n";
    check_error(answers_stored(&s, write_text("o.jsonl", one), &q, &a, &err), &err,
                "o.jsonl: 1 outputs, expected one for each of the 2");
    check_error(answers_stored(&s, write_text("o.jsonl", "{\"output\": 1}\n"), &q, &a, &err), &err,
                "o.jsonl:1: ");
    check_error(answers_stored(&s, write_text("o.jsonl", "{\"output\": \"\"}\n{\"text\": \"\"}\n"),
                               &q, &a, &err),
                &err, "o.jsonl:2: output: found nothing");
    check_error(answers_stored(&s,
                               write_text("o.jsonl", "[{\"output\": \"\"},{\"output\": \"\"},\n"
                                                     "{\"output\": \"\"}]"),
                               &q, &a, &err),
                &err, "o.jsonl:2: more outputs than the 2");
    // Of two keys the model's output, as in the released code's files; what can't be parsed is wrong.
    check_ok(answers_stored(&s,
                            write_text("o.jsonl", "{\"output\": \"A\", \"output_pred\": \"so A\"}\n"
                                                  "{\"output\": \"b\"}\n"),
                            &q, &a, &err),
             &err);
    assert_int_equal(s.right, 1);
    assert_int_equal(s.unparsed, 1);
    assert_int_equal(s.count, 2);
    questions_close(&q);
}

static void choices_that_lack_something_are_named(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"context\": \"\", \"choices\": [\"a\", \"b\"], \"gold\": 0}", "context: found nothing"},
        {"{\"context\": \"x\", \"choices\": [\"a\"], \"gold\": 0}", "choices: found 1, expected"},
        {"{\"context\": \"x\", \"gold\": 0}", "choices: found 0, expected"},
        {"{\"context\": \"x\", \"choices\": [\"a\", \"\"], \"gold\": 0}",
         "choices[1]: found nothing"},
        {"{\"context\": \"x\", \"choices\": [\"a\", 3], \"gold\": 0}", "choices[1]: found no text"},
        {"{\"context\": \"x\", \"choices\": [\"a\", \"b\"]}", "gold: found nothing"},
        {"{\"context\": \"x\", \"choices\": [\"a\", \"b\"], \"gold\": 2}", "index, 0 to 1"},
        {"{\"context\": \"x\", \"choices\": [\"a\", \"b\"], \"gold\": \"-1\"}", "gold: found -1"},
        {"{\"question\": \"x\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\", "
         "\"B\"]}, "
         "\"answerKey\": \"C\"}",
         "answerKey: found 'C'"},
        {"{\"endings\": [\"a\", \"b\"], \"label\": \"0\"}", "activity_label: found nothing"},
        {"{\"activity_label\": \"x\", \"ctx_a\": \"y\", \"ctx_b\": \"\", \"label\": \"0\", "
         "\"endings\": [\"a\", \"[b]\"]}",
         "endings[1]: found nothing"},
        {"{\"prompt\": \"x\"}", "expected context, choices and gold"},
        {"[]", "expected"},
    };
    struct error err = {0};
    struct loglik_data d;
    struct tokenizer *t = tokenizer_open(FIXTURES "/data", &err);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        snprintf(text, sizeof text, "\n%s\n", bad[i][0]);
        const char *path = write_text("c.jsonl", text);
        const struct loglik_options o = {
            .files = &path, .n_files = 1, .tokenizer = t, .bos = -1, .max_positions = 100};
        check_error(loglik_open(&d, &o, &err), &err, bad[i][1]);
        check_error(false, &err, i + 1 < sizeof bad / sizeof *bad ? "c.jsonl:2: " : "c.jsonl");
    }
    tokenizer_close(t);
}

static void errors_are_those_of_a_share(void **state)
{
    (void)state;
    // Of 1, 1, 0, 1: the sample's standard deviation is 0.5, over the root of 4.
    assert_true(fabs(standard_error(0.75, 4) - 0.25) < 1e-12);
    assert_true(fabs(standard_error(1, 9)) < 1e-12);
    assert_true(fabs(standard_error(0, 1)) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_judged_by_the_published_rules),
        cmocka_unit_test(multiple_choice_is_read_as_the_harness_does),
        cmocka_unit_test(questions_that_lack_something_are_named),
        cmocka_unit_test(outputs_must_fit_the_questions),
        cmocka_unit_test(choices_that_lack_something_are_named),
        cmocka_unit_test(errors_are_those_of_a_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
