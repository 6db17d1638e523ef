// tests/lib/test_library.c - libmoetune through its public header alone: what it refuses and how it says so, that a run
// can be stopped and taken up, what is saved, and what it leaves alone in the process that calls it.
#include "base/file.h"
#include "base/mem.h"
#include "model/init.h"
#include "support.h"

#include "moetune.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char config[] =
    "{\"architectures\": [\"OlmoeForCausalLM\"], \"model_type\": \"olmoe\", \"vocab_size\": 64,"
    " \"hidden_size\": 32, \"intermediate_size\": 32, \"num_hidden_layers\": 2,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"num_experts\": 8,"
    " \"num_experts_per_tok\": 2, \"max_position_embeddings\": 4096, \"eos_token_id\": 0}";

static void write_text(const char *path, const char *text)
{
    struct error err = {""};
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

static int make_toy(void **state)
{
    (void)state;
    struct error err = {""};
    struct buf data = {0};
    const struct model_init_options init = {
        .config = "config.json", .out = "base", .dtype = "f32", .seed = 5, .shard_bytes = 1 << 30};
    if (chdir(test_dir()) != 0) return -1;
    write_text("config.json", config);
    check_ok(model_init(&init, &err), &err);
    for (int i = 10; i < 30; i++) {
        buf_printf(&data,
                   "{\"input_ids\": [%d, 7, 1, 9, 2, 11, 3, 5], \"labels\": [%d, 7, 1, 9, 2, "
                   "11, 3, 5]}\n",
                   i, i);
    }
    write_text("data.jsonl", data.data);
    buf_free(&data);
    return 0;
}

static void works(bool ok, const struct moetune_error *err)
{
    if (!ok) fail_msg("%s", err->message);
}

static void refuses(bool ok, const struct moetune_error *err, const char *needle)
{
    assert_false(ok);
    if (!strstr(err->message, needle)) fail_msg("'%s' does not say '%s'", err->message, needle);
}

static struct moetune *opened(void)
{
    struct moetune_error err;
    struct moetune *m = moetune_open("base", &err);
    works(m != NULL, &err);
    static const char *const options[][2] = {
        {"data", "data.jsonl"}, {"dtype", "f32"},       {"threads", "1"},       {"max-steps", "6"},
        {"lr", "2e-2"},         {"batch-tokens", "64"}, {"tuning", "lora"},     {"lora-rank", "4"},
        {"lora-alpha", "8"},    {"lora-dropout", "0"},  {"warmup-ratio", "0.5"}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        works(moetune_set(m, options[i][0], options[i][1], &err), &err);
    }
    return m;
}

static double loss_of(struct moetune *m)
{
    struct moetune_error err;
    const struct moetune_loss *s = moetune_score(m, "data.jsonl", &err);
    works(s != NULL, &err);
    assert_int_equal(s->examples, 20);
    assert_int_equal(s->tokens, 160);
    assert_int_equal(s->learnt, 140);
    return s->loss;
}

static double loss_of_folder(const char *folder, const char *adapter)
{
    struct moetune_error err;
    struct moetune *m = moetune_open(folder, &err);
    works(m != NULL, &err);
    works(moetune_set(m, "dtype", "f32", &err), &err);
    works(moetune_set(m, "batch-tokens", "64", &err), &err);
    if (adapter) works(moetune_set(m, "adapter", adapter, &err), &err);
    const double loss = loss_of(m);
    moetune_close(m);
    return loss;
}

static void says_what_is_wrong(void **state)
{
    (void)state;
    struct moetune_error err;
    refuses(moetune_open("nowhere", &err) != NULL, &err, "nowhere: no such folder");
    assert_null(moetune_open("nowhere", NULL));
    moetune_close(NULL);

    struct moetune *m = opened();
    refuses(moetune_set(m, "lora-rnk", "4", &err), &err, "did you mean --lora-rank?");
    refuses(moetune_set(m, "lora-rnk", NULL, &err), &err, "did you mean --lora-rank?");
    refuses(moetune_set(m, "prompt", "x", &err), &err, "it belongs to generate");
    refuses(moetune_set(m, "lora-rank", "four", &err), &err, "--lora-rank: found 'four'");
    refuses(moetune_set(m, "tuning", "none", &err), &err, "--tuning: found 'none'");
    refuses(moetune_add(m, "lora-rank", "4", &err), &err, "--lora-rank takes one value");
    refuses(moetune_set(m, "model", "base", &err), &err, "moetune_open");
    refuses(moetune_set(m, "config", "run.yaml", &err), &err, "moetune_read");
    refuses(moetune_merge(m, &err), &err, "no adapter");
    refuses(moetune_score(m, "absent.jsonl", &err) != NULL, &err, "absent.jsonl");
    refuses(moetune_train(m, &err) != NULL, &err, "needs --out");
    works(moetune_set(m, "out", "unused", &err), &err);
    works(moetune_set(m, "out", NULL, &err), &err);
    refuses(moetune_train(m, &err) != NULL, &err, "needs --out");
    refuses(moetune_save(m, ".", &err), &err, ".: found files in it");
    write_text("bad.yaml", "lora_rank: 4\nloora: 5\n");
    refuses(moetune_read(m, "bad.yaml", &err), &err, "bad.yaml:2: unknown option 'loora'");
    assert_false(moetune_set(m, "lora-rnk", "4", NULL));
    loss_of(m); // still good
    moetune_close(m);
}

struct watch {
    int64_t stop_at, steps, counts;
    double first, last;
};

static bool watch_step(void *user, const struct moetune_step *s)
{
    struct watch *w = user;
    struct sigaction now;
    sigaction(SIGINT, NULL, &now);
    assert_true(now.sa_handler == SIG_DFL); // the program's own affair
    assert_int_equal(s->steps, 6);
    assert_int_equal(s->tokens, s->step % 3 ? 64 : 32); // of 160
    if (!w->steps++) w->first = s->loss;
    w->last = s->loss;
    return s->step != w->stop_at;
}

static void watch_progress(void *user, int64_t done, int64_t of)
{
    struct watch *w = user;
    assert_true(done >= 1 && done <= of);
    w->counts++;
}

static void trains_saves_and_merges(void **state)
{
    (void)state;
    struct moetune_error err;
    struct watch w = {0};
    struct moetune *m = opened();
    moetune_on_step(m, watch_step, &w);
    moetune_on_progress(m, watch_progress, &w);
    const double before = loss_of(m);
    assert_int_equal(w.counts, 3); // 160 tokens, 64 at a time
    works(moetune_set(m, "out", "straight", &err), &err);
    const struct moetune_result *r = moetune_train(m, &err);
    works(r != NULL, &err);
    assert_string_equal(r->folder, "straight/adapter");
    assert_true(!r->stopped && r->step == 6 && r->steps == 6 && w.steps == 6);
    assert_true(isnan(r->eval_loss) && r->loss == w.last);
    const double after = loss_of(m);
    assert_true(after < before - 0.05);

    works(moetune_save(m, "kept/", &err), &err);
    refuses(moetune_save(m, "kept", &err), &err, "kept: found files in it");
    assert_true(loss_of_folder("base", "kept") == after);
    assert_true(loss_of_folder("base", NULL) == before);
    works(moetune_merge(m, &err), &err);
    refuses(moetune_train(m, &err) != NULL, &err, "merged");
    works(moetune_save(m, "merged", &err), &err);
    assert_true(fabs(loss_of_folder("merged", NULL) - after) < 1e-5);
    assert_true(file_exists("merged/model.safetensors") && !file_exists("merged.tmp"));
    moetune_close(m);
}

static void stops_and_goes_on(void **state)
{
    (void)state;
    struct moetune_error err;
    struct watch w = {.stop_at = 2};
    struct moetune *m = opened();
    moetune_on_step(m, watch_step, &w);
    works(moetune_set(m, "out", "halves", &err), &err);
    const double before = loss_of(m);
    const struct moetune_result *r = moetune_train(m, &err);
    works(r != NULL, &err);
    assert_true(r->stopped && r->step == 2 && !*r->folder && w.steps == 2);
    assert_true(loss_of(m) == before);
    refuses(moetune_train(m, &err) != NULL, &err, "halves");
    works(moetune_set(m, "resume", "true", &err), &err);
    r = moetune_train(m, &err);
    works(r != NULL, &err);
    assert_true(!r->stopped && r->step == 6 && w.steps == 6);
    assert_true(loss_of(m) == loss_of_folder("base", "straight/adapter")); // the same bits
    moetune_close(m);
}

// A file's options are those of the run; a whole model takes the place of the base, with its routing.
static void reads_a_file(void **state)
{
    (void)state;
    struct moetune_error err;
    struct moetune *m = opened();
    write_text("run.yaml",
               "model: elsewhere\nrouting: bias\nbias_rate: 0.01\ntuning: full\n"
               "data: [data.jsonl, data.jsonl]\nshuffle: false\nmax_steps: 3\nout: full\n");
    works(moetune_read(m, "run.yaml", &err), &err);
    const struct moetune_result *r = moetune_train(m, &err);
    works(r != NULL, &err);
    assert_string_equal(r->folder, "full/model");
    assert_int_equal(r->steps, 3);
    assert_true(file_exists("full/model/moe_bias_states.json"));
    char *text;
    size_t size;
    assert_true(file_read(&text, &size, "full/run.json", 1 << 20, NULL));
    assert_non_null(strstr(text, "\"shuffle\": false"));
    assert_non_null(strstr(text, "\"model\": \"base\""));
    mem_free(text);
    works(moetune_save(m, "again", &err), &err);
    assert_true(file_exists("again/moe_bias_states.json"));
    assert_true(loss_of(m) == loss_of_folder("again", NULL));
    moetune_close(m);
}

static void log_into(void *user, enum moetune_level level, const char *line)
{
    struct buf *b = user;
    buf_printf(b, "%d %s\n", level == MOETUNE_WARNING, line);
}

static void logs_to_who_asks(void **state)
{
    (void)state;
    struct moetune_error err;
    struct buf b = {0};
    moetune_on_log(log_into, &b);
    struct moetune *m = moetune_open("full/model", &err);
    works(m != NULL, &err);
    works(moetune_save(m, "logged", &err), &err);
    moetune_on_log(NULL, NULL);
    assert_non_null(b.data);
    assert_non_null(strstr(b.data, "1 the exported model: the routing bias"));
    buf_free(&b);
    moetune_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_is_wrong), cmocka_unit_test(trains_saves_and_merges),
        cmocka_unit_test(stops_and_goes_on),  cmocka_unit_test(reads_a_file),
        cmocka_unit_test(logs_to_who_asks),
    };
    return cmocka_run_group_tests(tests, make_toy, NULL);
}
