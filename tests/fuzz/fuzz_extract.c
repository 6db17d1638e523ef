// fuzz_extract.c - outputs of models, any bytes: what is extracted lies within them or is a keyword, for every kind of answer,
// and is never an answer and none.
#include "eval/extract.h"

#include "base/mem.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(enum answer_kind kind, const char *text)
{
    struct extracted x;
    struct error err;
    if (!answer_extract(&x, kind, text, &err)) abort();
    const bool right = answer_is_right(&x, kind, text);
    if (right && !x.found) abort();
    if (kind == ANSWER_NUMBER) {
        if (!x.found && !isinf(x.number)) abort();
    } else if (x.found != (x.size > 0) && kind != ANSWER_TEXT) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mem_strndup((const char *)data, size);
    if (!text) return 0;
    const char *part = text;
    size_t n = strlen(text);
    enum answer_kind kind;
    answer_output(&part, &n);
    if (part < text || part + n > text + strlen(text)) abort();
    if (text_rstrip(text, strlen(text)) > strlen(text)) abort();
    for (int i = 0; i < ANSWER_KINDS; i++) {
        check((enum answer_kind)i, text);
    }
    answer_kind_find(&kind, ~0U, text);
    mem_free(text);
    return 0;
}
