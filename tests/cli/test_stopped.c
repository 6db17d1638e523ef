// test_stopped.c - a run that is stopped says what is true: nothing is saved before step 1, all that was done is saved
// after it; --resume starts or goes on, and ends with the bytes of a run that nobody stopped.
#include "pairs.h"

#include "cli/setup.h"

#include <signal.h>
#include <unistd.h>

static struct toy toy;

// Called in the thread that runs: the signal is there when the training loop asks next.
static void stop_at(enum log_level level, const char *line, void *words)
{
    (void)level;
    if (strstr(line, words)) raise(SIGTERM);
}

// What the command says to people; free().
static char *train(const char *out, const char *more, const char *words, enum status expected)
{
    struct options o;
    struct error err = {0};
    char line[1024], *said = NULL;
    size_t size;
    FILE *nowhere = fopen("/dev/null", "w"), *people = open_memstream(&said, &size);
    assert_true(nowhere && people);
    struct output io = {.result = nowhere, .people = people, .status = nowhere};
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --out %s --dtype f32 --batch-tokens 40 "
             "--max-steps 3 --lr 1e-2 --threads 1 --save-every 1 --keep-last 2 %s",
             out, more);
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, &err), &err);
    log_set_sink(stop_at, (void *)(uintptr_t)words);
    setup_output(&io);
    const enum status status = command_train(&o, &io, &err);
    log_set_sink(NULL, NULL);
    setup_output(NULL);
    options_close(&o);
    fclose(people);
    fclose(nowhere);
    if (status != expected)
        fail_msg("%s, %s: status %d: %s %s", more, words, status, err.msg, said);
    return said;
}

static void check_says(char *said, const char *words)
{
    if (!strstr(said, words)) fail_msg("'%s' is not in: %s", words, said);
    free(said);
}

static void check_page(const char *out, const char *words)
{
    char *page;
    size_t size;
    struct error err = {0};
    check_ok(file_read(&page, &size, toy_path(out, "report.html"), 1 << 24, &err), &err);
    if (!strstr(page, words)) fail_msg("'%s' is not in %s/report.html", words, out);
    mem_free(page);
}

static void before_the_first_step(void **state)
{
    (void)state;
    static const char *const out = "stopped", *const straight = "straight";
    free(train(straight, "", "nothing stops it", STATUS_DONE));
    check_says(train(out, "--resume", "starts from the beginning", STATUS_STOPPED),
               "stopped before step 1 of 3; nothing to save; start it with: moetune train");
    assert_false(file_exists(toy_path(out, "checkpoint-0")));
    check_page(out, "stopped by a signal before its first step");
    free(train(out, "--resume", "nothing stops it", STATUS_DONE));
    check_same_folder(toy_path(straight, "model"), toy_path(out, "model"));
    // And where there is something to go on from, it is saved.
    struct error err = {0};
    check_ok(dir_remove(toy_path(out, "checkpoint-3"), &err), &err);
    check_says(train(out, "--resume", "resumed from", STATUS_STOPPED),
               "stopped after step 2 of 3; saved; go on with: moetune train");
    check_page(out, "stopped by a signal and saved");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(before_the_first_step)};
    toy_open(&toy);
    pairs_write_data(&toy);
    assert_int_equal(chdir(toy_path(toy.base, "..")), 0);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    toy_close(&toy);
    return failed;
}
