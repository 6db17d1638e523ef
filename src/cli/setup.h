// cli/setup.h - from resolved options to what the engine opens: the model's setup, the tokenizer, and
// the examples. What several commands need in the same way stands here.
#pragma once
#include "cli/commands.h"
#include "eval/generate.h"
#include "io/dataset.h"
#include "model/model.h"

// Does the routing go with the model? From config.json and the files that the routing's options name (or that
// the model's folder holds), before anything else is read: STATUS_USAGE where it does not, STATUS_FAILED where
// there is no such model.
enum status setup_check(const struct options *o, struct error *err);

// Backend, routing, and (learns) tuning. Settles what the model's folder says of the routing. Configures the
// machine: call before the first op.
bool setup_model(struct model_setup *s, struct options *o, bool learns, struct error *err);
// What the model's folder says of its routing becomes the default of those options (routing_default.c). False,
// too, where it has weights that do not open: a state may lie among them.
bool routing_settle(struct options *o, struct error *err);
void setup_machine(const struct options *o);
// Where the reading of weights is shown that takes time. Call once, before setup_model.
void setup_output(const struct output *io);
// The backend that --device asks for; `auto` without a GPU says so.
bool setup_device(const struct ops **out, const struct options *o, struct error *err);

// The text side of a model folder.
struct text_setup {
    struct model_config config;
    struct tokenizer *tokenizer; // NULL: the folder has none (input_ids need none)
    struct special_tokens special;
    const struct chat_template *chat; // NULL: none asked for
};
bool text_open(struct text_setup *t, const struct options *o, struct error *err);
void text_close(struct text_setup *t);

// The examples of --data. Settles --max-length where it was not given.
bool data_open(struct dataset *d, struct options *o, const struct text_setup *t,
               const struct texts *files, bool keep_prompts, struct error *err);
void data_describe(FILE *f, const char *name, const struct dataset *d); // one line

// Ids that end an answer: the model's, and the one that closes a turn of the template.
bool stop_ids_open(struct tokens *out, const struct text_setup *t, struct error *err);
