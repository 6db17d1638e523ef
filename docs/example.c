// example.c - libmoetune in one page: trains a LoRA adapter for a model, scores before and after, and saves the model
// with the adapter folded in.
//
//   cc example.c $(pkg-config --cflags --libs moetune) -o example
//   ./example MODEL TRAIN.jsonl HELD-OUT.jsonl OUT STEPS
//
// OUT gets two folders: OUT/run, the run as `moetune train` leaves it, and OUT/merged, a plain model.
#include <moetune.h>

#include <stdio.h>
#include <stdlib.h>

static bool show_step(void *user, const struct moetune_step *s)
{
    (void)user;
    printf("step %lld of %lld: loss %.4f\n", (long long)s->step, (long long)s->steps, s->loss);
    return true; // false would save and stop
}

static void show_log(void *user, enum moetune_level level, const char *line)
{
    (void)user;
    fprintf(stderr, "%s%s\n", level == MOETUNE_WARNING ? "warning: " : "", line);
}

// The options of `moetune train`, by the same names.
static bool set_options(struct moetune *m, char **argv, const char *run, struct moetune_error *err)
{
    return moetune_set(m, "data", argv[2], err) && moetune_set(m, "out", run, err) &&
           moetune_set(m, "max-steps", argv[5], err) && moetune_set(m, "tuning", "lora", err) &&
           moetune_set(m, "lora-rank", "8", err) && moetune_set(m, "lora-alpha", "16", err) &&
           moetune_set(m, "lr", "1e-2", err);
}

static bool score(struct moetune *m, const char *when, const char *file, struct moetune_error *err)
{
    const struct moetune_loss *s = moetune_score(m, file, err);
    if (!s) return false;
    printf("%s: loss %.4f over %lld tokens\n", when, s->loss, (long long)s->learnt);
    return true;
}

static bool work(struct moetune *m, char **argv, struct moetune_error *err)
{
    char run[4096], merged[4096];
    snprintf(run, sizeof run, "%s/run", argv[4]);
    snprintf(merged, sizeof merged, "%s/merged", argv[4]);
    return set_options(m, argv, run, err) && score(m, "before", argv[3], err) &&
           moetune_train(m, err) && score(m, "after", argv[3], err) && moetune_merge(m, err) &&
           moetune_save(m, merged, err);
}

int main(int argc, char **argv)
{
    struct moetune_error err;
    if (argc != 6) {
        fprintf(stderr, "usage: example MODEL TRAIN.jsonl HELD-OUT.jsonl OUT STEPS\n");
        return EXIT_FAILURE;
    }
    moetune_on_log(show_log, NULL);
    struct moetune *m = moetune_open(argv[1], &err);
    if (m) moetune_on_step(m, show_step, NULL);
    const bool ok = m && work(m, argv, &err);
    moetune_close(m);
    if (!ok) fprintf(stderr, "example: %s\n", err.message);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
