// moetune.h - libmoetune: opens a Mixture-of-Experts (or dense) model from a Hugging Face folder, trains it, scores
// it, folds what was learnt into the weights, and saves the result as a folder that transformers loads.
//
//   struct moetune_error err;
//   struct moetune *m = moetune_open("OLMoE-1B-7B-0924", &err);
//   if (!m) ...                                       // err.message is one line
//   moetune_set(m, "data", "train.jsonl", &err);      // the options of `moetune train`, by their names
//   moetune_set(m, "tuning", "lora", &err);
//   moetune_set(m, "out", "run", &err);
//   moetune_train(m, &err);
//   moetune_score(m, "held-out.jsonl", &err);
//   moetune_merge(m, &err);
//   moetune_save(m, "merged", &err);
//   moetune_close(m);
//
// docs/example.c is a whole program. Options, their defaults and what they mean: moetune(1), or `moetune train --help`.
//
// Rules
// - Functions that can fail return false or NULL and leave one line in *err, which may be NULL. A handle is as it was
//   before the call then, and can be used or closed.
// - All texts are UTF-8, NUL-terminated, and copied where they are kept. Losses are in nats for each token.
// - What a pointer that is returned points to belongs to the handle, and is there until the next call with the
//   same handle. It is read by the names of its fields alone: fields may be added at the end in later versions.
// - A process does one call at a time, whatever the handle: threads of the matrix products ("threads"), their type
//   ("products") and the log's callback belong to the process. Calls from different threads one after another are fine.
// - The library never prints, never exits, installs no signal handler, and needs no locale: numbers are read and
//   written with a point whatever the caller has set. A bug of its own ends the process through assert.
// - Weights are read where their files are mapped. A file that is cut while it is in use, or that the disk cannot give,
//   is SIGBUS in the caller's process, which may catch it (the program `moetune` does) but cannot go on with the call.
#ifndef MOETUNE_H
#define MOETUNE_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MOETUNE_API __attribute__((visibility("default")))
#else
#define MOETUNE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct moetune; // a model, the options of what is done with it, and what was learnt

struct moetune_error {
    char message
        [1024]; // what, where (a file and line, an option or a tensor), what was found and expected
};

struct moetune_step {    // of a training run; NaN: not measured in this step
    int64_t step, steps; // 1-based, of all
    int64_t tokens;      // of this step, prompts included
    int64_t skipped;  // steps that were skipped so far, for a loss or gradient that was not finite
    double loss;      // mean over the step's learnt tokens
    double eval_loss; // of "validation"
    double lr, grad_norm;              // learning rate; norm of all gradients before clipping
    double tokens_per_second, seconds; // of this step
};

struct moetune_result {     // of a training run; NaN: not measured
    bool stopped;           // the step callback asked for it: saved, to go on with "resume"
    bool early;             // no improvement any more ("patience")
    int64_t step, steps;    // where it stands, of all
    int64_t skipped;        // as above
    double loss, eval_loss; // of the last step, of the last evaluation
    double best_loss;       // the lowest eval_loss
    int64_t best_step;      // where that was; 0: nowhere
    const char *folder;     // "OUT/adapter" or "OUT/model"; "" if stopped
};

struct moetune_loss {
    double loss;    // mean cross-entropy over the learnt tokens; perplexity is exp(loss)
    int64_t learnt; // tokens that carry loss
    int64_t tokens; // all of them
    int64_t examples;
};

enum moetune_level { MOETUNE_INFO, MOETUNE_WARNING };

// "0.1.0", as `moetune --version`.
MOETUNE_API const char *moetune_version(void);

// Opens `folder` (config.json, *.safetensors, tokenizer.json): reads config.json, and checks name, shape and type of
// every tensor. The weights are mapped when they are used, nothing large is allocated. NULL and *err on failure.
// The handle is the caller's, for moetune_close.
MOETUNE_API struct moetune *moetune_open(const char *folder, struct moetune_error *err);

// Ends a handle; NULL is allowed. What was written stays.
MOETUNE_API void moetune_close(struct moetune *m);

// Sets an option of `moetune train` by its name on the command line without the dashes ("lora-rank") to a value as it
// is typed there ("32"; "true" or "false" for a switch). It takes the place of the values that the option had; of
// "data" and "validation", which may have several files, moetune_add adds one more. NULL: the default again.
// moetune_score and moetune_save use those that `moetune eval` and `moetune merge` have too ("template", "max-length",
// "dtype", "threads", ...). Fails where there is no such option or the value is not allowed; what depends on other
// options or on files is checked when it is used. "model" and "config" are set by moetune_open and moetune_read;
// "adapter" (a folder) puts an adapter on the model, from which training goes on.
MOETUNE_API bool moetune_set(struct moetune *m, const char *name, const char *value,
                             struct moetune_error *err);
MOETUNE_API bool moetune_add(struct moetune *m, const char *name, const char *value,
                             struct moetune_error *err);

// Sets all options that a YAML file (as for --config) or a run.json holds, but "model", which stays.
MOETUNE_API bool moetune_read(struct moetune *m, const char *file, struct moetune_error *err);

// Called after each step of moetune_train, from the thread that called it: false saves a checkpoint and ends the run.
// `step` is there for the length of the call. NULL: nobody.
MOETUNE_API void moetune_on_step(struct moetune *m,
                                 bool (*step)(void *user, const struct moetune_step *step),
                                 void *user);

// Called while moetune_score or an evaluation within moetune_train goes on, with micro-batches done and in all. NULL:
// nobody.
MOETUNE_API void moetune_on_progress(struct moetune *m,
                                     void (*progress)(void *user, int64_t done, int64_t of),
                                     void *user);

// Notes and warnings of the whole process, a line without its end each. NULL, as at first: silence.
MOETUNE_API void moetune_on_log(void (*log)(void *user, enum moetune_level level, const char *line),
                                void *user);

// Trains on the examples of "data" with the options that are set, and writes the run's folder "out" (run.json,
// metrics.jsonl, checkpoints, the result) as `moetune train` does. Afterwards the handle is the result: base and adapter,
// or the model of the folder. Of a run that was stopped, it is still what it was. Options about routing count for the
// next training alone, since what is saved says how it is routed. NULL on failure.
MOETUNE_API const struct moetune_result *moetune_train(struct moetune *m,
                                                       struct moetune_error *err);

// The loss of the model as it stands, on the examples of one file, read with the options of the data ("template",
// "loss-on", "max-length", "limit", ...). NULL on failure, and where no token carries loss.
MOETUNE_API const struct moetune_loss *moetune_score(struct moetune *m, const char *file,
                                                     struct moetune_error *err);

// From here on what moetune_save writes is a whole model, the adapter folded into its weights and rounded to their
// stored type: a plain folder for any reader. Takes no time by itself and writes nothing. Fails where there is no
// adapter. The handle still computes with base and adapter; to train on from the merged model, open what was saved.
MOETUNE_API bool moetune_merge(struct moetune *m, struct moetune_error *err);

// Writes what the handle is into the new (or empty) folder `folder`, which appears whole or not at all: the adapter
// where there is one that was not merged (PEFT's layout for lora and dora), else the whole model with the side files of
// the base. A routing's state goes with it.
MOETUNE_API bool moetune_save(struct moetune *m, const char *folder, struct moetune_error *err);

#ifdef __cplusplus
}
#endif
#endif
