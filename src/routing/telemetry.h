// routing/telemetry.h - what the experts of each MoE layer did, from the counts that the forward pass has
// anyway. Arithmetic on host arrays.
#pragma once
#include "io/json.h"
#include "model/config.h"

// usage (L,E): the load, rows that each expert got (docs/FORMATS.md). Adds arrays with one value for each MoE
// layer, all 0 where there was no load:
//   top_share  share of the load of the K busiest experts
//   cover80    the fewest experts that cover 80 % of the load
//   gini       METHODS' formula, from 0 (level) to (E - 1) / E (one expert has all)
//   entropy    -sum_e share_e log share_e / log E, from 1 (level) to 0 (one expert has all); 0 where E = 1
//   dead       experts that got no row
void telemetry_add(json_t *out, const struct model_config *c, const float *usage);
