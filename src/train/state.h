// train/state.h - where a run stands, apart from its leaves: state.json in a checkpoint.
#pragma once
#include "io/json.h"

struct train_state {
    int64_t step;        // steps made
    int64_t stage;       // 0-based
    int64_t stage_first; // steps made before this stage
    int64_t updates;     // of the optimizer in this stage: steps that were not skipped
    int64_t skipped, skipped_in_a_row;
    int64_t tokens;    // of all steps
    double best_loss;  // lowest evaluation; NaN: none yet
    int64_t best_step; // 0: none
    int64_t evaluations_since_best;
    bool early;               // the stage ended before its length
    int64_t data, validation; // fingerprints
    json_t *deciding;         // object: options that decide the result; owned
};

bool train_state_write(const struct train_state *s, const char *path, struct error *err);
bool train_state_read(struct train_state *s, const char *path, struct error *err);
bool train_state_parse(struct train_state *s, const char *text, size_t size, const char *where,
                       struct error *err);
void train_state_free(struct train_state *s); // safe on a zeroed one, and twice

// False, naming the first option or file of data that differs.
bool train_state_same_run(const struct train_state *saved, const struct train_state *now,
                          const char *where, struct error *err);
