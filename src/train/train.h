// train/train.h - the training run: stages, steps, evaluation, checkpoints, metrics. Knows a model only
// through model.h and what learns only as leaves.
//
// The life of a run, as a program drives it:
//   run_folder_check   before anything costs time: is `out` free for this run?
//   trainer_open       opens the model (nothing large allocated, nothing written), counts the steps
//   plan_make          what will learn, on how many tokens, in how much memory and disk
//   trainer_run        locks the folder, allocates, resumes, trains, saves, exports
//   trainer_close
#pragma once
#include "io/dataset.h"
#include "model/model.h"

enum schedule { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_COSINE_FLOOR };
const char *schedule_name(enum schedule s); // "cosine-floor"
bool schedule_find(enum schedule *s, const char *name, struct error *err);

// How one stage trains. Every field is an option of the command line; defaults stand in cli/options_training.c.
struct train_options {
    int64_t batch_tokens;    // tokens of a micro-batch (packed); 0: use batch_sequences
    int64_t batch_sequences; // examples of a micro-batch when not packed by tokens
    int64_t accumulate;      // micro-batches of an optimizer step
    double epochs;           // passes over the data, may be fractional; ignored when max_steps > 0
    int64_t max_steps;
    int64_t max_tokens; // steps until so many tokens were seen, within a pass; 0: by the others
    double lr, weight_decay, beta1, beta2, eps, clip; // clip 0: none
    enum schedule schedule;
    double min_lr_rate; // floor of cosine-floor, as a share of lr
    int64_t warmup_steps;
    double warmup_ratio; // of all steps, rounded up; used when warmup_steps is 0
    uint64_t seed;
    bool shuffle;
    int64_t eval_every; // steps; 0: only at the end
    bool eval_first;    // evaluate once before anything learns
    int64_t patience;   // evaluations without improvement before an early stop; 0: never
};

// The learning rate of step s (0-based) of `steps`.
int64_t schedule_warmup(const struct train_options *o, int64_t steps); // steps of warm-up
double schedule_lr(const struct train_options *o, int64_t s, int64_t steps);

// Do the ways in which leaves are kept go with each other, the options and the backend?
bool train_storage_check(const struct model_setup *m, const struct train_options *o,
                         struct error *err);

// What a stage trains with: a run is a list of them, and resumes within each.
struct stage {
    const char *name;
    struct model_setup setup; // routing and tuning of this stage; max_tokens is set by the trainer
    struct train_options options;
    int64_t phase; // of the routing
    // At the stage's end, in the run's folder: where a scoring tuning writes its selection, and where the
    // model goes from which the next stage starts (its setup.dir). NULL: nothing.
    const char *selection, *base;
};

struct train_step {
    int64_t step, steps; // 1-based, of all
    int64_t stage;       // 0-based
    // NaN: loss and grad_norm of a step that was skipped for them; eval_loss where nothing was evaluated.
    double loss, lr, grad_norm, tokens_per_second, seconds, eval_loss;
    int64_t tokens;  // of this step, prompts included
    int64_t skipped; // steps skipped so far
    double
        eval_before; // of the first step that learns: the loss before it, where asked for; else NaN
    // What stands under `routing` in metrics.jsonl; NULL: the model has no experts. Lives as long as the call.
    const json_t *routing;
    const json_t *experts; // the same under `experts`, in some steps only; NULL: not in this one
};

// Told about the run as it goes; for progress bars and tests. All optional.
struct train_step;
struct train_listener {
    void *user;
    void (*start)(void *user, int64_t step,
                  int64_t steps);                         // before step 1; step > 0: resumed there
    void (*step)(void *user, const struct train_step *s); // evaluated, not yet saved
    void (*evaluating)(void *user, int64_t done, int64_t of); // micro-batches
    void (*saving)(void *user, const char *path); // before a checkpoint or the export is written
};

struct run {
    const char *out; // the run's folder
    const struct stage *stage;
    int64_t n_stages;
    const struct dataset *data;
    const struct dataset *validation; // NULL: none
    int64_t save_every;               // steps; 0: only at the end and when stopped
    int64_t
        keep_last; // newest checkpoints to keep, at least 1; the best stays, too, where it is older
    bool export_best; // export the weights of the lowest eval_loss instead of the last
    bool merge;       // the result is a model's folder also where the tuning makes an adapter
    bool resume, overwrite;
    bool changes; // at the end, say which weights moved (changes.json): reads all that learnt once
    // JSON object texts. options: all resolved options, saved as run.json. deciding: those that decide
    // the result, by name; a resume where one differs is refused by that name. NULL: none.
    const char *options, *deciding;
    const char *plan;                      // JSON object text, saved as plan.json; NULL: none
    const struct train_listener *listener; // NULL: nobody
    // Asked between steps: true saves and ends the run as a signal does. NULL: signals are caught, and ask.
    bool (*stop)(void *user);
    void *stop_user;
};

// The experts' load and the routing's own numbers since the last call (docs/FORMATS.md, "metrics.jsonl"); *out is
// NULL where there are none. json_decref.
// *experts: what there is of each expert; experts NULL: not wanted.
bool routing_report(json_t **out, struct model *m, json_t **experts, struct error *err);
// As it is written: finite numbers of six digits, on one line. mem_free.
char *routing_report_text(const json_t *report);

// False if `out` holds a run and neither resume nor overwrite is set, cannot be written, or is in use.
// Writes nothing that stays.
bool run_folder_check(const char *out, bool resume, bool overwrite, struct error *err);

struct trainer; // train/trainer.c
// NULL and err on failure. The run and all it points to must outlive the trainer.
struct trainer *trainer_open(const struct run *r, struct error *err);
void trainer_close(struct trainer *t); // NULL is allowed
struct model *trainer_model(struct trainer *t);
bool trainer_makes_adapter(const struct trainer *t); // and no model's folder

// What learns, grouped by module: "mlp.experts.gate_proj" over all layers and experts.
struct plan_module {
    char name[NAME_MAX_LENGTH];
    int64_t tensors, parameters;
};

struct plan_data {
    int64_t examples, tokens, supervised, micro_batches; // micro-batches of the first epoch
};

struct plan {
    size_t by_purpose[PURPOSE_COUNT]; // private memory in bytes; names: purpose_name()
    size_t in_host;                   // of the optimizer's, where that is kept in host memory
    size_t total;                     // their sum
    const char *device;               // where that memory is: the backend's name
    size_t device_bytes;              // what that backend must hold of it, its own scratch included
    size_t device_free;               // what it has free now; SIZE_MAX: not known
    size_t mapped;                    // the checkpoint, mapped read-only: shared, not private
    size_t checkpoint_bytes;          // of one checkpoint
    int64_t checkpoints;              // on disk at the same time, at most
    size_t export_bytes;
    size_t disk;                  // all that the run will write, at its peak
    int64_t disk_free;            // where it will be written; -1: unknown
    int64_t learning, parameters; // that learn, and in all
    bool at_most;                 // what learns is chosen on the way: no more than this
    struct plan_module *module;   // those that learn, in the model's order
    int64_t n_modules;
    struct plan_data data, validation;
    int64_t steps, warmup_steps;
    int64_t batch_tokens; // of the largest micro-batch
};
bool plan_make(struct plan *p, const struct trainer *t, struct error *err);
void plan_free(struct plan *p);

// STOPPED: as asked (a signal), after saving what was done; before step 1 that is nothing.
enum train_outcome { TRAIN_DONE, TRAIN_STOPPED };

struct train_result {
    enum train_outcome outcome;
    bool began;          // the folder was this run's; what follows holds
    bool early;          // done because of `patience`
    int64_t step, steps; // where it stands, of all
    int64_t skipped;
    double loss, eval_loss, best_loss; // last loss, last evaluation, lowest evaluation; NaN: none
    int64_t best_step;                 // 0: none
    double seconds;                    // of this session, from the lock to the result
    char exported[4096];               // the folder of the result; "" if stopped
};

// Unless the run has a `stop` of its own, SIGINT and SIGTERM are caught while this runs: the step under way
// ends, a checkpoint is saved (of step 0 there is none) and the outcome is TRAIN_STOPPED; a second signal ends the process at once.
bool trainer_run(struct trainer *t, struct train_result *result, struct error *err);
