// lib/settings.h - what a handle of libmoetune was told: options by name, as texts. They are kept apart from a command's
// options because training, scoring and saving are different commands, each with some of them.
#pragma once
#include "cli/options.h"

struct setting {
    char *name, *value;
};

struct settings {
    struct setting
        *item; // in the order in which they came; a list has an item for each of its values
    int64_t count, capacity;
};

const char *settings_get(const struct settings *s, const char *name); // the first value; NULL: none
void settings_clear(struct settings *s, const char *name);
void settings_clear_group(struct settings *s, enum option_group g); // of `train`
// One value more, checked as an option of `train`; without `more` it takes the place of what was there.
bool settings_put(struct settings *s, const char *name, const char *value, bool more,
                  struct error *err);
// All that a YAML file or a run.json says, but for what stands in `but`.
bool settings_read(struct settings *s, const char *path, const char *but, struct error *err);
// Into options that hold the defaults of their command: those that the command has, but for `but` (may be NULL).
bool settings_apply(const struct settings *s, struct options *o, const char *but,
                    struct error *err);
void settings_free(struct settings *s);
