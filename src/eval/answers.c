// eval/answers.c - see answers.h.
#include "eval/answers.h"

#include "base/mem.h"
#include "io/dataset_source.h"
#include "io/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

double standard_error(double share, int64_t n)
{
    return n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : 0;
}

static int64_t group_size(const struct questions *q, int64_t first, const struct answers_options *o)
{
    const int64_t left = q->count - first;
    return left < o->side_by_side ? left : o->side_by_side;
}

int64_t answers_lanes(const struct answers_options *o)
{
    return o->side_by_side * (o->beams > 1 ? o->beams : 1);
}

int64_t answers_cache_rows(const struct questions *q, const struct answers_options *o)
{
    int64_t most = 0;
    for (int64_t first = 0; first < q->count; first += o->side_by_side) {
        int64_t rows = 0;
        for (int64_t i = 0; i < group_size(q, first, o); i++) {
            rows += q->question[first + i].n_id + o->max_new_tokens;
        }
        if (rows > most) most = rows;
    }
    return most * (o->beams > 1 ? o->beams : 1);
}

// j has all but what is found here.
static bool judge(struct answers_score *out, struct judged *j, const char *text, size_t size,
                  const struct answers_options *o, struct error *err)
{
    const struct question *x = j->question;
    if (x->kind == ANSWER_TEXT) {
        text_strip(&text, &size);
    } else {
        answer_output(&text, &size);
    }
    char *output = mem_strndup(text, size);
    bool ok = output || fail(err, "no memory for an answer");
    ok = ok && answer_extract(&j->extracted, x->kind, output, err);
    if (ok) {
        j->output = output;
        j->right = answer_is_right(&j->extracted, x->kind, x->reference);
        out->count++;
        out->right += j->right;
        out->stopped += j->stopped;
        out->unparsed += !j->extracted.found;
        ok = !o->judged || o->judged(o->user, j, err);
    }
    mem_free(output);
    return ok;
}

static bool judge_sequence(struct answers_score *out, const struct sequence *s,
                           const struct question *x, const struct answers_options *o,
                           struct error *err)
{
    struct judged j = {.question = x, .stopped = s->stop >= 0, .tokens = s->out.count};
    struct buf text = {0};
    const bool ok = generate_decode(&text, s->out.id, s->out.count, o->tokenizer, err) &&
                    judge(out, &j, text.data, text.size, o, err);
    buf_free(&text);
    return ok;
}

static bool answer_group(struct answers_score *out, struct model *m, const struct questions *q,
                         struct sequence *s, int64_t first, const struct answers_options *o,
                         struct error *err)
{
    const int64_t n = group_size(q, first, o);
    const struct generate_options g = {.max_new_tokens = o->max_new_tokens,
                                       .beams = o->beams,
                                       .stop = o->stop,
                                       .first_stream = first};
    for (int64_t i = 0; i < n; i++) {
        const struct question *x = &q->question[first + i];
        s[i].prompt = x->id;
        s[i].n_prompt = x->n_id;
        if (x->n_id < m->config.max_positions) continue;
        return fail(err,
                    "%s:%" PRId64 ": prompt of %" PRId64 " tokens, the model has %" PRId64
                    " positions",
                    x->file, x->line, x->n_id, m->config.max_positions);
    }
    if (!generate(m, s, n, &g, err)) return false;
    for (int64_t i = 0; i < n; i++) {
        if (!judge_sequence(out, &s[i], &q->question[first + i], o, err)) return false;
    }
    return true;
}

bool answers_generate(struct answers_score *out, struct model *m, const struct questions *q,
                      const struct answers_options *o, const struct score_listener *l,
                      struct error *err)
{
    *out = (struct answers_score){0};
    struct sequence *s = mem_zalloc((size_t)o->side_by_side, sizeof *s);
    bool ok = s || fail(err, "no memory for %" PRId64 " sequences", o->side_by_side);
    for (int64_t first = 0; ok && first < q->count; first += o->side_by_side) {
        ok = answer_group(out, m, q, s, first, o, err);
        const int64_t done = first + group_size(q, first, o);
        if (ok && l && l->progress && !l->progress(l->user, done, q->count)) break;
    }
    for (int64_t i = 0; s && i < o->side_by_side; i++) {
        tokens_free(&s[i].out);
    }
    mem_free(s);
    return ok;
}

static bool judge_stored(struct answers_score *out, const char *text, size_t size,
                         const struct question *x, const char *where,
                         const struct answers_options *o, struct error *err)
{
    struct judged j = {.question = x};
    const char *output = NULL;
    if (size > EXAMPLE_LIMIT) {
        return fail(err, "%s: more than %d bytes, the limit", where, EXAMPLE_LIMIT);
    }
    json_t *object = json_parse(text, size, where, err);
    const char *key = json_object_get(object, "output_pred") ? "output_pred" : "output";
    const bool ok = object && json_get_text(object, key, true, &output, where, err) &&
                    judge(out, &j, output, strlen(output), o, err);
    json_decref(object);
    return ok;
}

static bool judge_all(struct answers_score *out, struct dataset_source *s,
                      const struct questions *q, const struct answers_options *o, struct error *err)
{
    const char *text;
    size_t size;
    int64_t line = 0, n = 0;
    char where[4200];
    bool ok = true;
    for (; ok && dataset_source_next(s, &text, &size, &line, err); n++) {
        snprintf(where, sizeof where, "%.4096s:%" PRId64, s->path, line);
        if (n == q->count) {
            return fail(err, "%s: more outputs than the %" PRId64 " examples of the data", where,
                        q->count);
        }
        ok = judge_stored(out, text, size, &q->question[n], where, o, err);
    }
    if (!ok || err->msg[0]) return false;
    return n == q->count || fail(err,
                                 "%s: %" PRId64 " outputs, expected one for each of the %" PRId64
                                 " examples of the data",
                                 s->path, n, q->count);
}

bool answers_stored(struct answers_score *out, const char *file, const struct questions *q,
                    const struct answers_options *o, struct error *err)
{
    struct dataset_source s;
    struct error ignored;
    if (!err) err = &ignored;
    *out = (struct answers_score){0};
    if (!dataset_source_open(&s, file, err)) return false;
    err->msg[0] = 0;
    const bool ok = judge_all(out, &s, q, o, err);
    dataset_source_close(&s);
    return ok;
}
