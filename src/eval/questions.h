// eval/questions.h - what a model is asked and what the answer should be: from data files in the form of the
// LLM-Adapters benchmarks, or from examples of a dataset.
#pragma once
#include "eval/extract.h"
#include "io/dataset.h"

struct question {
    const int32_t *id; // the prompt's; NULL without a tokenizer
    int64_t n_id;
    const char *prompt; // as text
    const char *reference;
    enum answer_kind kind;
    const char *file;
    int64_t line;
};

struct questions {
    struct question *question;
    int64_t count, capacity;
    struct tokens ids; // of all prompts
    int64_t bad;       // left out, with skip_bad
    bool owns_texts;
};

struct question_options {
    const char *const *files; // JSON arrays or JSONL; the names must live as long as the questions
    int64_t n_files, limit;   // 0: all
    bool skip_bad;
    unsigned kinds;                    // that a reference may be of: bits 1 << enum answer_kind
    const struct chat_template *chat;  // NULL: the prompt of the released code
    const struct tokenizer *tokenizer; // NULL: texts alone
    struct special_tokens special;
    int64_t max_length; // of a prompt in tokens; a longer one is an error
};

// The fields are `instruction` (or `question`) and `answer`, a text or a number; `input` is not used, as in the
// released code. False and err (file:line: what) where one is missing, empty, or of no kind that is allowed.
bool questions_open(struct questions *q, const struct question_options *o, struct error *err);
// Those of a dataset opened with keep_prompts, which must outlive them; the answer is all of the output.
bool questions_of_dataset(struct questions *q, const struct dataset *d, struct error *err);
void questions_close(struct questions *q);

// The prompt of the released evaluate.py without an input, around the instruction.
bool question_prompt(struct buf *out, const char *instruction);
