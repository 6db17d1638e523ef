// train/trainer.h - the trainer's own view of a run; what others may know is in train.h.
#pragma once
#include "train/checkpoint.h"
#include "train/feed.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/train.h"

enum { STAGES_AT_MOST = 4 };

struct trainer {
    const struct run *run;
    const struct stage *stage;           // the one under way
    const struct train_options *options; // of the stage
    struct model model;                  // open for stage `open`
    int64_t open;                        // -1: for none
    bool allocated;
    bool
        at_most; // when opened: what will learn is chosen on the way, and was measured as the most of it
    size_t peak[PURPOSE_COUNT];       // the plan of the model that needs most
    size_t checkpoint_bytes;          // of the largest checkpoint
    struct feed feed[STAGES_AT_MOST]; // of every stage
    struct packing validation;        // count 0: none
    int64_t batch_tokens;             // of the largest micro-batch, evaluation included
    struct batch batch;
    struct optimizer optimizer;
    struct metrics metrics;
    struct train_state state;
    int lock;
    int64_t saved_step;     // of the newest checkpoint; 0: none
    double loss, eval_loss; // the last ones
};

// The steps of all stages; those of the stage under way, and how many of them are made.
int64_t trainer_steps(const struct trainer *t);
struct feed *trainer_feed(struct trainer *t);
int64_t trainer_stage_step(const struct trainer *t);
// Goes on in this stage: its model is opened and allocated unless that of the stage before serves.
bool trainer_enter_stage(struct trainer *t, int64_t stage, struct error *err);

// The module of a weight, without its layer and expert: "mlp.experts.gate_proj".
void plan_module_name(char out[NAME_MAX_LENGTH], const char *name);

struct saved trainer_saved(const struct trainer *t);

// Mean loss of a token over all supervised tokens of the validation data. Nothing learns or counts.
double trainer_evaluate(struct trainer *t);
// Evaluates, remembers whether it is the best so far and whether the patience is spent.
double trainer_evaluate_step(struct trainer *t);

// One optimizer step: t->state.step + 1, which it becomes. False: it cannot go on.
bool trainer_step(struct trainer *t, struct train_step *s, struct error *err);

// Saves at the state's step and removes what is no longer to be kept.
bool trainer_save(struct trainer *t, struct error *err);
// Goes on from the newest checkpoint that verifies; with none at all, from the beginning.
bool trainer_resume(struct trainer *t, struct error *err);
// out/NAME becomes the model's folder, or its adapter's, as a whole; path: where that is.
bool trainer_write(struct trainer *t, char *path, size_t size, const char *name, bool adapter,
                   struct error *err);
// Writes out/model or out/adapter from the last weights or the best.
bool trainer_export(struct trainer *t, char *path, size_t size, struct error *err);
