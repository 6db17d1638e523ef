// io/model_template.h - a model's own chat template: found in its folder, run by io/jinja.h, and the text
// taken apart into segments: which words are the assistant's, which bytes the template wrote.
#pragma once
#include "base/error.h"
#include "io/template.h"
#include "io/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

// Is there one? By the files' presence and key alone; an unreadable file is an error.
bool model_template_exists(bool *found, const char *model_dir, struct error *err);
// chat_template.jinja (with additional_chat_templates/tool_use.jinja), else `chat_template` in
// tokenizer_config.json: a text, or named ones of which `default` and (with tools) `tool_use` are taken.
// NULL and err where there is none or it is malformed. `t` must outlive it.
struct model_template *model_template_open(const char *model_dir, const struct tokenizer *t,
                                           struct error *err);
void model_template_close(struct model_template *m);

// As chat_template.render, of the model's own. The assistant's words are what {% generation %} blocks
// write; without such blocks they are found turn by turn, as docs/FORMATS.md says.
bool model_template_render(struct model_template *t, struct segments *out, const struct message *m,
                           int64_t n, bool generate, struct error *err);
