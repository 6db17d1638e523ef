// results/tables.h - the tables of docs/RESULTS.md as Markdown, and its charts as SVG files.
#pragma once
#include "study.h"

enum { MOST_METHODS = 32 };

// Writes a table, or the words that its part was not run yet. False: no memory.
typedef bool table_writer(struct buf *out, const struct study *s, const char *task);

struct table {
    const char *name; // in the document: <!-- table: NAME -->
    table_writer *write;
    const char *task; // or the names of charts; NULL: of none
};
extern const struct table tables[]; // ends with a NULL name

// tables_runs.c
table_writer table_learnt, table_routed, table_cost, table_forgotten, table_pruned;
// tables_base.c
table_writer table_facts, table_kinds, table_layers, table_search, table_sweep, table_time;
table_writer table_chart; // charts.c: pictures of the charts named, where they are

extern const char not_run[]; // what stands in place of a table without figures
// A cell: mean ± standard error; one value: itself; none: a dash.
bool put_sample(struct buf *out, const struct sample *x, int decimals, bool sign);
bool put_number(struct buf *out, double x, int decimals);

// Charts that there are figures for, as files in the folder of charts.
bool charts_write(const struct study *s, struct error *err);
