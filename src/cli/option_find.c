// cli/option_find.c - rows of the table of options by name, and the registries whose names an option may take.
#include "cli/option_rows.h"

#include <stdio.h>
#include <string.h>

static const char *routing_name(int64_t i)
{
    return routings[i] ? routings[i]->name : NULL;
}

static const char *routing_help(int64_t i)
{
    return routings[i]->help;
}

static const char *tuning_name(int64_t i)
{
    return tunings[i] ? tunings[i]->name : NULL;
}

static const char *tuning_help(int64_t i)
{
    return tunings[i]->help;
}

static const char *template_name(int64_t i)
{
    return chat_templates[i] ? chat_templates[i]->name : NULL;
}

static const char *template_help(int64_t i)
{
    return chat_templates[i]->help;
}

const struct registry routing_registry = {routing_name, routing_help};
const struct registry tuning_registry = {tuning_name, tuning_help};
const struct registry template_registry = {template_name, template_help};

static const struct option_rows *const files[] = {&input_options, &method_options,
                                                  &training_options};
enum { FILES = sizeof files / sizeof *files };

int64_t option_count(void)
{
    int64_t n = 0;
    for (int f = 0; f < FILES; f++) {
        n += files[f]->count;
    }
    return n;
}

const struct option *option_at(int64_t i)
{
    int f = 0;
    while (i >= files[f]->count) {
        i -= files[f++]->count;
    }
    return &files[f]->row[i];
}

int64_t option_index(const struct option *row)
{
    int64_t i = 0;
    while (option_at(i) != row) {
        i++;
    }
    return i;
}

bool option_in(const struct option *row, enum command c)
{
    return (row->commands >> c) & 1U;
}

const struct option *option_find(enum command c, const char *name)
{
    for (int64_t i = 0; i < option_count(); i++) {
        if (option_in(option_at(i), c) && !strcmp(option_at(i)->name, name)) {
            return option_at(i);
        }
    }
    return NULL;
}

const char *option_help(const struct option *row)
{
    static _Thread_local char words[512];
    if (!row->of) return row->help;
    snprintf(words, sizeof words, "%s: %s", row->of, row->help);
    return words;
}

const char *option_default(const struct option *row)
{
    if (row->type != OPTION_BOOL) return row->value;
    return !strcmp(row->value, "true") ? "yes" : "no";
}

const char *option_group_name(enum option_group g)
{
    static const char *const names[GROUP_COUNT] = {
        [GROUP_MODEL] = "model",           [GROUP_DATA] = "data",
        [GROUP_ROUTING] = "routing",       [GROUP_TUNING] = "tuning",
        [GROUP_OPTIMIZER] = "optimizer",   [GROUP_TRAINING] = "training",
        [GROUP_GENERATION] = "evaluation", [GROUP_OUTPUT] = "output",
        [GROUP_MACHINE] = "machine",
    };
    return names[g];
}
