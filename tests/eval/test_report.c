// tests/eval/test_report.c - the page of made-up runs: whole and escaped whatever the files hold, of bounded size,
// and true in the numbers that can be said by hand.
#include "html_check.h"

#include "base/file.h"
#include "base/mem.h"
#include "eval/report.h"

#include <math.h>
#include <stdlib.h>

enum { PATH = 2048 };
static const char evil[] = "</pre><script>alert(1)</script>\" onload=\"x' & \\u0007 http-less";

static const char *file_in(const char *dir, const char *name)
{
    static char path[PATH];
    const size_t n = strlen(dir);
    assert_true(n + strlen(name) + 2 < PATH);
    memcpy(path, dir, n);
    snprintf(path + n, PATH - n, "/%s", name);
    return path;
}

static void put(const char *dir, const char *name, const char *text)
{
    struct error err = {0};
    check_ok(file_write(file_in(dir, name), text, strlen(text), &err), &err);
}

static const char *new_run(const char *name)
{
    struct error err = {0};
    static char dir[PATH]; // of the newest run
    snprintf(dir, sizeof dir, "%s", file_in(test_dir(), name));
    check_ok(dir_make(dir, &err), &err);
    return dir;
}

// Lines of steps [first, last]; layers 0: a model without experts.
static void add_steps(struct buf *b, int first, int last, int layers, int experts, int every)
{
    for (int s = first; s <= last; s++) {
        buf_printf(b,
                   "{\"step\":%d,\"stage\":%d,\"loss\":%.4f,\"lr\":1e-05,\"grad_norm\":%.3f,"
                   "\"tokens\":64,\"tokens_per_second\":100,\"seconds\":0.5,\"skipped\":0",
                   s, s > 40, 4.0 / (1 + 0.1 * s), 1 + 0.5 * (s % 3));
        if (s == 1) buf_puts(b, ",\"eval_loss_before\":4.5");
        if (s % 20 == 0) buf_printf(b, ",\"eval_loss\":%.4f", 4.0 / (1 + 0.1 * s));
        for (int k = 0; layers && s % every == 0 && k < 2; k++) {
            buf_puts(b, k ? ",\"bias\":[" : ",\"experts\":{\"load\":[");
            for (int l = 0; l < layers; l++) {
                buf_puts(b, l ? ",[" : "[");
                for (int e = 0; e < experts; e++) {
                    if (e) buf_puts(b, ",");
                    if (k) {
                        buf_printf(b, "%.3f", 0.001 * s * (e - 1));
                    } else {
                        buf_printf(b, "%d", (e + 1) * 10);
                    }
                }
                buf_puts(b, "]");
            }
            buf_puts(b, k ? "]}" : "]");
        }
        if (layers) {
            buf_puts(b, ",\"routing\":{\"gini\":[");
            for (int l = 0; l < layers; l++) {
                buf_printf(b, "%s0.25", l ? "," : "");
            }
            buf_puts(b, "]}");
        }
        assert_true(buf_puts(b, "}\n"));
    }
}

static void put_steps(const char *dir, int last, int layers, int experts, int every)
{
    struct buf b = {0};
    add_steps(&b, 1, last, layers, experts, every);
    put(dir, "metrics.jsonl", b.data ? b.data : "");
    buf_free(&b);
}

static char *page_of(const char *dir, enum report_use use)
{
    struct error err = {0};
    struct run_data r = {0};
    struct buf page = {0};
    check_ok(run_data_read(&r, dir, &err), &err);
    check_ok(report_page(&page, &r, use, &err), &err);
    run_data_free(&r);
    run_data_free(&r);
    return page.data;
}

static void says(const char *page, const char *words)
{
    if (!strstr(page, words)) fail_msg("'%s' is not in the page", words);
}

static void says_not(const char *page, const char *words)
{
    if (strstr(page, words)) fail_msg("'%s' is in the page", words);
}

static void a_run_with_all_of_it(void **unused)
{
    (void)unused;
    const char *dir = new_run("whole");
    put_steps(dir, 60, 3, 4, 1);
    put(dir, "run.json",
        "{\"model\": \"models/base-1B\", \"data\": [\"d/train.jsonl\"], \"tuning\": \"lora\","
        " \"routing\": \"bias\", \"lr\": 2e-3}");
    put(dir, "plan.json",
        "{\"memory\": {\"weights\": 1048576, \"optimizer\": 3145728}, \"total\": 4194304, "
        "\"mapped\": 10,"
        " \"disk\": 1, \"checkpoint_bytes\": 1, \"export_bytes\": 1, \"parameters\": 2000, "
        "\"learning\": 500,"
        " \"steps\": 60, \"data\": {\"examples\": 1234}, \"modules\": [{\"name\": \"q_proj\", "
        "\"parameters\": 500}],"
        " \"shape\": {\"moe_layers\": [1, 2, 5], \"experts_per_token\": 2},"
        " \"stages\": [{\"name\": \"first\"}, {\"name\": \"second\"}]}");
    put(dir, "result.json",
        "{\"outcome\": \"done\", \"steps\": 60, \"best_step\": 20, \"best_loss\": 1.3333}");
    put(dir, "changes.json",
        "{\"base\": \"base\", \"change\": 0.05, \"modules\": ["
        "{\"name\": \"self_attn.q_proj\", \"layer\": 0, \"difference\": 3, \"norm\": 30, "
        "\"change\": 0.1,"
        " \"parameters\": 10}, {\"name\": \"self_attn.q_proj\", \"layer\": 1, \"difference\": 4, "
        "\"norm\": 40,"
        " \"change\": 0.1, \"parameters\": 10}],"
        " \"experts\": [{\"layer\": 1, \"change\": [0, 0.5, 0, 0]}]}");
    put(dir, "eval-gsm8k.json", "{\"task\": \"exact\", \"exact_match\": 0.625}\n");
    char *page = page_of(dir, REPORT_FILE);
    check_html(page, false);
    says(page, ">finished</span>");
    says(page, "<code>base-1B</code> on 1,234 examples of <code>train.jsonl</code>");
    says(page, "Of its 2,000 parameters 500 (25 %) learn.");
    // 4.5 before, 4 / 7 after: by 87 %; 60 steps of half a second.
    says(page, "The loss on held-out examples fell from <b>4.500</b> to <b>0.571</b>, by 87 %, in "
               "60 steps and 30 s");
    says(page, "after step 20");
    says(page, "second</text>"); // the second stage's mark
    says(page, "<b>Layer 5</b>");
    says(page, "3&nbsp;(40&nbsp;%)"); // load 10, 20, 30, 40
    says(page, "<td>10&nbsp;%</td>"); // sqrt(9 + 16) / sqrt(900 + 1600)
    says(page, "exact_match <b>0.625</b>");
    says(page, "4.00 MiB");
    assert_true(strlen(page) < 200000);
    mem_free(page);
}

static void text_from_files_is_text(void **unused)
{
    (void)unused;
    char text[4096];
    const char *dir = new_run("evil");
    put_steps(dir, 3, 0, 0, 1);
    snprintf(text, sizeof text,
             "{\"model\": \"/m/%s\", \"data\": [\"%s\"], \"tuning\": \"%s\", \"routing\": \"%s\", "
             "\"%s\": \"%s\"}",
             "x<y>", "<b>.jsonl", "<i>", "&amp;", "<key>", "<value>");
    put(dir, "run.json", text);
    struct buf samples = {0};
    json_t *o = json_pack("{s:[{s:s,s:s,s:s}],s:s}", "samples", "prompt", evil, "answer", evil,
                          "reference", evil, "from", evil);
    char *dumped = json_dumps(o, 0);
    assert_non_null(dumped);
    put(dir, "samples.json", dumped);
    free(dumped);
    json_decref(o);
    buf_free(&samples);
    put(dir, "result.json",
        "{\"outcome\": \"failed\", \"error\": \"<script>alert(2)</script>\", \"finished\": "
        "\"<x>\"}");
    put(dir, "plan.json",
        "{\"memory\": {\"<u>\": 1}, \"stages\": [{\"name\": \"<s>\"}], \"parameters\": 1,"
        " \"modules\": [{\"name\": \"<m>\"}]}");
    put(dir, "changes.json",
        "{\"modules\": [{\"name\": \"<script>\", \"layer\": 0, \"difference\": 1, \"norm\": 1,"
        " \"parameters\": 1}, {\"name\": 5}], \"experts\": [7], \"base\": \"<base>\"}");
    put(dir, "eval<1>.json", "{\"<a>\": \"<b>\"}");
    char *page = page_of(dir, REPORT_FILE);
    check_html(page, false);
    says_not(page, "<script");
    says_not(page, "alert(2)</script>");
    says(page, "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&quot;x&#39; &amp; \\u0007");
    says(page, "It failed:");
    mem_free(page);
}

// Files that are no JSON, of other types, empty, or torn: a page all the same, that says what it lacks.
static void files_that_are_none(void **unused)
{
    (void)unused;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "7",
        "{\"outcome\": 3, \"memory\": [1], \"modules\": 1}",
        "{\"samples\": 1, \"stages\": {}, \"shape\": 1, \"steps\": \"x\"}",
        "{\"samples\": [1, {}], \"modules\": [1, {}], \"data\": 1, \"model\": 1}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char name[32];
        snprintf(name, sizeof name, "none-%zu", i);
        const char *dir = new_run(name);
        put(dir, "run.json", texts[i]);
        put(dir, "plan.json", texts[i]);
        put(dir, "result.json", texts[i]);
        put(dir, "changes.json", texts[i]);
        put(dir, "samples.json", texts[i]);
        put(dir, "eval.jsonl", texts[i]);
        put(dir, "metrics.jsonl", texts[i]);
        char *page = page_of(dir, REPORT_FILE);
        check_html(page, false);
        if (i < 4) says(page, "Not shown: ");
        mem_free(page);
    }
    struct error err = {0};
    struct run_data r = {0};
    check_error(run_data_read(&r, test_dir(), &err), &err, "holds no run");
    run_data_free(&r);
}

static void lines_of_other_shapes(void **unused)
{
    (void)unused;
    const char *dir = new_run("shapes");
    put(dir, "metrics.jsonl",
        "{\"step\":1,\"loss\":null,\"routing\":{\"gini\":[0.5,null]},\"experts\":{\"load\":[[1,2],["
        "3,4]],"
        "\"bias\":[[1,2]],\"condensers\":[[1],[7]]}}\n"
        "nonsense\n"
        "{\"step\":2,\"loss\":\"x\",\"routing\":{\"gini\":[0.5]},\"experts\":{\"load\":[[1],[3]]}}"
        "\n"
        "{\"step\":3,\"loss\":1e400}\n"
        "{\"step\":4,\"loss\":2,\"routing\":7,\"experts\":[],\"lr\":-1,\"grad_norm\":0}\n"
        "{\"step\":5,\"loss\":3,\"experts\":{\"load\":[[null,2],[0,0]]},\"routing\":{\"gini\":[0.1,"
        "0.2]}}\n"
        "{\"step\":6,\"lo");
    char *page = page_of(dir, REPORT_FILE);
    check_html(page, false);
    says(page, "2 lines of metrics.jsonl could not be read");
    says(page, ">broken off</span>");
    mem_free(page);
}

static void states_are_said(void **unused)
{
    (void)unused;
    static const struct {
        const char *outcome, *words;
    } rows[] = {
        {"done", ">finished<"}, {"early", "improved no more"}, {"stopped", "--resume --out"}};
    const char *dir = new_run("states");
    put_steps(dir, 5, 0, 0, 1);
    put(dir, "run.json", "{}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"outcome\": \"%s\", \"steps\": 9}", rows[i].outcome);
        put(dir, "result.json", text);
        char *page = page_of(dir, REPORT_FILE);
        check_html(page, false);
        says(page, rows[i].words);
        mem_free(page);
        page = page_of(dir, REPORT_SERVED);
        check_html(page, false);
        says(page, "This run has ended");
        mem_free(page);
    }
    struct error err = {0};
    check_ok(dir_remove(file_in(dir, "result.json"), &err), &err);
    int lock;
    assert_false(dir_locked(dir));
    check_ok(dir_lock(&lock, dir, &err), &err);
    assert_true(dir_locked(dir));
    char *page = page_of(dir, REPORT_SERVED);
    check_html(page, true);
    says(page, "data-live=\"yes\"");
    says(page, ">running</span>");
    mem_free(page);
    page = page_of(dir, REPORT_FILE);
    check_html(page, false);
    says(page, "was going on when this page was written");
    says_not(page, "data-live");
    mem_free(page);
    dir_unlock(&lock);
    assert_false(dir_locked(dir));
}

// A hundred thousand steps, and a model of 48 layers with 128 experts: at most 2 MB either way.
static void long_and_wide_runs_are_bounded(void **unused)
{
    (void)unused;
    const char *dir = new_run("long");
    put_steps(dir, 100000, 3, 16, 390);
    char *page = page_of(dir, REPORT_FILE);
    check_html(page, false);
    says(page, "100,000");
    assert_in_range(strlen(page), 50000, 1000000);
    mem_free(page);
    dir = new_run("wide");
    put_steps(dir, 300, 48, 128, 1);
    page = page_of(dir, REPORT_FILE);
    check_html(page, false);
    says(page, "The other 40 layers");
    assert_in_range(strlen(page), 50000, 2000000);
    mem_free(page);
}

static void check_same_metrics(const struct run_metrics *a, const struct run_metrics *b)
{
    assert_int_equal(a->n, b->n);
    for (int k = 0; k < NUMBER_COUNT; k++) {
        for (int64_t i = 0; i < a->n; i++) {
            const double x = a->number[k][i], y = b->number[k][i];
            assert_true(isnan(x) ? isnan(y) : x == y);
        }
    }
    assert_int_equal(a->load.n, b->load.n);
    assert_memory_equal(a->load.value, b->load.value,
                        (size_t)(a->load.n * a->load.width) * sizeof(float));
}

// Read in pieces while it grows, cut by a resume, or put together from two runs: what it holds at the end counts.
static void a_file_that_grows(void **unused)
{
    (void)unused;
    struct buf b = {0};
    struct error err = {0};
    struct run_metrics pieces = {0}, whole = {0};
    const char *path = file_in(new_run("grows"), "metrics.jsonl");
    check_ok(run_metrics_read(&pieces, path, &err), &err);
    add_steps(&b, 1, 30, 2, 3, 1);
    const size_t all = b.size;
    for (size_t n = 0; n <= all; n += 977) {
        check_ok(file_write(path, b.data, n, &err), &err);
        check_ok(run_metrics_read(&pieces, path, &err), &err);
    }
    check_ok(file_write(path, b.data, all, &err), &err);
    check_ok(run_metrics_read(&pieces, path, &err), &err);
    check_ok(run_metrics_read(&whole, path, &err), &err);
    assert_int_equal(pieces.n, 30);
    check_same_metrics(&pieces, &whole);
    // Resumed after step 10 with other steps, and longer by the time it is looked at.
    b.size = 0;
    add_steps(&b, 1, 10, 2, 3, 1);
    for (int s = 11; s <= 50; s++) {
        buf_printf(&b, "{\"step\":%d,\"stage\":0,\"loss\":7}\n", s);
    }
    check_ok(file_write(path, b.data, b.size, &err), &err);
    check_ok(run_metrics_read(&pieces, path, &err), &err);
    run_metrics_free(&whole);
    check_ok(run_metrics_read(&whole, path, &err), &err);
    assert_int_equal(whole.n, 50);
    check_same_metrics(&pieces, &whole);
    // Steps 6 to 8 once more, in the same file: the later ones count.
    for (int s = 6; s <= 8; s++) {
        buf_printf(&b, "{\"step\":%d,\"stage\":0,\"loss\":9}\n", s);
    }
    check_ok(file_write(path, b.data, b.size, &err), &err);
    run_metrics_free(&whole);
    check_ok(run_metrics_read(&whole, path, &err), &err);
    assert_int_equal(whole.n, 8);
    assert_true(whole.number[NUMBER_LOSS][7] > 8.9);
    assert_int_equal(whole.load.n, 5);
    check_ok(run_metrics_read(&pieces, path, &err), &err);
    check_same_metrics(&pieces, &whole);
    run_metrics_free(&pieces);
    run_metrics_free(&whole);
    buf_free(&b);
}

static void numbers_as_csv(void **unused)
{
    (void)unused;
    struct error err = {0};
    struct run_data r = {0};
    struct buf csv = {0};
    const char *dir = new_run("csv");
    put(dir, "metrics.jsonl",
        "{\"step\":1,\"stage\":0,\"loss\":2.5,\"lr\":1e-05,\"grad_norm\":null,\"tokens\":64,"
        "\"tokens_per_second\":100,\"seconds\":0.25,\"routing\":{\"loss\":0.5}}\n"
        "{\"step\":100000,\"stage\":1,\"loss\":0.125,\"eval_loss\":3}\n");
    check_ok(run_data_read(&r, dir, &err), &err);
    check_ok(report_csv(&csv, &r, &err), &err);
    assert_string_equal(csv.data,
                        "step,stage,loss,lr,grad_norm,tokens,tokens_per_second,seconds,eval_loss,"
                        "router_loss\n1,0,2.5,1e-5,,64,100,0.25,,0.5\n100000,1,0.125,,,,,,3,\n");
    buf_free(&csv);
    run_data_free(&r);
}

// Without memory for it there is no page, whichever allocation fails.
static void no_memory_is_an_error(void **unused)
{
    (void)unused;
    struct run_data r = {0};
    struct error err = {0};
    struct buf page = {0};
    const char *dir = new_run("memory");
    put_steps(dir, 30, 2, 4, 1);
    put(dir, "run.json", "{\"model\": \"m\", \"data\": [\"d\"]}");
    check_ok(run_data_read(&r, dir, &err), &err);
    const int64_t before = mem_count();
    check_ok(report_page(&page, &r, REPORT_FILE, &err), &err);
    const int64_t needed = mem_count() - before;
    buf_free(&page);
    for (int64_t n = 1; n <= needed; n++) {
        mem_fail_at(n, true);
        const bool ok = report_page(&page, &r, REPORT_FILE, &err);
        mem_fail_at(0, false);
        if (ok) fail_msg("allocation %lld of %lld: not noticed", (long long)n, (long long)needed);
        assert_null(page.data);
    }
    run_data_free(&r);
}

// What is wrong with a run's files is said, or the run is not read.
static void no_note_is_lost(void **unused)
{
    (void)unused;
    bool all = false;
    const char *dir = new_run("notes");
    put_steps(dir, 3, 1, 2, 1);
    put(dir, "run.json", "[]");
    put(dir, "eval.json", "{\"task\": \"loss\",\n \"loss\": 2}");
    put(dir, "eval.jsonl", "{\"task\": \"exact\"}\n{\"task\": \"math\"}\n");
    for (int64_t n = 1; !all; n++) {
        struct run_data r = {0};
        struct error err = {0};
        const int64_t before = mem_count();
        mem_fail_at(n, false);
        const bool ok = run_data_read(&r, dir, &err);
        mem_fail_at(0, false);
        all = mem_count() - before < n;
        const size_t notes = json_array_size(r.notes), evals = json_array_size(r.evals);
        if (ok) assert_true(notes > 0 && (notes > 1 || evals == 3));
        if (!ok) assert_non_null(strstr(err.msg, "no memory"));
        run_data_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_with_all_of_it),  cmocka_unit_test(text_from_files_is_text),
        cmocka_unit_test(files_that_are_none),   cmocka_unit_test(lines_of_other_shapes),
        cmocka_unit_test(states_are_said),       cmocka_unit_test(long_and_wide_runs_are_bounded),
        cmocka_unit_test(a_file_that_grows),     cmocka_unit_test(numbers_as_csv),
        cmocka_unit_test(no_memory_is_an_error), cmocka_unit_test(no_note_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
