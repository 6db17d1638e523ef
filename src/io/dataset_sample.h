// io/dataset_sample.h - one JSON object of a data file as an example: which format it is, and its
// texts. Knows no template and no tokenizer.
#pragma once
#include "base/mem.h"
#include "io/template.h"
#include "io/tokenizer.h"

#include <jansson.h>

enum sample_kind { SAMPLE_CHAT, SAMPLE_TEXT, SAMPLE_IDS };

// Reused from example to example. Texts point into the JSON value and live as long as it.
struct sample {
    bool
        any_turns; // set before parsing: any role and content, for the model's own template to judge
    enum sample_kind kind;
    struct message *message; // SAMPLE_CHAT
    int64_t count, capacity;
    const char *text;  // SAMPLE_TEXT
    struct tokens ids; // SAMPLE_IDS, with one byte of `learn` per id
    struct buf learn;
};

// `where` ("data.jsonl:12") starts every error.
bool sample_parse(struct sample *s, const json_t *object, const char *where, struct error *err);
void sample_free(struct sample *s);
