// train/metrics.c - see metrics.h.
#include "train/metrics.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void number_text(char out[NUMBER_TEXT], double x)
{
    snprintf(out, NUMBER_TEXT, "null"); // JSON has no word for them
    if (!isfinite(x)) return;
    char text[NUMBER_TEXT];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        const double back = strtod(text, NULL); // reads the locale that snprintf wrote
        if (back >= x && back <= x) break;
    }
    size_t n = 0;
    for (const char *p = text; *p; p++) { // whatever the locale's decimal point is, ours is '.'
        if (strchr("0123456789+-e", *p)) {
            out[n++] = *p;
        } else if (n == 0 || out[n - 1] != '.') {
            out[n++] = '.';
        }
    }
    out[n] = 0;
}

// The bytes of the lines of steps 1..step, each checked to be that step's.
static size_t bytes_to_keep(const char *text, size_t size, int64_t step, int64_t *found)
{
    size_t at = 0;
    for (*found = 0; *found < step; ++*found) {
        const char *end = at < size ? memchr(text + at, '\n', size - at) : NULL; // empty: no text
        if (!end) break;
        const size_t n = (size_t)(end - (text + at));
        int64_t number = 0;
        struct error ignored;
        json_t *line = json_parse(text + at, n, "line", &ignored);
        const bool ok =
            line && json_get_int(line, "step", 1, INT64_MAX, true, &number, "line", &ignored);
        json_decref(line);
        if (!ok || number != *found + 1) break;
        at += n + 1;
    }
    return at;
}

bool metrics_open(struct metrics *m, const char *path, int64_t step, struct error *err)
{
    m->file.fd = -1;
    size_t keep = 0;
    if (step > 0 && file_exists(path)) {
        struct file_map map;
        if (!file_map_open(&map, path, err)) return false;
        int64_t found = 0;
        keep = bytes_to_keep((const char *)map.data, map.size, step, &found);
        file_map_close(&map);
        if (found < step) {
            log_warning("%s: %" PRId64 " good lines where %" PRId64 " steps were made", path, found,
                        step);
        }
    }
    return append_open(&m->file, path, keep, err);
}

static bool put_real(struct buf *b, const char *name, double x)
{
    char text[NUMBER_TEXT];
    number_text(text, x);
    return buf_printf(b, ",\"%s\":%s", name, text);
}

bool metrics_write(struct metrics *m, const struct train_step *s, struct error *err)
{
    struct buf b = {0};
    char *routing = routing_report_text(s->routing), *experts = routing_report_text(s->experts);
    bool ok = buf_printf(&b, "{\"step\":%" PRId64 ",\"stage\":%" PRId64, s->step, s->stage) &&
              put_real(&b, "loss", s->loss) && put_real(&b, "lr", s->lr) &&
              put_real(&b, "grad_norm", s->grad_norm) &&
              buf_printf(&b, ",\"tokens\":%" PRId64, s->tokens) &&
              put_real(&b, "tokens_per_second", s->tokens_per_second) &&
              put_real(&b, "seconds", s->seconds) &&
              buf_printf(&b, ",\"skipped\":%" PRId64, s->skipped);
    ok = ok && (routing || !s->routing) && (experts || !s->experts);
    if (ok && !isnan(s->eval_loss)) ok = put_real(&b, "eval_loss", s->eval_loss);
    if (ok && !isnan(s->eval_before)) ok = put_real(&b, "eval_loss_before", s->eval_before);
    if (ok && experts) ok = buf_printf(&b, ",\"experts\":%s", experts);
    if (ok && routing) ok = buf_printf(&b, ",\"routing\":%s", routing);
    ok = ok && buf_puts(&b, "}\n");
    ok = ok ? append_write(&m->file, b.data, b.size, err)
            : fail(err, "%s: no memory for a line", m->file.path);
    buf_free(&b);
    mem_free(routing);
    mem_free(experts);
    return ok;
}

bool metrics_sync(struct metrics *m, struct error *err)
{
    return append_sync(&m->file, err);
}

void metrics_close(struct metrics *m)
{
    append_close(&m->file);
}
