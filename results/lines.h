// results/lines.h - files of JSON objects, one a line, as `moetune --json` prints them and the study keeps them.
#pragma once
#include "io/json.h"

// An array of the file's objects. NULL: err says why. Free: json_decref.
json_t *lines_read(const char *path, struct error *err);
// o[key] as a number; NaN: it is missing, null, or no number. o may be NULL.
double number_of(const json_t *o, const char *key);
// o[key] as text; "": it is missing or no text.
const char *text_of(const json_t *o, const char *key);
