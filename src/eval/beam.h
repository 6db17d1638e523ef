// eval/beam.h - beam search: of all sequences that `beams` unfinished ones can become, the likeliest are kept,
// and the answer is the finished one with the highest mean log-probability. As transformers' generate() has it with
// num_beams, length_penalty 1 and early_stopping false.
#pragma once
#include "eval/generate.h"

// What generate() does where o->beams is above 1; its checks have been made.
bool beam_search(struct model *m, struct sequence *s, int64_t n, const struct generate_options *o,
                 struct error *err);
