// eval/extract.h - the answer in what a model wrote, and whether it is the right one, by the rules of the
// LLM-Adapters benchmarks (Hu et al. 2023, the released evaluate.py and commonsense_evaluate.py). Works on texts
// alone: UTF-8 without NUL.
#pragma once
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

// What an answer may be. A benchmark has one kind, which its references tell.
enum answer_kind {
    ANSWER_TEXT,     // all of the output, white space around it aside
    ANSWER_NUMBER,   // the last number, commas deleted first; right within 0.001
    ANSWER_LETTER,   // the first of A to E (AQuA)
    ANSWER_TRUTH,    // the first of true, false (boolq)
    ANSWER_SOLUTION, // the first of solution1, solution2 (piqa)
    ANSWER_NUMBERED, // the first of answer1 to answer5 (social_i_qa, ARC, openbookqa)
    ANSWER_ENDING,   // the first of ending1 to ending4 (hellaswag)
    ANSWER_OPTION,   // the first of option1, option2 (winogrande)
    ANSWER_KINDS
};

struct extracted {
    bool found;
    double number; // ANSWER_NUMBER: infinity where none is found
    const char
        *text; // the others: not NUL-terminated, of the output or of no one; "" where none is found
    size_t size;
};

// The kind among `allowed` (bits 1 << kind) that the reference is of; false: of none. A reference to a number may
// have commas, and GSM8K's solution in front, which ends in "####".
bool answer_kind_find(enum answer_kind *kind, unsigned allowed, const char *reference);
// out->text points into `output`, or to what lives for ever. False: no memory.
bool answer_extract(struct extracted *out, enum answer_kind kind, const char *output,
                    struct error *err);
bool answer_is_right(const struct extracted *x, enum answer_kind kind, const char *reference);

// The model's part of an output: up to the next "### Response:", white space around it cut off.
void answer_output(const char **text, size_t *size);
// Cuts off what Python's str.strip() does.
void text_strip(const char **text, size_t *size);
size_t text_rstrip(const char *text, size_t size); // the size without the white space at the end
