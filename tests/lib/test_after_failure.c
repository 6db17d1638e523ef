// test_after_failure.c - a call of libmoetune that got no memory says so, and the next one starts clean: it does what
// it would have done without the other, to the same number.
#include "../torture/interpose.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/init.h"
#include "support.h"

#include "moetune.h"

#include <stdio.h>
#include <sys/wait.h>

static const char config[] =
    "{\"architectures\": [\"OlmoeForCausalLM\"], \"model_type\": \"olmoe\", \"vocab_size\": 64,"
    " \"hidden_size\": 32, \"intermediate_size\": 32, \"num_hidden_layers\": 2,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"num_experts\": 8,"
    " \"num_experts_per_tok\": 2, \"max_position_embeddings\": 4096, \"eos_token_id\": 0}";
static const char data[] = "{\"input_ids\": [4, 7, 1, 9, 2], \"labels\": [4, 7, 1, 9, 2]}\n";

// Of the allocations of a call, every 53rd fails, half of them with all later ones: up to there it reads options, data and model, and writes its options and its plan as JSON.
enum { FAULTS = 28, STRIDE = 53, SECONDS = 60 };

static struct moetune *toy(void)
{
    static const char *const options[][2] = {
        {"data", "data.jsonl"}, {"out", "out"},     {"overwrite", "true"}, {"threads", "1"},
        {"dtype", "f32"},       {"max-steps", "1"}, {"tuning", "lora"}};
    struct error err = {""};
    const struct model_init_options init = {
        .config = "config.json", .out = "base", .dtype = "f32", .seed = 5, .shard_bytes = 1 << 30};
    check_ok(file_write("config.json", config, strlen(config), &err), &err);
    check_ok(file_write("data.jsonl", data, strlen(data), &err), &err);
    check_ok(model_init(&init, &err), &err);
    struct moetune_error why;
    struct moetune *m = moetune_open("base", &why);
    assert_non_null(m);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        assert_true(moetune_set(m, options[i][0], options[i][1], &why));
    }
    return m;
}

static const struct moetune_result *train_again(struct moetune *m, struct moetune_error *err)
{
    moetune_set(m, "adapter", NULL, NULL); // from the base, not from what was learnt
    return moetune_train(m, err);
}

enum outcome { NEXT_IS_RIGHT, NEXT_FAILED, NEXT_IS_ANOTHER, NOT_NOTICED, LIBRARY_ENDED };

// libgomp ends the process itself where it has no memory; the test's folder stays.
static void leave(int status, void *unused)
{
    (void)status, (void)unused;
    _exit(LIBRARY_ENDED);
}

static enum outcome fail_and_go_on(struct moetune *m, int64_t at, double loss)
{
    struct moetune_error first = {""}, next = {""};
    alarm(SECONDS);
    faults.made = 0;
    faults.at = at;
    faults.for_ever = at % 2; // to the end of the call
    faults.of_allocations = faults.armed = true;
    const bool ok = train_again(m, &first) != NULL;
    faults.armed = false;
    if (!ok && !*first.message) return NOT_NOTICED;
    const struct moetune_result *r = train_again(m, &next);
    if (!r) print_message("allocation %d: %s; then: %s\n", (int)at, first.message, next.message);
    return !r ? NEXT_FAILED : r->loss == loss ? NEXT_IS_RIGHT : NEXT_IS_ANOTHER;
}

static void a_call_after_one_without_memory(void **state)
{
    (void)state;
    struct moetune_error err = {""};
    int counts[LIBRARY_ENDED + 1] = {0};
    assert_int_equal(chdir(test_dir()), 0);
    struct moetune *m = toy();
    const struct moetune_result *r = train_again(m, &err);
    if (!r) fail_msg("%s", err.message);
    const double loss = r->loss;
    for (int64_t i = 0; i < FAULTS; i++) {
        int status = 0;
        const pid_t child = fork();
        assert_true(child >= 0);
        if (!child) {
            on_exit(leave, NULL);
            _exit((int)fail_and_go_on(m, 1 + i * STRIDE, loss));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status)) fail_msg("signal %d", WTERMSIG(status));
        assert_in_range(WEXITSTATUS(status), NEXT_IS_RIGHT, LIBRARY_ENDED);
        counts[WEXITSTATUS(status)]++;
    }
    moetune_close(m);
    print_message("%d calls failed; after %d of them the next was right\n", FAULTS,
                  counts[NEXT_IS_RIGHT]);
    assert_int_equal(counts[NEXT_IS_RIGHT] + counts[LIBRARY_ENDED], FAULTS);
    assert_true(counts[LIBRARY_ENDED] < FAULTS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_call_after_one_without_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
