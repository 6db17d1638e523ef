// tests/model/config_text.h - a config.json with some of its members changed, read or refused.
#pragma once
#include "support.h"

#include "base/log.h"
#include "base/mem.h"
#include "io/json.h"
#include "model/families.h"

#include <stdio.h>
#include <string.h>

static char warnings[4096];

static inline void keep_warning(enum log_level level, const char *line, void *user)
{
    (void)user;
    if (level != LOG_WARNING) return;
    const size_t n = strlen(warnings);
    snprintf(warnings + n, sizeof warnings - n, "%s\n", line);
}

// The config with the members of `change` put in ("key": "<remove>" takes one out).
static inline bool parse(const char *config, const char *change, struct model_config *c,
                         struct error *err)
{
    json_t *root = json_parse(config, strlen(config), "config.json", err);
    assert_non_null(root);
    json_t *changes = json_parse(change, strlen(change), change, err);
    if (!changes) fail_msg("%s", err->msg);
    const char *key;
    json_t *value;
    json_object_foreach(changes, key, value)
    {
        const char *text = json_string_value(value);
        if (text && !strcmp(text, "<remove>")) {
            json_object_del(root, key);
        } else {
            json_object_set(root, key, value);
        }
    }
    char *text = json_dumps(root, 0);
    json_decref(changes);
    json_decref(root);
    assert_non_null(text);
    const struct family *family;
    warnings[0] = 0;
    const bool ok = family_parse_config(&family, c, text, strlen(text), "config.json", err);
    mem_free(text);
    return ok;
}

static inline struct model_config good(const char *config, const char *change)
{
    struct model_config c;
    struct error err;
    check_ok(parse(config, change, &c, &err), &err);
    return c;
}

static inline void bad(const char *config, const char *change, const char *needle)
{
    struct model_config c;
    struct error err = {0};
    check_error(parse(config, change, &c, &err), &err, needle);
    check_error(false, &err, "config.json");
}

static inline bool near(float a, double b)
{
    return a == (float)b;
}
