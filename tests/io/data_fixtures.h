// tests/io/data_fixtures.h - what the tests of templates and data sets share: the fixtures' tokenizer
// and expected values, written by fixtures/make_data.py, and files of a few lines.
#pragma once
#include "support.h"

#include "base/file.h"
#include "io/dataset.h"
#include "io/json.h"

#include <stdio.h>
#include <string.h>

#define DATA FIXTURES "/data"

static inline json_t *expected_values(const char *part)
{
    struct error err = {0};
    json_t *root = json_parse_file(DATA "/expected.json", 1 << 24, &err);
    check_ok(root != NULL, &err);
    json_t *value = json_incref(json_object_get(root, part));
    json_decref(root);
    assert_non_null(value);
    return value;
}

static inline struct tokenizer *small_tokenizer(void)
{
    struct error err = {0};
    struct tokenizer *t = tokenizer_open(DATA, &err);
    check_ok(t != NULL, &err);
    return t;
}

static inline const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static inline const struct chat_template *template_of(const char *name)
{
    struct error err = {0};
    const struct chat_template *c = chat_template_find(name, &err);
    check_ok(c != NULL, &err);
    return c;
}

// Defaults that most tests change a field or two of.
static inline struct dataset_options small_options(const char *const *file, const char *template)
{
    return (struct dataset_options){.files = file,
                                    .n_files = 1,
                                    .chat = template_of(template),
                                    .special = {.bos = "<bos>", .eos = "<|endoftext|>"}};
}

// A file of this text in a folder of the test's own; returns its path.
static inline const char *file_of(const char *text)
{
    static char path[1100];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/data.jsonl", test_dir());
    check_ok(file_write(path, text, strlen(text), &err), &err);
    return path;
}
