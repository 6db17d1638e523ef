// io/json.h - strict JSON through jansson: UTF-8 checked, duplicate keys refused, depth bounded, and
// typed access whose errors name the file, the key, what was found and what was expected.
#pragma once
#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

// `where` ("config.json" or "data.jsonl:12") starts every message. NULL on error. Free: json_decref.
json_t *json_parse(const char *text, size_t size, const char *where, struct error *err);
json_t *json_parse_file(const char *path, size_t limit, struct error *err);

// A command, or a call of the library, begins: parts that got no memory before it are not of its values (json_text).
void json_begin(void);
// Each returns false only on a wrong type or range; *out keeps its value when the key is missing or
// null unless `required`.
bool json_get_int(const json_t *o, const char *key, int64_t min, int64_t max, bool required,
                  int64_t *out, const char *where, struct error *err);
bool json_get_real(const json_t *o, const char *key, double min, double max, bool required,
                   double *out, const char *where, struct error *err);
bool json_get_bool(const json_t *o, const char *key, bool required, bool *out, const char *where,
                   struct error *err);
// *out points into the JSON value and lives as long as it.
bool json_get_text(const json_t *o, const char *key, bool required, const char **out,
                   const char *where, struct error *err);
// Who builds a value need not look at each part: did all parts of all values that this thread built since the last
// json_whole, or text, get memory? To be asked where a value is used and no text of it is made.
bool json_whole(void);
// As mem_alloc, for numbers on their way into a value: NULL is a part without memory.
void *json_buffer(size_t bytes);
// As json_dumps. NULL: no memory, now or where json_whole says so. Free with mem_free.
char *json_text(const json_t *value, size_t flags);
bool json_write_file(const char *path, const json_t *value,
                     struct error *err); // indented, committed
