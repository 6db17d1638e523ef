// io/safetensors_header.h - the grammar of a safetensors header, for safetensors.c only.
#pragma once
#include "io/safetensors.h"

// Appends the entries of the header's JSON text to st->entry in file order (names, dtype names, shapes
// and offsets as written, not yet checked against each other) and sets st->metadata.
bool safetensors_read_header(struct safetensors *st, const char *text, size_t size,
                             struct error *err);
