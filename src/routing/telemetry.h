// routing/telemetry.h - what the experts of each MoE layer did, from the counts that the forward pass has
// anyway. Arithmetic on host arrays.
#pragma once
#include "io/json.h"
#include "model/config.h"

// usage (L,E): rows that each expert got. Adds arrays with one value for each MoE layer:
//   top_share  share of the load of the K busiest experts
//   cover80    how many experts cover 80 % of the load
//   gini       0 (level) to 1 (one expert has all);   entropy   of the load, over log E: 1 is level
//   dead       experts that got no row
void telemetry_add(json_t *out, const struct model_config *c, const float *usage);
