// cli/routing_words.h - what the experts did in a step, in a few words for the progress line.
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

// "cover80 9.5/16, gini 0.41, dead 0, bias 0.012, changed 3 %, condensers 25 %": over the MoE layers the
// means, of dead experts the sum and of the bias the largest; the last three where the routing has them.
// report: a step's numbers (docs/FORMATS.md); NULL gives an empty text.
void routing_words(char *out, size_t size, const json_t *report, int64_t experts);
