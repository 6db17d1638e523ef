// io/dataset.h - files of examples, turned into token ids with a loss mask. Every example is parsed,
// rendered and tokenized at start, so that a bad line stops a run before it costs anything.
#pragma once
#include "io/template.h"
#include "io/tokenizer.h"

#include <stdbool.h>

enum too_long { TOO_LONG_DROP, TOO_LONG_CUT_LEFT, TOO_LONG_CUT_RIGHT, TOO_LONG_REFUSE };
enum loss_on { LOSS_ON_ASSISTANT, LOSS_ON_ALL, LOSS_ON_LAST }; // which turns carry loss

struct dataset_options {
    const char *const *files; // JSON arrays or JSONL, told apart by content
    int64_t n_files;
    const struct chat_template *chat; // how messages become text
    struct special_tokens special;    // special_tokens_read
    bool
        special_text; // special tokens in `text`, and in messages of the model's template, become ids
    enum loss_on loss_on;
    enum too_long too_long;
    int64_t max_length; // tokens of an example; 0: no limit
    int64_t vocab; // every id must be below it (the model's vocabulary); 0: the tokenizer's size
    int64_t limit; // at most this many examples of all files, in order; 0: all
    bool skip_bad; // count bad examples instead of stopping at the first
    bool keep_prompts; // also keep prompt and reference texts (eval exact)
};

struct example {
    int64_t first, count; // tokens [first, first + count) of the dataset's arrays
    int64_t supervised;   // tokens of it that carry loss, after the shift (the first never does)
    int64_t prompt_count; // tokens before the last answer; count where there is none
    const char *prompt,
        *answer;      // keep_prompts: rendered text up to the last answer, and that answer;
                      // NULL where an example has none (text, input_ids)
    const char *file; // where it came from
    int64_t line;     // 1-based line on which it starts, in a JSON array too
};

struct dataset {
    int32_t *id;    // all tokens, example after example
    uint8_t *learn; // 1: this token is a target
    int64_t n_tokens, supervised;
    struct example *example;
    int64_t count;
    // Examples: too long, shortened, malformed, with no target (left out). A shortened one without a
    // target left is counted in both.
    int64_t dropped, cut, bad, unsupervised;
    char **file; // names that examples point to
    int64_t n_files;
    int64_t token_capacity, example_capacity;
};

// False and err (file:line: what) on a bad example (unless skip_bad), an unreadable file, or when no
// token at all carries loss. `t` may be NULL for files of input_ids alone.
bool dataset_open(struct dataset *d, const struct dataset_options *o, const struct tokenizer *t,
                  struct error *err);
void dataset_close(struct dataset *d);

// The examples of the i-th file alone: a view of d, not to be closed. count 0: none of them is in it.
struct dataset dataset_of_file(const struct dataset *d, int64_t i);

// Moves every example whose hash falls under `fraction` into `held_out` (order kept, seeded), at least
// one and not all. Ownership: held_out has its own arrays.
bool dataset_split(struct dataset *d, struct dataset *held_out, double fraction, uint64_t seed,
                   struct error *err);

// What is in it, for the lines before step 1 and for `inspect --data`.
struct dataset_stats {
    int64_t examples, tokens, supervised;
    double supervised_share;                     // of the tokens
    int64_t shortest, median, p90, p99, longest; // lengths in tokens
};
bool dataset_stats(struct dataset_stats *s, const struct dataset *d, struct error *err);
