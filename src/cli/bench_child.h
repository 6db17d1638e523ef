// cli/bench_child.h - what a child process of `bench` measures. Each runs alone in a process of its own,
// so that its memory is its own and nothing is warm that should not be.
#pragma once
#include "cli/options.h"

enum { BENCH_STEPS = 5 };

enum bench_task { BENCH_INIT, BENCH_PRODUCTS, BENCH_TRAINING };

struct bench_job {
    enum bench_task task;
    const struct options *options;
    const char *model; // the temporary folder, or what --model says
    const char *routing, *tuning;
    bool telemetry;
};

struct bench_result { // what a child writes into its pipe
    bool ok;
    struct error err;
    double gflops;        // the yardstick
    double forward_flops; // of the topk forward's products
    double seconds[BENCH_STEPS];
    double load_seconds; // until the weights are where the backend computes
    // Of a device's memory: most that was held, and what the plan says; 0: the backend has none of its own.
    int64_t device_peak, device_plan;
};

void bench_measure(struct bench_result *out, const struct bench_job *job);
