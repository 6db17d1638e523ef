// eval/run_data.h - a run's folder as a report reads it: the files that a run leaves (docs/FORMATS.md), each of
// which may be missing, be written at this moment, or be another program's. Reads only; knows no model.
#pragma once
#include "eval/run_metrics.h"

enum run_state {
    RUN_GOES_ON, // its lock is held
    RUN_DONE,
    RUN_EARLY,   // no improvement any more
    RUN_STOPPED, // by a signal, after saving
    RUN_FAILED,
    RUN_LOST // no result and no lock: killed
};

struct run_data {
    char dir[4096];
    enum run_state state;
    struct run_metrics metrics;
    // Objects; NULL: there is none.
    json_t *options, *plan, *result, *changes, *samples;
    json_t *evals; // array of [file name, object]: what eval --json printed into eval*.json
    json_t *notes; // array of texts: files that could not be read, and why
};

// Reads the folder, or what is new in it: *r is zeroed before the first call. False: it holds no run.
bool run_data_read(struct run_data *r, const char *dir, struct error *err);
void run_data_free(struct run_data *r); // safe on a zeroed one, and twice

// The value as a number, NaN where it is none; as text, NULL where it is none.
double json_number_at(const json_t *o, const char *key);
const char *json_text_at(const json_t *o, const char *key);
