// eval/report.h - what a run did, as one page: run_data.h in, HTML out. Nothing is computed here that a run's
// folder does not hold.
#pragma once
#include "base/mem.h"
#include "eval/run_data.h"

// Served while the run goes on, a page asks again by itself; of a run that has ended it says so, and asks no more.
enum report_use { REPORT_FILE, REPORT_SERVED };

// The whole page; buf_free.
bool report_page(struct buf *out, const struct run_data *r, enum report_use use, struct error *err);
// The page that is served in place of one where the folder holds no run any more: asks again, too.
bool report_no_run(struct buf *out, const char *words, struct error *err);
// A line of names, then one of numbers for each step; empty where there is none.
bool report_csv(struct buf *out, const struct run_data *r, struct error *err);
