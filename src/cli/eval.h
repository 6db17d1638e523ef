// cli/eval.h - what the tasks of `eval` share: cmd_eval.c opens and closes it, a file a kind of task fills it.
#pragma once
#include "base/file.h"
#include "cli/progress.h"
#include "cli/setup.h"
#include "eval/score.h"

struct evaluation {
    struct options *o;
    struct output *io;
    struct text_setup *text;
    struct model model;
    struct file_writer predictions; // fd -1: none
    struct score_listener listener; // shows progress
    struct progress progress;
};

bool eval_open_model(struct evaluation *e, int64_t max_tokens, int64_t cache_rows,
                     struct error *err);
bool eval_open_predictions(struct evaluation *e, struct error *err);
// One line of predictions, where there are any; takes the reference.
bool eval_predict(struct evaluation *e, json_t *line, struct error *err);
bool eval_commit_predictions(struct evaluation *e, struct error *err);

bool eval_answers(struct evaluation *e, struct error *err); // eval_answers.c: exact, math, choice
bool eval_loglik(struct evaluation *e, struct error *err);  // eval_loglik.c
