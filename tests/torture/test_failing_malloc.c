// Each allocation of a training run, of its resume, a merge and tokenizers fails, once and for ever: our own
// and those of the libraries. The program says so in one line and ends with status 1, leaks nothing, and leaves
// checkpoints from which a run ends with the bytes of one that nothing disturbed; or it needs the memory not and
// gives those bytes at once. Every allocation of every scenario with TORTURE=full, else some of each.
#include "attack.h"

#include <omp.h>

static struct {
    int64_t failed, ended, survived, scenarios;
} figure;

struct scenario {
    const char *name, *line, *from;
    const char *seed; // the folder that `out` is a copy of beforehand; NULL: there is none
    bool trains;      // what failed is gone on with afterwards
    int64_t sample;   // of its allocations in the short form
    int64_t stride;   // in the full form; 0: all of them
};

static void prepare(const struct scenario *s)
{
    struct error err = {0};
    check_ok(dir_remove("out", &err), &err);
    if (s->seed) copy_folder("out", s->seed);
}

static const char *what_is_wrong(const struct scenario *s, const struct attempt *a)
{
    static char what[16384];
    struct attempt again;
    if (a->signal) {
        snprintf(what, sizeof what, "signal %d", a->signal);
    } else if (a->status != 0 && a->status != 1) {
        snprintf(what, sizeof what, "status %d", a->status);
    } else if (a->status == 1 && !one_line_says_why(a->said)) {
        snprintf(what, sizeof what, "not one line of error");
    } else if (*a->leak) {
        snprintf(what, sizeof what, "leaks what was allocated at %s", a->leak);
    } else if (a->status == 0) {
        if (!same_file("stdout", "stdout.reference")) return "status 0, but other output";
        return file_exists("reference") ? difference("out", "reference") : "";
    } else if (s->trains && file_exists("out")) {
        char line[4096];
        snprintf(line, sizeof line, "%s %s", s->line,
                 strstr(s->line, "--resume") ? ""
                 : has_checkpoint("out")     ? "--resume"
                                             : "--overwrite");
        attempt_from(&again, line, s->from, 0, false);
        if (again.status == 0) return difference("out", "reference");
        snprintf(what, sizeof what, "and cannot be gone on with: %s", again.said);
    } else {
        return "";
    }
    return what;
}

static int64_t failures;

static void one(const struct scenario *s, int64_t at, bool for_ever)
{
    struct attempt a;
    prepare(s);
    attempt_from(&a, s->line, s->from, at, for_ever);
    figure.failed++;
    figure.ended += a.status == 1;
    figure.survived += a.status == 0;
    const char *wrong = what_is_wrong(s, &a);
    if (!*wrong) return;
    failures++;
    print_message("%s: allocation %d%s (%s): %s; it said: %s\n", s->name, (int)at,
                  for_ever ? " and later ones" : "", a.caller, wrong, a.said);
}

static void run_scenario(const struct scenario *s)
{
    struct attempt a;
    struct error err = {0};
    check_ok(dir_remove("reference", &err), &err);
    prepare(s);
    attempt_from(&a, s->line, s->from, 0, false);
    if (a.status != 0 || *a.leak)
        fail_msg("%s: signal %d: %s %s", s->name, a.signal, a.said, a.leak);
    if (file_exists("out")) assert_int_equal(rename("out", "reference"), 0);
    assert_int_equal(rename("stdout", "stdout.reference"), 0);
    const int64_t all = a.made, stride = s->stride ? s->stride : 1;
    const int64_t step = torture_full() ? stride : (all + s->sample - 1) / s->sample;
    assert_true(all > 20);
    const int64_t before = figure.failed;
    if (!torture_wants(s->name)) return; // what it left is there for the next
    for (int64_t at = 1; at <= all; at += step) {
        one(s, at, false);
        one(s, at, true);
    }
    figure.scenarios++;
    print_message("%s: %d allocations, %d failed\n", s->name, (int)all,
                  (int)(figure.failed - before));
}

// What a run of the toy says to every command line of it.
#define RUN                                                                                        \
    "--model base --data data.jsonl --out out --dtype f32 --batch-tokens 40 --max-steps 3 --lr "   \
    "1e-2 "                                                                                        \
    "--schedule constant --warmup-ratio 0 --threads 1 --save-every 2 --no-report --quiet "
#define LORA "--tuning lora --lora-rank 3 --lora-alpha 6 "

static const char *options_of(const char *tuning)
{
    if (!strcmp(tuning, "full")) return "";
    if (!strcmp(tuning, "esft")) return "--esft-tokens 150 --esft-top-p 0.4";
    return strcmp(tuning, "smt") != 0 ? "--lora-rank 3 --lora-alpha 6"
                                      : "--smt-block 5 --smt-warmup-steps 2 "
                                        "--smt-attention-blocks 6 --smt-mlp-blocks 20";
}

// With evaluations and the page of the run, from a YAML file; then each routing and each tuning.
static void training(void)
{
    char line[1024], name[64];
    write_text("run.yaml", "model: base\ndata: [data.jsonl]\nvalidation: [data.jsonl]\nout: out\n"
                           "dtype: f32\nrouting: topk\ntuning: full\nbatch_tokens: 40\n"
                           "max_steps: 3\nlr: 1e-2\nsave_every: 2\neval_every: 2\nthreads: 1\n"
                           "quiet: true\n");
    run_scenario(&(struct scenario){
        .name = "YAML", .line = "train --config run.yaml", .trains = true, .sample = 24});
    for (int i = 0; routings[i]; i++) {
        for (int k = 0; tunings[k]; k++) {
            const char *r = routings[i]->name, *t = tunings[k]->name;
            if (i != 0 && strcmp(t, "lora") != 0) continue;
            snprintf(line, sizeof line, "train " RUN "--routing %s --tuning %s %s", r, t,
                     options_of(t));
            snprintf(name, sizeof name, "%.20s x %.20s", r, t);
            run_scenario(
                &(struct scenario){.name = name, .line = line, .trains = true, .sample = 3});
        }
    }
}

static void done(const char *line)
{
    struct attempt a;
    attempt_from(&a, line, NULL, 0, false);
    if (a.status != 0) fail_msg("%s: %s", line, a.said);
}

// From the checkpoint in the middle of a run; the end is that of the run that nothing stopped.
static void resuming(void)
{
    struct error err = {0};
    check_ok(dir_remove("out", &err), &err);
    done("train " RUN "--routing bias " LORA);
    copy_folder("unbroken", "out");
    copy_folder("adapter", "out/adapter");
    copy_folder("stopped", "out");
    check_ok(dir_remove("stopped/checkpoint-3", &err) && dir_remove("stopped/adapter", &err) &&
                 dir_remove("stopped/changes.json", &err),
             &err);
    run_scenario(&(struct scenario){.name = "resume",
                                    .line = "train --resume --out out",
                                    .seed = "stopped",
                                    .trains = true,
                                    .sample = 12});
    if (*difference("unbroken", "reference")) fail_msg("%s", difference("unbroken", "reference"));
    run_scenario(&(struct scenario){
        .name = "merge",
        .line = "merge --model base --adapter adapter --out out --threads 1 --quiet",
        .sample = 12});
}

// bf16, where oneDNN makes its kernels with the fault, and two threads.
static void products(void)
{
    run_scenario(&(struct scenario){.name = "bf16",
                                    .line = "train " RUN "--dtype bf16 --products bf16 --threads 2",
                                    .trains = true,
                                    .sample = 12,
                                    .stride = 16});
}

static void tokenizers(void)
{
    static const char *const names[] = {"gpt2", "llama", "qwen", "deepseek", "metaspace"};
    char line[2048], name[64];
    write_text("text",
               "The quick brown fox, naïve \xe6\x9d\xb1\xe4\xba\xac 1234567!\n  it's\tf(x)\n");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(line, sizeof line, "tokenize --model %s/tokenizer/%s text", FIXTURES, names[i]);
        snprintf(name, sizeof name, "tokenizer %s", names[i]);
        run_scenario(&(struct scenario){.name = name, .line = line, .sample = 3});
        copy_file("ids", "stdout.reference");
        snprintf(line, sizeof line, "tokenize --model %s/tokenizer/%s --decode", FIXTURES,
                 names[i]);
        run_scenario(
            &(struct scenario){.name = "decode", .line = line, .from = "ids", .sample = 3});
    }
}

static void chat(void)
{
    char path[2048];
    write_text(
        "chat.json",
        "{\"architectures\":[\"OlmoeForCausalLM\"],\"model_type\":\"olmoe\",\"hidden_size\":16,"
        "\"intermediate_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"num_key_value_heads\":2,\"num_experts\":4,\"num_experts_per_tok\":2,"
        "\"vocab_size\":768,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,"
        "\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"norm_topk_prob\":false,"
        "\"eos_token_id\":0}");
    run_scenario(&(struct scenario){
        .name = "init", .line = "init --config chat.json --out out --quiet", .sample = 6});
    copy_folder("chat", "reference");
    snprintf(path, sizeof path, "%s/chat/tokenizer.json", FIXTURES);
    copy_file("chat/tokenizer.json", path);
    snprintf(path, sizeof path, "%s/chat/qwen3.jinja", FIXTURES);
    copy_file("chat/chat_template.jinja", path);
    write_text("chat/tokenizer_config.json",
               "{\"bos_token\":\"<bos>\",\"eos_token\":\"<|endoftext|>\"}");
    write_text("chat.jsonl",
               "{\"messages\":[{\"role\":\"user\",\"content\":\"the list\"},{\"role\":"
               "\"assistant\",\"content\":\"a tree\"}]}\n{\"text\":\"the sum of it\"}\n");
    run_scenario(&(struct scenario){
        .name = "chat template",
        .line = "inspect --model chat --data chat.jsonl --batch-tokens 64 --quiet",
        .sample = 8});
}

static void every_allocation(void **state)
{
    (void)state;
    struct toy t;
    omp_set_num_threads(1); // a child has no threads of a team that was made before the fork
    toy_open(&t);
    write_data(&t);
    assert_int_equal(chdir(toy_path(t.base, "..")), 0);
    attack_open();
    faults.of_allocations = true;
    warm_up(CPU_PRODUCTS_F32);
    products();
    warm_up(CPU_PRODUCTS_AUTO);
    training();
    resuming();
    tokenizers();
    chat();
    toy_close(&t);
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("torture: %lld allocations failed in %lld scenarios, %lld runs ended with a line of "
           "error, %lld gave "
           "the same bytes\n",
           (long long)figure.failed, (long long)figure.scenarios, (long long)figure.ended,
           (long long)figure.survived);
    return failed;
}
