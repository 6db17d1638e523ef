// eval/report_parts.h - the sections of the page, a file each. Internal to report*.c.
#pragma once
#include "eval/report.h"
#include "eval/svg.h"

enum { STAGES_SHOWN = 8, LABEL = 64 };

void report_head(struct html *h, const struct run_data *r);   // title, verdict, the few numbers
void report_steps(struct html *h, const struct run_data *r);  // loss, rate, norm, speed
void report_memory(struct html *h, const struct run_data *r); // the plan
void report_experts(struct html *h, const struct run_data *r);
void report_changes(struct html *h, const struct run_data *r);
void report_scores(struct html *h, const struct run_data *r); // before and after, and samples
void report_options(struct html *h, const struct run_data *r);
// Sections that are not always there.
bool report_has_experts(const struct run_data *r);
bool report_has_changes(const struct run_data *r);
bool report_has_memory(const struct run_data *r);

// The first step of each stage after the first, with its name. Returns how many; mark[].label lives in `label`.
int64_t report_stage_marks(struct svg_mark mark[STAGES_SHOWN], char label[STAGES_SHOWN][LABEL],
                           const struct run_data *r);
// The last part of a path, or the last two where it is short; "" where there is none.
const char *report_base_name(const char *path);

struct loss_change { // how far the loss fell
    double before, after;
    bool
        validation; // of the validation data; else of training steps, means over `steps` at each end
    int64_t steps;
};
struct loss_change report_loss_change(const struct run_data *r);
double report_last_eval(const struct run_data *r); // NaN: none
