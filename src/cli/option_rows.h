// cli/option_rows.h - what the files of option rows share. Adding an option is adding a field to the struct of the
// module that reads it, and a row: --help, YAML, run.json and the checks of its value follow.
// A row: name, type, group, commands, field, default, then what only some need.
#pragma once
#include "cli/options.h"

enum {
    TRAIN = 1 << COMMAND_TRAIN,
    EVAL = 1 << COMMAND_EVAL,
    GENERATE = 1 << COMMAND_GENERATE,
    PLAN = 1 << COMMAND_PLAN,
    INSPECT = 1 << COMMAND_INSPECT,
    INIT = 1 << COMMAND_INIT,
    DUMP = 1 << COMMAND_DUMP,
    TOKENIZE = 1 << COMMAND_TOKENIZE,
    MERGE = 1 << COMMAND_MERGE,
    BENCH = 1 << COMMAND_BENCH,
    EXPERTS = 1 << COMMAND_EXPERTS,
    REPORT = 1 << COMMAND_REPORT,
    WATCH = 1 << COMMAND_WATCH,
    TRAINING = TRAIN | PLAN,
    RUNNING = TRAINING | EVAL | GENERATE | DUMP | EXPERTS, // open a whole model
    ROUTED = RUNNING | MERGE | BENCH,                      // a routing's own options
    TUNED = TRAINING | DUMP | BENCH,                       // a tuning's
    READING = TRAINING | EVAL | INSPECT | EXPERTS,         // read examples
    LOOKING = REPORT | WATCH,                              // at a run's folder
    ALL = (1 << COMMAND_COUNT) - 1
};

#define FIELD(name) offsetof(struct run_config, name)

struct option_rows {
    const struct option *row;
    int64_t count;
};
extern const struct option_rows input_options, method_options, training_options;
