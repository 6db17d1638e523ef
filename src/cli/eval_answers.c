// cli/eval_answers.c - `eval --task exact`, `math` and `choice`: answers beside references.
#include "cli/eval.h"

#include "base/log.h"
#include "base/mem.h"
#include "eval/answers.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { LISTED = 10 }; // examples without an answer that are named

struct answering {
    struct evaluation *e;
    struct questions questions;
    struct dataset data; // exact: whose texts the questions are
    struct tokens stop;
    struct answers_score *of_file; // (files of --data)
    struct buf unparsed;           // "file:3, file:9"
    int64_t listed;
};

static bool is_exact(const struct answering *a)
{
    return a->e->o->config.task == EVAL_EXACT;
}

static json_t *extracted_json(const struct judged *j)
{
    const struct extracted *x = &j->extracted;
    if (!x->found) return json_null();
    if (j->question->kind != ANSWER_NUMBER) return json_stringn(x->text, x->size);
    return isfinite(x->number) ? json_real(x->number) : json_null();
}

static bool list_unparsed(struct answering *a, const struct question *q, struct error *err)
{
    if (a->listed++ >= LISTED) return true;
    return buf_printf(&a->unparsed, "%s%s:%" PRId64, a->listed > 1 ? ", " : "", q->file, q->line) ||
           fail(err, "no memory for a list");
}

static bool take(void *user, const struct judged *j, struct error *err)
{
    struct answering *a = user;
    const struct question *q = j->question;
    const struct texts *files = &a->e->o->config.data;
    for (int64_t i = 0; i < files->count; i++) {
        if (strcmp(files->item[i], q->file) != 0) continue;
        struct answers_score *s = &a->of_file[i];
        s->count++;
        s->right += j->right;
        s->unparsed += !j->extracted.found;
        break; // a file that is named twice is counted once
    }
    if (!j->extracted.found && !list_unparsed(a, q, err)) return false;
    if (a->e->predictions.fd < 0) return true;
    const char *reference = q->reference;
    size_t size = strlen(reference);
    text_strip(&reference, &size);
    json_t *line = json_object();
    json_object_set_new(line, "file", json_string(q->file));
    json_object_set_new(line, "line", json_integer(q->line));
    json_object_set_new(line, "prompt", json_string(q->prompt ? q->prompt : ""));
    json_object_set_new(line, "output", json_string(j->output));
    json_object_set_new(line, "prediction", extracted_json(j));
    json_object_set_new(line, "reference", json_stringn(reference, size));
    json_object_set_new(line, "correct", json_boolean(j->right));
    if (!a->e->o->config.answers) {
        json_object_set_new(line, "stopped", json_boolean(j->stopped));
        json_object_set_new(line, "tokens", json_integer(j->tokens));
    }
    return eval_predict(a->e, line, err);
}

static double share(const struct answers_score *s)
{
    return (double)s->right / (double)(s->count ? s->count : 1);
}

static void put_score(json_t *line, const struct answers_score *s, bool exact)
{
    json_object_set_new(line, exact ? "exact_match" : "accuracy", json_real(share(s)));
    json_object_set_new(line, "standard_error", json_real(standard_error(share(s), s->count)));
    json_object_set_new(line, "correct", json_integer(s->right));
    json_object_set_new(line, "examples", json_integer(s->count));
    if (!exact) json_object_set_new(line, "unparsed", json_integer(s->unparsed));
}

static json_t *score_json(const struct answering *a, const struct answers_score *s)
{
    const struct run_config *c = &a->e->o->config;
    static const char *const names[] = {
        [EVAL_EXACT] = "exact", [EVAL_MATH] = "math", [EVAL_CHOICE] = "choice"};
    json_t *line = json_object();
    json_object_set_new(line, "task", json_string(names[c->task]));
    put_score(line, s, is_exact(a));
    if (!c->answers) json_object_set_new(line, "stopped", json_integer(s->stopped));
    if (c->data.count < 2) return line;
    json_t *files = json_array();
    for (int64_t i = 0; i < c->data.count; i++) {
        json_t *file = json_object();
        json_object_set_new(file, "file", json_string(c->data.item[i]));
        put_score(file, &a->of_file[i], is_exact(a));
        json_array_append_new(files, file);
    }
    json_object_set_new(line, "files", files);
    return line;
}

static bool report(struct answering *a, const struct answers_score *s, struct error *err)
{
    const struct run_config *c = &a->e->o->config;
    FILE *f = a->e->io->people;
    if (s->unparsed) {
        log_warning("no answer found in %" PRId64 " outputs, counted as wrong: %s%s", s->unparsed,
                    a->unparsed.data, a->listed > LISTED ? ", ..." : "");
    }
    fprintf(f, "%s %.2f %% (standard error %.2f), %" PRId64 " of %" PRId64 " examples",
            is_exact(a) ? "exact match" : "accuracy", 100 * share(s),
            100 * standard_error(share(s), s->count), s->right, s->count);
    if (!is_exact(a)) fprintf(f, "; no answer found in %" PRId64, s->unparsed);
    if (!c->answers) fprintf(f, "; %" PRId64 " answers ended by themselves", s->stopped);
    fputc('\n', f);
    for (int64_t i = 0; c->data.count > 1 && i < c->data.count; i++) {
        const struct answers_score *x = &a->of_file[i];
        fprintf(f, "  %.2f %% (standard error %.2f), %" PRId64 " of %" PRId64 ": ", 100 * share(x),
                100 * standard_error(share(x), x->count), x->right, x->count);
        output_safe(f, c->data.item[i], strlen(c->data.item[i]));
        fputc('\n', f);
    }
    return !a->e->io->json || output_json(a->e->io, score_json(a, s), err);
}

static bool open_questions(struct answering *a, struct error *err)
{
    struct evaluation *e = a->e;
    struct run_config *c = &e->o->config;
    const bool length = options_given(e->o, "max-length");
    if (is_exact(a)) {
        if (!length) c->dataset.max_length = 0;
        if (!data_open(&a->data, e->o, e->text, &c->data, true, err)) return false;
        if (!e->io->quiet) data_describe(e->io->status, "data", &a->data);
        return questions_of_dataset(&a->questions, &a->data, err);
    }
    const unsigned math = 1U << ANSWER_NUMBER | 1U << ANSWER_LETTER;
    const unsigned keywords = ~(1U << ANSWER_NUMBER | 1U << ANSWER_TEXT);
    const struct question_options q = {
        .files = c->data.item,
        .n_files = c->data.count,
        .limit = c->dataset.limit,
        .skip_bad = c->dataset.skip_bad,
        .kinds = c->task == EVAL_MATH ? math : keywords,
        .chat = options_given(e->o, "template") ? e->text->chat : NULL,
        .tokenizer = e->text->tokenizer,
        .special = e->text->special,
        .max_length = length ? c->dataset.max_length : 0,
    };
    if (!questions_open(&a->questions, &q, err)) return false;
    if (!e->io->quiet) {
        fprintf(e->io->status, "data: %" PRId64 " examples", a->questions.count);
        if (a->questions.bad)
            fprintf(e->io->status, "; %" PRId64 " malformed, skipped", a->questions.bad);
        fputc('\n', e->io->status);
    }
    return true;
}

static bool run_model(struct answering *a, struct answers_score *s, struct answers_options *x,
                      struct error *err)
{
    struct evaluation *e = a->e;
    const struct run_config *c = &e->o->config;
    if (!stop_ids_open(&a->stop, e->text, err)) return false;
    x->stop = &a->stop;
    const int64_t rows = answers_cache_rows(&a->questions, x), lanes = answers_lanes(x);
    const int64_t most = c->train.batch_tokens > lanes ? c->train.batch_tokens : lanes;
    const int64_t tokens = rows < most ? rows : most;
    return eval_open_model(e, tokens > lanes ? tokens : lanes, rows, err) &&
           eval_open_predictions(e, err) &&
           answers_generate(s, &e->model, &a->questions, x, &e->listener, err);
}

static bool run(struct answering *a, struct error *err)
{
    const struct run_config *c = &a->e->o->config;
    int64_t new_tokens = c->max_new_tokens;
    if (c->task == EVAL_CHOICE && !options_given(a->e->o, "max-new-tokens")) new_tokens = 32;
    if (!c->answers && new_tokens > a->e->text->config.max_positions) {
        new_tokens = a->e->text->config.max_positions;
    }
    struct answers_options x = {.max_new_tokens = new_tokens,
                                .beams = c->beams,
                                .side_by_side = c->train.batch_sequences,
                                .tokenizer = a->e->text->tokenizer,
                                .judged = take,
                                .user = a};
    struct answers_score s;
    a->of_file = mem_zalloc((size_t)c->data.count, sizeof *a->of_file);
    if (!a->of_file) return fail(err, "no memory for the scores");
    if (c->answers ? !eval_open_predictions(a->e, err) ||
                         !answers_stored(&s, c->answers, &a->questions, &x, err)
                   : !run_model(a, &s, &x, err)) {
        return false;
    }
    progress_end(&a->e->progress);
    return eval_commit_predictions(a->e, err) && report(a, &s, err);
}

bool eval_answers(struct evaluation *e, struct error *err)
{
    struct answering a = {.e = e};
    const bool ok = open_questions(&a, err) && run(&a, err);
    questions_close(&a.questions);
    dataset_close(&a.data);
    tokens_free(&a.stop);
    mem_free(a.of_file);
    buf_free(&a.unparsed);
    return ok;
}
