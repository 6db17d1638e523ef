// cli/commands.h - the commands, one row each. A command gets its resolved options and the streams; its
// failures travel in struct error, and only main.c turns them into a line and an exit status.
#pragma once
#include "cli/options.h"
#include "cli/output.h"

enum status { STATUS_DONE = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_STOPPED = 130 };

struct command_row {
    const char *name, *summary;
    const char *usage;    // what follows the name
    const char *examples; // lines, indented by two
    enum status (*run)(struct options *o, struct output *io, struct error *err);
};
extern const struct command_row commands[COMMAND_COUNT];

enum status command_train(struct options *o, struct output *io, struct error *err);
enum status command_eval(struct options *o, struct output *io, struct error *err);
enum status command_generate(struct options *o, struct output *io, struct error *err);
enum status command_plan(struct options *o, struct output *io, struct error *err);
enum status command_inspect(struct options *o, struct output *io, struct error *err);
enum status command_init(struct options *o, struct output *io, struct error *err);
enum status command_dump(struct options *o, struct output *io, struct error *err);
enum status command_tokenize(struct options *o, struct output *io, struct error *err);
enum status command_merge(struct options *o, struct output *io, struct error *err);
enum status command_experts(struct options *o, struct output *io, struct error *err);
enum status command_report(struct options *o, struct output *io, struct error *err);
enum status command_watch(struct options *o, struct output *io, struct error *err);
enum status command_bench(struct options *o, struct output *io, struct error *err);

// -1: no such command; then *near (may be NULL) is what was meant, perhaps.
int command_find(const char *name, const char **near);
void help_commands(FILE *f);
void help_command(FILE *f, enum command c);
void help_all(FILE *f); // every option and where it belongs
void manual(FILE *f);   // moetune(1), for troff
// What a shell reads to complete commands, options and values. False: no such shell is known.
bool completion(FILE *f, const char *shell);
extern const char completion_shells[]; // "bash|zsh|fish"
