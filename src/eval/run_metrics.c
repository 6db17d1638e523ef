// eval/run_metrics.c - see run_metrics.h.
#include "eval/run_metrics.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum {
    MOST_MEASURES = 512,
    MOST_LOADS = 320,
    MOST_VALUES = 1 << 23, // floats that rows of loads may take
    LAYERS_AT_MOST = 1024,
    EXPERTS_AT_MOST = 4096,
    PIECE = 1 << 22, // bytes read at a time
    LINE_AT_MOST = 1 << 26
};

static const char *const measure_name[MEASURE_COUNT] = {
    [MEASURE_GINI] = "gini",
    [MEASURE_TOP_SHARE] = "top_share",
    [MEASURE_COVER80] = "cover80",
    [MEASURE_DEAD] = "dead",
    [MEASURE_BIAS_CHANGED] = "bias_changed",
    [MEASURE_CONDENSER_LOAD] = "condenser_load",
};

static const char *const number_name[NUMBER_COUNT] = {
    [NUMBER_STEP] = "step",
    [NUMBER_STAGE] = "stage",
    [NUMBER_LOSS] = "loss",
    [NUMBER_LR] = "lr",
    [NUMBER_GRAD_NORM] = "grad_norm",
    [NUMBER_TOKENS] = "tokens",
    [NUMBER_RATE] = "tokens_per_second",
    [NUMBER_SECONDS] = "seconds",
    [NUMBER_EVAL] = "eval_loss",
    [NUMBER_ROUTER] = NULL, // under `routing`
};

static void rows_free(struct run_rows *r)
{
    mem_free(r->step);
    mem_free(r->value);
    *r = (struct run_rows){0};
}

static bool rows_open(struct run_rows *r, int64_t width, int64_t most)
{
    if (most * width > MOST_VALUES) most = MOST_VALUES / width;
    if (most < 8) most = 8;
    *r = (struct run_rows){.width = width, .most = most, .every = 1};
    r->step = mem_zalloc((size_t)most, sizeof *r->step);
    r->value = mem_zalloc((size_t)most * (size_t)width, sizeof *r->value);
    return r->step && r->value;
}

static void rows_thin(struct run_rows *r)
{
    const size_t bytes = (size_t)r->width * sizeof *r->value;
    int64_t kept = 0;
    for (int64_t i = 0; i < r->n; i += 2) {
        r->step[kept] = r->step[i];
        memmove(r->value + kept * r->width, r->value + i * r->width, bytes);
        kept++;
    }
    r->n = kept;
    r->every *= 2;
}

// The place for the next row, or NULL where it is one that is left out.
static float *rows_next(struct run_rows *r, double step)
{
    if (r->seen++ % r->every != 0) return NULL;
    if (r->n == r->most) {
        rows_thin(r);
        if ((r->seen - 1) % r->every != 0) return NULL;
    }
    r->step[r->n] = step;
    return r->value + r->n++ * r->width;
}

static double number_or_nan(const json_t *v)
{
    const double x = json_is_number(v) ? json_number_value(v) : (double)NAN;
    return isfinite(x) ? x : (double)NAN;
}

static bool open_measures(struct run_metrics *m, const json_t *routing)
{
    const json_t *gini = json_object_get(routing, measure_name[MEASURE_GINI]);
    const size_t layers = json_array_size(gini);
    if (m->layers || !layers || layers > LAYERS_AT_MOST) return true;
    m->layers = (int64_t)layers;
    return rows_open(&m->measures, MEASURE_COUNT * m->layers, MOST_MEASURES);
}

static void add_measures(struct run_metrics *m, const json_t *routing, double step)
{
    float *row = rows_next(&m->measures, step);
    for (int k = 0; row && k < MEASURE_COUNT; k++) {
        const json_t *list = json_object_get(routing, measure_name[k]);
        for (int64_t l = 0; l < m->layers; l++) {
            row[k * m->layers + l] = (float)number_or_nan(json_array_get(list, (size_t)l));
        }
    }
}

// A value for each layer and expert; those of other shapes are none.
static bool is_full(const struct run_metrics *m, const json_t *list)
{
    bool full = json_array_size(list) == (size_t)m->layers;
    for (int64_t l = 0; full && l < m->layers; l++) {
        full = json_array_size(json_array_get(list, (size_t)l)) == (size_t)m->experts;
    }
    return full;
}

static void fill_row(const struct run_metrics *m, float *row, const json_t *list, bool shares)
{
    for (int64_t l = 0; l < m->layers; l++) {
        const json_t *of = json_array_get(list, (size_t)l);
        double all = 0;
        for (int64_t e = 0; e < m->experts; e++) {
            const double x = number_or_nan(json_array_get(of, (size_t)e));
            row[l * m->experts + e] = (float)x;
            if (isfinite(x)) all += x;
        }
        for (int64_t e = 0; shares && e < m->experts; e++) {
            row[l * m->experts + e] = all > 0 ? (float)((double)row[l * m->experts + e] / all) : 0;
        }
    }
}

static bool add_experts(struct run_metrics *m, const json_t *of, double step)
{
    const json_t *load = json_object_get(of, "load"), *bias = json_object_get(of, "bias");
    const json_t *set = json_object_get(of, "condensers");
    const size_t experts = json_array_size(json_array_get(load, 0));
    if (!m->experts && m->layers && experts && experts <= EXPERTS_AT_MOST) {
        m->experts = (int64_t)experts;
        if (!rows_open(&m->load, m->layers * m->experts, MOST_LOADS) ||
            !rows_open(&m->bias, m->layers * m->experts, MOST_LOADS)) {
            return false;
        }
    }
    if (!m->experts) return true;
    float *row = load && is_full(m, load) ? rows_next(&m->load, step) : NULL;
    if (row) fill_row(m, row, load, true);
    row = bias && is_full(m, bias) ? rows_next(&m->bias, step) : NULL;
    if (row) fill_row(m, row, bias, false);
    if (json_array_size(set) == (size_t)m->layers && !m->condensers) {
        m->condensers = json_deep_copy(set);
        m->condensers_step = step;
    }
    return true;
}

static bool grow(struct run_metrics *m)
{
    int64_t capacity = m->capacity;
    for (int k = 0; k < NUMBER_COUNT; k++) {
        capacity = m->capacity;
        double *grown = array_grow(m->number[k], m->n, &capacity, sizeof *grown);
        if (!grown) return false;
        m->number[k] = grown;
    }
    m->capacity = capacity;
    return true;
}

static bool add_line(struct run_metrics *m, const json_t *line)
{
    const json_t *routing = json_object_get(line, "routing");
    if (!grow(m)) return false;
    for (int k = 0; k < NUMBER_COUNT; k++) {
        m->number[k][m->n] = number_or_nan(number_name[k] ? json_object_get(line, number_name[k])
                                                          : json_object_get(routing, "loss"));
    }
    const double before = number_or_nan(json_object_get(line, "eval_loss_before"));
    if (isfinite(before) && isnan(m->eval_before)) m->eval_before = before;
    m->skipped = (int64_t)json_integer_value(json_object_get(line, "skipped"));
    const double step = m->number[NUMBER_STEP][m->n++];
    if (!routing) return true;
    if (!open_measures(m, routing)) return false;
    if (m->layers) add_measures(m, routing, step);
    return add_experts(m, json_object_get(line, "experts"), step);
}

void run_metrics_free(struct run_metrics *m)
{
    for (int k = 0; k < NUMBER_COUNT; k++) {
        mem_free(m->number[k]);
    }
    rows_free(&m->measures);
    rows_free(&m->load);
    rows_free(&m->bias);
    json_decref(m->condensers);
    *m = (struct run_metrics){.eval_before = (double)NAN};
}

enum line { LINE_GOOD, LINE_BAD, LINE_CUT, LINE_NO_MEMORY }; // CUT: the file is another one

static void rows_forget(struct run_rows *r, double step)
{
    while (r->n && r->step[r->n - 1] >= step) {
        r->n--;
    }
}

// Steps that come again, in a file that was put together from several: the later ones count.
static void forget_from(struct run_metrics *m, double step)
{
    while (m->n && m->number[NUMBER_STEP][m->n - 1] >= step) {
        m->n--;
    }
    rows_forget(&m->measures, step);
    rows_forget(&m->load, step);
    rows_forget(&m->bias, step);
}

static enum line take_line(struct run_metrics *m, const char *text, size_t n, const char *path)
{
    struct error ignored;
    int64_t step = 0;
    json_t *line = json_parse(text, n, path, &ignored);
    const double last = m->n ? m->number[NUMBER_STEP][m->n - 1] : 0;
    enum line result = LINE_BAD;
    if (line && json_get_int(line, "step", 1, INT64_MAX, true, &step, path, &ignored)) {
        result = LINE_GOOD;
    }
    // Where reading goes on after a pause, the next step is expected; else the file is another by now.
    if (m->resumes && (int64_t)last + 1 != step) result = LINE_CUT;
    m->resumes = false;
    if (result == LINE_GOOD && (double)step <= last) forget_from(m, (double)step);
    if (result == LINE_GOOD && !add_line(m, line)) result = LINE_NO_MEMORY;
    json_decref(line);
    return result;
}

// Whole lines of a piece of the file. CUT: all must be read again.
static enum line take_lines(struct run_metrics *m, const char *text, size_t size, const char *path)
{
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        if (!end) break;
        const size_t n = (size_t)(end - (text + at));
        const enum line line = take_line(m, text + at, n, path);
        if (line == LINE_NO_MEMORY || line == LINE_CUT) return line;
        m->bad += line == LINE_BAD;
        m->offset += n + 1;
        at += n + 1;
    }
    return LINE_GOOD;
}

// Pieces, not a mapping: a run that is resumed cuts the file, and a mapping beyond its end must not be touched.
static bool read_pieces(struct run_metrics *m, const char *path, struct error *err)
{
    size_t piece = PIECE;
    m->resumes = m->offset > 0;
    for (;;) {
        char *text;
        size_t size;
        if (!file_read_part(&text, &size, path, m->offset, piece, err)) return false;
        const size_t before = m->offset;
        enum line line = take_lines(m, text, size, path);
        mem_free(text);
        if (line == LINE_NO_MEMORY) return fail(err, "%s: no memory for its lines", path);
        if (line == LINE_CUT) {
            run_metrics_free(m); // from the start again: nothing is resumed there
            continue;
        }
        if (m->offset > before) {
            piece = PIECE;
        } else if (size < piece) {
            return true; // the end, or a last line without one
        } else if (piece >= LINE_AT_MOST) {
            return fail(err, "%s: a line of more than %d bytes", path, LINE_AT_MOST);
        } else {
            piece *= 2;
        }
    }
}

bool run_metrics_read(struct run_metrics *m, const char *path, struct error *err)
{
    uint64_t size = 0;
    if (!m->n && !m->offset) m->eval_before = (double)NAN;
    if (!file_exists(path)) {
        run_metrics_free(m);
        return true;
    }
    if (!file_size(&size, path, err)) return false;
    if (size < m->offset) run_metrics_free(m);
    return read_pieces(m, path, err);
}
