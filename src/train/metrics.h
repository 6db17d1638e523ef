// train/metrics.h - metrics.jsonl: one JSON object a line, one line a step. Numbers are written so that
// they read back exactly and look the same under every locale.
#pragma once
#include "base/append.h"
#include "train/train.h"

struct metrics {
    struct append file;
};
// Keeps the lines of the first `step` steps (0: none) and cuts what follows, a torn line included.
bool metrics_open(struct metrics *m, const char *path, int64_t step, struct error *err);
bool metrics_write(struct metrics *m, const struct train_step *s, struct error *err);
bool metrics_sync(struct metrics *m, struct error *err);
void metrics_close(struct metrics *m);

enum { NUMBER_TEXT = 40 };
// The shortest text that reads back as x; "null" where it is not finite.
void number_text(char out[NUMBER_TEXT], double x);
