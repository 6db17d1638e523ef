// model/rope.h - the rotary positions of a model: read from config.json, and as the table of ops->rope.
#pragma once
#include "base/error.h"
#include "io/json.h"
#include "model/config.h"

// rope_theta, rope_scaling (transformers 4) and rope_parameters (5) of a config whose max_positions is
// known. A kind that is not implemented is refused by name; `where` starts every message.
bool rope_read(struct model_config *c, const json_t *root, const char *where, struct error *err);
// frequency (D/2): radians a position, in float32 as transformers computes them.
void rope_frequencies(float *frequency, const struct model_config *c);
// table (positions, D): cosines, then sines.
void rope_table(float *table, int64_t positions, const struct model_config *c);
