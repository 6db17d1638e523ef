// cli/progress.h - how far a long job is: a bar on a terminal, redrawn at most ten times a second, and
// plain lines elsewhere. On stderr always, and nowhere with --quiet.
#pragma once
#include "cli/output.h"

#include <stdbool.h>

struct progress {
    FILE *file; // NULL: quiet
    bool terminal, drawn;
    const char *unit;
    double start, last; // seconds on the monotonic clock
    int64_t first;      // what was done before start
    int columns;
};

double monotonic_seconds(void);
void progress_open(struct progress *p, const struct output *io, const char *unit);
void progress_from(struct progress *p, int64_t done); // a resumed job has done this much already
// `words` (may be NULL) stands beside the bar: "loss 1.234, 512 tokens/s".
void progress_show(struct progress *p, int64_t done, int64_t of, const char *words);
void progress_line(struct progress *p, const char *line); // a line of its own, above the bar
void progress_end(struct progress *p);                    // leaves the terminal clean; safe twice
