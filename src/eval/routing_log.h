// eval/routing_log.h - the released ESFT's routing logs: expert_weights_<layer>.txt, in a folder or in rank_*/ below
// it. A line is a sequence: the experts of its tokens, one after another, tab-separated; two tabs; their gates.
// The parser works on bytes alone, so that it can be fuzzed.
#pragma once
#include "model/config.h"
#include "tuning/usage.h"

// Adds one file's lines to the layer's sums. `where` starts every message, before the line's number.
bool routing_log_parse(struct expert_usage *u, int64_t layer, const char *text, size_t size,
                       const char *where, struct error *err);
// Opens u; close it. c: the model that the logs are of, which they must fit; NULL: unknown, then u is as large as
// the largest layer and expert ask for.
bool routing_log_read(struct expert_usage *u, const char *dir, const struct model_config *c,
                      struct error *err);
