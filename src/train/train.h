// train/train.h - the training run: stages, steps, evaluation, checkpoints, metrics. Knows a model only
// through model.h and what learns only as leaves.
#pragma once
#include "io/dataset.h"
#include "model/model.h"

enum schedule { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_COSINE_FLOOR };

// Every field is an option of the command line; defaults stand in cli/options.c.
struct train_options {
    const char *out;              // the run's folder
    int64_t batch_tokens;         // tokens of a micro-batch (packed); 0: use batch_sequences
    int64_t batch_sequences;      // examples of a micro-batch when not packed by tokens
    int64_t accumulate;           // micro-batches of an optimizer step
    double epochs;                // passes over the data; ignored when max_steps > 0
    int64_t max_steps;
    double lr, weight_decay, beta1, beta2, eps, clip; // clip 0: none
    enum schedule schedule;
    double min_lr_rate;           // floor of cosine-floor, as a share of lr
    int64_t warmup_steps;
    double warmup_ratio;          // of all steps; used when warmup_steps is 0
    uint64_t seed;
    bool shuffle;
    int64_t eval_every;           // steps; 0: only at the end
    int64_t save_every;           // steps; 0: only at the end and when stopped
    int64_t keep_last;            // checkpoints to keep besides the best
    int64_t patience;             // evaluations without improvement before an early stop; 0: never
    bool resume, overwrite;
};

// The learning rate of step s (0-based) of `steps`.
double schedule_lr(const struct train_options *o, int64_t s, int64_t steps);

// What a stage trains with: a run is a list of them, and resumes within each.
struct stage {
    const char *name;
    struct model_setup setup; // routing and tuning of this stage
    struct train_options options;
};

// Told about the run as it goes; for progress bars and tests. All optional.
struct train_step;
struct train_listener {
    void *user;
    void (*step)(void *user, const struct train_step *s);
};

struct train_step {
    int64_t step, steps; // 1-based, of all
    int64_t stage;
    double loss, lr, grad_norm, tokens_per_second, seconds, eval_loss; // eval_loss NaN: not evaluated
    int64_t tokens, skipped;
};
