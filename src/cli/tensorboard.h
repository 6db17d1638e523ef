// cli/tensorboard.h - a run's numbers for TensorBoard, in RUN/tensorboard, a file a session. What goes wrong there
// is warned of once and ends no run.
#pragma once
#include "io/event_file.h"
#include "train/train.h"

struct tensorboard {
    struct event_file file;
    bool open;
};
void tensorboard_open(struct tensorboard *t, const char *run, int64_t step); // steps made before
void tensorboard_step(struct tensorboard *t, const struct train_step *s);
void tensorboard_close(struct tensorboard *t); // safe on a zeroed one, and twice
