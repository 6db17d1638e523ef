// eval/answers.h - a model's answers to questions, or outputs that were stored earlier, judged one by one.
#pragma once
#include "eval/generate.h"
#include "eval/questions.h"
#include "eval/score.h"

// One answer, for who writes it down. Texts live until the call returns.
struct judged {
    const struct question *question;
    const char *output; // as the rules take it: without white space around it
    struct extracted extracted;
    bool right, stopped; // stopped: by a stop id, not by the limit of new tokens
    int64_t tokens;      // generated; 0 where the output was given
};

struct answers_score {
    int64_t right, unparsed, stopped, count; // unparsed: no answer found, which is wrong
};

struct answers_options {
    int64_t max_new_tokens, beams; // beams: as in generate_options
    int64_t side_by_side;          // sequences
    const struct tokens *stop;
    const struct tokenizer *tokenizer;
    bool (*judged)(void *user, const struct judged *j, struct error *err); // in order; NULL: nobody
    void *user;
};

// Rows of the KV cache, and rows of a batch, that answers_generate needs at most.
int64_t answers_cache_rows(const struct questions *q, const struct answers_options *o);
int64_t answers_lanes(const struct answers_options *o);
// The greedy answers of a model.
bool answers_generate(struct answers_score *out, struct model *m, const struct questions *q,
                      const struct answers_options *o, const struct score_listener *l,
                      struct error *err);
// The outputs in a file of predictions, JSON or JSONL, one for each question in the same order: its `output_pred`
// (as the released code writes it), else its `output`.
bool answers_stored(struct answers_score *out, const char *file, const struct questions *q,
                    const struct answers_options *o, struct error *err);

// Standard error of a share of n: the sample's standard deviation over the root of n, as lm-evaluation-harness has
// it. 1.96 of them are a 95 % interval, near enough.
double standard_error(double share, int64_t n);
