// results/document.c - study_tables RESULTS DOCUMENT CHARTS: writes the tables of results/*.jsonl between the markers
// of a Markdown document, and its charts into a folder. The rest of the document stays as it is.
#include "tables.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

const struct table tables[] = {
    {"facts", table_facts, NULL},
    {"kinds", table_kinds, NULL},
    {"layers", table_layers, NULL},
    {"search", table_search, NULL},
    {"learnt-translate", table_learnt, "translate"},
    {"learnt-passive", table_learnt, "passive"},
    {"forgotten-translate", table_forgotten, "translate"},
    {"forgotten-passive", table_forgotten, "passive"},
    {"routed-translate", table_routed, "translate"},
    {"routed-passive", table_routed, "passive"},
    {"pruned-translate", table_pruned, "translate"},
    {"pruned-passive", table_pruned, "passive"},
    {"cost-translate", table_cost, "translate"},
    {"cost-passive", table_cost, "passive"},
    {"sweep", table_sweep, "translate"},
    {"time", table_time, NULL},
    {"chart-use", table_chart, "use"},
    {"chart-sweep", table_chart, "sweep"},
    {"chart-prune-translate", table_chart, "prune-least-translate prune-most-translate"},
    {"chart-prune-passive", table_chart, "prune-least-passive prune-most-passive"},
    {NULL, NULL, NULL},
};

static const char begin[] = "<!-- table: ", close[] = " -->", end[] = "<!-- end -->";

static const struct table *table_named(const char *name, size_t n)
{
    for (const struct table *t = tables; t->name; t++) {
        if (strlen(t->name) == n && memcmp(t->name, name, n) == 0) return t;
    }
    return NULL;
}

// out <- the document with its tables written anew; used[] counts the tables that it shows.
static bool fill(struct buf *out, const char *text, const char *path, const struct study *s,
                 struct error *err)
{
    for (const char *at = text;;) {
        const char *marker = strstr(at, begin);
        if (!marker) return buf_puts(out, at) || fail(err, "%s: no memory", path);
        const char *name = marker + strlen(begin), *last = strstr(name, close);
        const char *after = last ? strstr(last, end) : NULL;
        const struct table *t = last ? table_named(name, (size_t)(last - name)) : NULL;
        if (!t) return fail(err, "%s: no table '%.40s'", path, name);
        if (!after) return fail(err, "%s: table %s has no %s", path, t->name, end);
        last += strlen(close);
        if (!buf_append(out, at, (size_t)(last - at)) || !buf_puts(out, "\n") ||
            !t->write(out, s, t->task)) {
            return fail(err, "%s: no memory", path);
        }
        at = after;
    }
}

static bool write_document(const struct study *s, const char *path, struct error *err)
{
    char *text;
    size_t size;
    struct buf out = {0};
    if (!file_read(&text, &size, path, 1 << 24, err)) return false;
    const bool ok = fill(&out, text, path, s, err) && file_write(path, out.data, out.size, err);
    buf_free(&out);
    mem_free(text);
    return ok;
}

int main(int argc, char **argv)
{
    struct error err = {""};
    struct study s;
    if (argc != 4) {
        fprintf(stderr, "usage: study_tables RESULTS DOCUMENT CHARTS\n");
        return 2;
    }
    const bool opened = study_open(&s, argv[1], &err);
    s.charts = argv[3];
    const bool ok = opened && charts_write(&s, &err) && write_document(&s, argv[2], &err);
    study_close(&s);
    if (!ok) fprintf(stderr, "study_tables: %s\n", err.msg);
    return ok ? 0 : 1;
}
