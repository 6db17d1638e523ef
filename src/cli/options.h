// cli/options.h - every option of every command, in one table: parsing, --help, defaults, the keys of a
// YAML file and run.json all read it. A policy's own option is one more row and one more field.
#pragma once
#include "base/dtype.h"
#include "base/error.h"
#include "io/dataset.h"
#include "routing/routing.h"
#include "train/train.h"
#include "tuning/tuning.h"

#include <jansson.h>

enum command {
    COMMAND_TRAIN,
    COMMAND_EVAL,
    COMMAND_GENERATE,
    COMMAND_PLAN,
    COMMAND_INSPECT,
    COMMAND_INIT,
    COMMAND_DUMP,
    COMMAND_TOKENIZE,
    COMMAND_MERGE,
    COMMAND_BENCH,
    COMMAND_EXPERTS,
    COMMAND_REPORT,
    COMMAND_WATCH,
    COMMAND_COUNT
};

struct texts { // the values of a list option
    const char **item;
    int64_t count, capacity;
};

enum expert_select { SELECT_NONE, SELECT_ESFT };
enum expert_prune { PRUNE_NOT, PRUNE_LEAST_USED, PRUNE_MOST_USED, PRUNE_BOTH };
enum correlation { CORRELATION_NOT, CORRELATION_WEIGHTS, CORRELATION_OUTPUTS, CORRELATION_BOTH };
enum eval_task { EVAL_LOSS, EVAL_EXACT, EVAL_MATH, EVAL_CHOICE, EVAL_LOGLIK };
enum master_weights { MASTERS_F32, MASTERS_NONE };
enum export_choice { EXPORT_LAST, EXPORT_BEST };
enum device_choice { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
enum bench_telemetry { TELEMETRY_ON, TELEMETRY_OFF, TELEMETRY_BOTH };

// Everything a command can be told. The modules' own option structs are members, so that a row of the
// table writes straight into the field that its module reads.
struct run_config {
    const char *config; // a YAML file; for init and bench a model's config.json
    const char *model, *adapter, *out, *template, *routing, *tuning, *prompt, *batch, *predictions;
    const char *from_log, *answers;
    const char *file; // tokenize: the one positional argument
    struct texts data, validation, routings, tunings;
    double validation_fraction;
    int dtype;    // enum dtype
    int products; // enum cpu_products
    int device;   // enum device_choice
    int task;     // enum eval_task
    int select;   // enum expert_select
    int64_t threads, seed, examples, tokens, sequence, shard_mb;
    int export;    // enum export_choice
    int telemetry; // enum bench_telemetry
    int64_t save_every, keep_last;
    bool merge, recompute, quiet, json, gradients, decode, special, fused, resume, overwrite;
    bool show_routing;
    int states;  // enum state_type
    int masters; // enum master_weights
    bool fused_backward, offload_states;
    const char *run, *csv; // a run's folder; where report writes its numbers as CSV
    bool report, tensorboard;
    int64_t report_samples, port;
    struct dataset_options dataset;
    struct train_options train;
    struct routing_options routing_options;
    struct tuning_options tuning_options;
    int64_t max_new_tokens, top_k, beams;
    double temperature, top_p;
    struct { // of the command experts
        const char *base, *prune_at, *csv, *charts;
        int prune;       // enum expert_prune
        int correlation; // enum correlation
        int64_t correlation_tokens;
    } experts;
};

enum option_type {
    OPTION_TEXT,   // const char *
    OPTION_TEXTS,  // struct texts; takes all values up to the next option, and repeats
    OPTION_NAME,   // const char *, a name of a registry
    OPTION_NAMES,  // struct texts, names of a registry, separated by commas
    OPTION_CHOICE, // int, index of one of the choices
    OPTION_INT,    // int64_t
    OPTION_REAL,   // double
    OPTION_BOOL    // bool; --name and --no-name
};

enum option_group {
    GROUP_MODEL,
    GROUP_DATA,
    GROUP_ROUTING,
    GROUP_TUNING,
    GROUP_OPTIMIZER,
    GROUP_TRAINING,
    GROUP_GENERATION,
    GROUP_OUTPUT,
    GROUP_MACHINE,
    GROUP_COUNT
};

struct registry {                   // the names an option may take, and what each does
    const char *(*name)(int64_t i); // NULL beyond the last
    const char *(*help)(int64_t i);
};

extern const struct registry routing_registry, tuning_registry, template_registry;

struct option {
    const char *name;
    enum option_type type;
    enum option_group group;
    unsigned commands; // bit 1 << enum command: where it belongs
    size_t field;      // offset in struct run_config
    const char *value; // default, as it would be typed; NULL: none
    const char *help;
    const char *of;   // the names of the routings or tunings (by the group) that read it; NULL: all
    const char *unit; // what stands for the value in --help
    unsigned required; // bits of the commands that cannot do without
    double min, max;   // of a number
    bool decides;      // changes what is learnt: a resumed run must have the same
    const char *const *choices;
    const struct registry *registry;
};

enum { OPTION_ROWS = 256 };
int64_t option_count(void);
const struct option *option_at(int64_t i); // the rows of all files, one after another
int64_t option_index(const struct option *row);

const struct option *option_find(enum command c,
                                 const char *name); // NULL: the command has none such
const char *option_group_name(enum option_group g);
// What it does, for --help: its methods' names stand before it. Valid until the next call.
const char *option_help(const struct option *row);
const char *option_default(const struct option *row); // as people read it; NULL: none
bool option_in(const struct option *row, enum command c);

// One command's options, resolved: flags over file over defaults.
struct options {
    enum command command;
    struct run_config config;
    bool flag[OPTION_ROWS];     // given on the command line
    int file_line[OPTION_ROWS]; // line of the YAML file that gave it, 0: none
    bool
        of_session; // the library's, which stay from one call to the next: some of another method are no error
    char **owned; // texts that did not come from argv
    int64_t n_owned, owned_capacity;
};

// argv without the program's and the command's name. Reads --config too, where the command has a YAML
// file, and for train --resume without --config the run.json of --out.
bool options_parse(struct options *o, enum command c, int argc, char *const *argv,
                   struct error *err);
bool options_given(const struct options *o, const char *name); // by a flag or the file
// Fails where an option was given that neither the routings nor the tunings of the run read (option.of). A file
// may hold options of methods that a flag turned it away from, and defaults of all (run.json does).
bool options_read_by_methods(const struct options *o, const struct texts *routing,
                             const struct texts *tuning, struct error *err);
void options_defaults(struct options *o, enum command c); // what a command starts from
void options_close(struct options *o);
// The same from names and values instead of argv: defaults, then `set` for each (a list takes one value more;
// the text must outlive o), then `complete`, which reads the files and looks for what is missing.
bool options_set(struct options *o, const char *name, const char *value, struct error *err);
bool options_complete(struct options *o, struct error *err);
// Every option with its type, as run.json holds it; or those alone that decide the result. NULL: no
// memory.
json_t *options_json(const struct options *o, bool deciding);
json_t *option_json(const struct options *o, const struct option *row); // its value alone

// For the readers of flags and of files: stores one value. `name` is how errors call the option.
bool option_store(struct options *o, const struct option *row, const char *value, const char *name,
                  struct error *err);
char *options_keep(struct options *o, const char *text,
                   size_t size); // a copy that lives as long as o
void option_clear_list(struct options *o, const struct option *row);

// The bytes of a YAML file (a flat mapping of the same names in snake_case); flags stay as they are.
bool options_read_yaml(struct options *o, const char *text, size_t size, const char *where,
                       struct error *err);

// The name among `names` (NULL-terminated by next returning NULL) nearest to `word`, or NULL.
const char *nearest_name(const char *word, const char *(*next)(void *user, int64_t i), void *user);
// What was meant by an option that `c` does not have: what another program's name is here (cli/foreign.c), or the nearest
// name, "help" too; or NULL.
const char *nearest_option(enum command c, const char *word);
const char *foreign_option(enum command c, const char *word);
const char *foreign_at(int64_t i, const char **here); // the table; NULL after the last

// A whole number, or a real one, independent of the locale: all of the text, nothing else, in range.
bool parse_int(const char *text, double min, double max, int64_t *out);
bool parse_real(const char *text, double min, double max, double *out);
