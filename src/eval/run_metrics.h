// eval/run_metrics.h - metrics.jsonl as columns of numbers, bounded however long the run is: every step's few
// numbers, and of what there is for each layer and expert so many steps, evenly spread. Reads on where it stopped,
// so that a page that is built again while a run goes on reads only what is new.
#pragma once
#include "io/json.h"

#include <stdbool.h>
#include <stdint.h>

// Rows of `width` floats at some steps. When `most` are there every second one goes, and from then on only every
// second one comes.
struct run_rows {
    int64_t n, width, most, every, seen;
    double *step; // (n)
    float *value; // (n, width)
};

enum run_measure { // one value for each MoE layer, under `routing`; docs/FORMATS.md
    MEASURE_GINI,
    MEASURE_TOP_SHARE,
    MEASURE_COVER80,
    MEASURE_DEAD,
    MEASURE_BIAS_CHANGED,
    MEASURE_CONDENSER_LOAD,
    MEASURE_COUNT
};

enum run_number { // of each step
    NUMBER_STEP,
    NUMBER_STAGE,
    NUMBER_LOSS,
    NUMBER_LR,
    NUMBER_GRAD_NORM,
    NUMBER_TOKENS,
    NUMBER_RATE, // tokens a second
    NUMBER_SECONDS,
    NUMBER_EVAL,
    NUMBER_ROUTER, // the router's losses
    NUMBER_COUNT
};

struct run_metrics {
    int64_t n, capacity;          // lines read
    double *number[NUMBER_COUNT]; // (n) NaN: not there
    double eval_before;           // NaN: not made
    int64_t skipped;
    int64_t layers, experts;  // MoE layers, experts of each; 0: not known
    struct run_rows measures; // (MEASURE_COUNT, layers); NaN: not there
    struct run_rows load;     // (layers, experts) shares of the layer's load
    struct run_rows bias;     // (layers, experts)
    json_t *condensers;       // array of the layers' lists of experts; NULL: none
    double condensers_step;   // at which they were first seen
    int64_t bad;              // lines that are none
    size_t offset;            // bytes read
    bool resumes;             // the next line is the first after those of an earlier call
};

// Reads what is new in the file; a file that was cut (a resumed run) is read from its start. A last line without
// its end is left for the next time. A file that is not there yet has no lines. False: it cannot be read.
bool run_metrics_read(struct run_metrics *m, const char *path, struct error *err);
void run_metrics_free(struct run_metrics *m); // safe on a zeroed one, and twice
