// tests/cuda/test_pairs.c - every routing with every tuning trained on the device and on the CPU: the losses
// agree step by step, a second run on the device (emulated: with another order of threads) and one that was
// stopped end with the same bytes, and the merged result scores as the unmerged.
#include "../cli/pairs.h"
#include "device.h"

#include <unistd.h>

// Emulated, all pairs would take minutes: each routing with `full` and `lora`, each tuning with `topk`, in few
// steps.
#ifdef EMULATED
enum { STEPS = 2, EVERY_PAIR = 0 };
#else
enum { STEPS = 100, EVERY_PAIR = 1 };
#endif

static bool worth_it(const char *routing, const char *tuning)
{
    return EVERY_PAIR || !strcmp(routing, "topk") || !strcmp(tuning, "full") ||
           !strcmp(tuning, "lora");
}

static const struct {
    const char *tuning, *options;
} small[] = {
    {"esft", "--esft-tokens 150 --esft-top-p 0.4"},
    {"smt", "--smt-block 5 --smt-warmup-steps 2 --smt-attention-blocks 6 --smt-mlp-blocks 20"},
    {"lora", "--lora-rank 3 --lora-alpha 6 --lora-dropout 0.1"},
    {"dora", "--lora-rank 3 --lora-alpha 6"},
};

static const char *small_options(const char *tuning)
{
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        if (!strcmp(small[i].tuning, tuning)) return small[i].options;
    }
    return "";
}

struct curve {
    double loss[2 * STEPS + 64];
    int64_t steps;
};

static void stepped(void *user, const struct train_step *s)
{
    struct curve *c = user;
    assert_true(s->step > 0 && s->step <= (int64_t)(sizeof c->loss / sizeof *c->loss));
    c->loss[s->step - 1] = s->loss;
    c->steps = s->step;
}

static struct train_result train_on(struct curve *c, const char *out, const char *routing,
                                    const char *tuning, const char *more)
{
    struct job job;
    struct options o;
    struct error err = {""};
    struct train_result r;
    char line[2048];
    const struct train_listener listener = {.user = c, .step = stepped};
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --out %s --overwrite --routing %s --tuning %s "
             "--batch-tokens 60 --max-steps %d --lr 1e-3 --schedule constant "
             "--warmup-ratio 0 --bias-rate 1e-2 --threads 1 %s %s",
             out, routing, tuning, STEPS, small_options(tuning), more);
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, &err), &err);
    check_ok(job_open(&job, &o, out, &listener, &err), &err);
    check_ok(trainer_run(job.trainer, &r, &err), &err);
    job_close(&job);
    options_close(&o);
    return r;
}

static double score(const char *model, const char *adapter, const char *routing)
{
    char line[2048];
    snprintf(line, sizeof line,
             "--model %s %s %s --data base/data.jsonl --dtype f32 --device cuda --routing %s",
             model, adapter ? "--adapter" : "", adapter ? adapter : "", routing);
    return pairs_loss(line);
}

static void check_merged(const char *adapter, const char *routing)
{
    char line[2048];
    const int length = snprintf(line, sizeof line,
                                "--model base --adapter %s --out merged --routing %s --device cuda",
                                adapter, routing);
    assert_in_range(length, 1, sizeof line - 1);
    pairs_merge(line);
    const double apart = score("base", adapter, routing), together = score("merged", NULL, routing);
    struct error err;
    check_ok(dir_remove("merged", &err), &err);
    if (!(fabs(apart - together) < 2e-6 * fabs(apart))) {
        fail_msg("%s: %.9g apart, %.9g merged", adapter, apart, together);
    }
}

static void check_curves(const struct curve *got, const struct curve *want, double limit,
                         const char *name)
{
    assert_int_equal(got->steps, want->steps);
    double worst = 0;
    for (int64_t i = 0; i < got->steps; i++) {
        worst = fmax(worst, fabs(got->loss[i] - want->loss[i]) / want->loss[i]);
    }
    print_message("%s: loss %.4f -> %.4f, off by %.1e\n", name, want->loss[0],
                  want->loss[want->steps - 1], worst);
    if (!(worst <= limit)) fail_msg("%s: %g off, at most %g expected", name, worst, limit);
}

static void check_pair(const char *routing, const char *tuning)
{
    struct curve cpu = {0}, first = {0}, second = {0};
    char name[64];
    snprintf(name, sizeof name, "%.20s x %.20s", routing, tuning);
    train_on(&cpu, "cpu", routing, tuning, "--dtype f32 --device cpu");
    const struct train_result r =
        train_on(&first, "device", routing, tuning, "--dtype f32 --device cuda");
#ifdef EMULATED
    assert_true(emulate_launches() > 0);
#endif
    device_order(7);
    const struct train_result again =
        train_on(&second, "again", routing, tuning, "--dtype f32 --device cuda --recompute");
    device_order(0);
    check_same_folder(r.exported, again.exported); // recomputation changes no bit, either
    check_curves(&first, &cpu, 1e-4, name);
    const size_t n = strlen(r.exported), m = strlen("adapter");
    if (n > m && !strcmp(r.exported + n - m, "adapter")) check_merged(r.exported, routing);
    if (!EVERY_PAIR && strcmp(tuning, "full")) return;
    train_on(&second, "bf16", routing, tuning, "--dtype bf16 --device cuda");
    check_curves(&second, &cpu, 5e-2, "in bf16");
}

struct pair {
    const char *routing, *tuning;
};

static void one_pair(void **item)
{
    const struct pair *p = *item;
    check_pair(p->routing, p->tuning);
}

static struct toy toy;

static int leave_order(void **state)
{
    (void)state;
    device_order(0);
    return 0;
}

static bool open_toy(void)
{
    if (!device_open()) return false;
    toy_open(&toy);
    pairs_write_data(&toy);
    return chdir(toy_path(toy.base, "..")) == 0;
}

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = open_toy};
    static struct pair pairs[MOST_TESTS];
    for (int i = 0; routings[i]; i++) {
        for (int k = 0; tunings[k]; k++) {
            const char *routing = routings[i]->name, *tuning = tunings[k]->name;
            if (!worth_it(routing, tuning)) continue;
            struct pair *p = &pairs[t.count];
            *p = (struct pair){routing, tuning};
            add_test(&t, routing, tuning, one_pair, leave_order, p);
        }
    }
    const int result = run_device_tests(&t, argc, argv);
    if (toy.base[0]) toy_close(&toy);
    return result;
}
