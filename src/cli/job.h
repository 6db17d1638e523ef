// cli/job.h - a training run as train, plan and the tests drive it: examples, stages and the trainer,
// opened in that order and described before anything large is allocated.
#pragma once
#include "cli/setup.h"
#include "train/train.h"

struct job {
    struct text_setup text;
    struct dataset data, validation;
    // A run is a list of stages: one that scores, where the tuning needs it, then one for each phase of the
    // routing.
    struct stage stage[4];
    char selection[4096], base[4096]; // what the scoring stage leaves in the run's folder
    int64_t n_stages;
    struct run run;
    char *options, *deciding, *plan_text; // JSON texts; jansson's own allocations
    struct trainer *trainer;
    struct plan plan;
};

// `out`: where the disk's room is looked at; the run's folder.
bool job_open(struct job *j, struct options *o, const char *out,
              const struct train_listener *listener, struct error *err);
void job_close(struct job *j); // safe after a failed open

void job_print_plan(FILE *f, const struct job *j);
json_t *job_plan_json(const struct job *j);
