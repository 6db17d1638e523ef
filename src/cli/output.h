// cli/output.h - where a command writes: results on one stream, words for people on another. Text that
// comes from files or models goes through output_safe, so that no control character of it ever reaches
// a terminal.
#pragma once
#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct output {
    FILE *result; // stdout
    FILE *people; // stdout, or stderr with --json
    FILE *status; // stderr: progress, notes
    bool result_terminal, people_terminal, status_terminal;
    bool json, quiet;
};

// C0 (but \n and \t), DEL, C1 and invalid UTF-8 appear as \xNN.
void output_safe(FILE *f, const char *text, size_t size);
bool output_json(struct output *io, json_t *line,
                 struct error *err); // one line; takes the reference
// "12.3 GiB", "4,096"; `text` holds 32 bytes. Returns text.
const char *format_bytes(char *text, uint64_t bytes);
const char *format_count(char *text, int64_t n);
const char *format_seconds(char *text, double seconds); // "1 h 02 min", "3 min 10 s", "42 s"
