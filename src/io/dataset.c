// io/dataset.c - see dataset.h. Files are read in order; each example is parsed, rendered, tokenized,
// fitted to the length and appended, and its source text is let go.
#include "io/dataset.h"

#include "base/log.h"
#include "io/dataset_sample.h"
#include "io/dataset_source.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// What building needs beside the result; reused from example to example.
struct builder {
    struct dataset *d;
    const struct dataset_options *o;
    const struct tokenizer *t;
    int64_t vocab;
    struct sample sample;
    struct segments segments;
    struct tokens ids;
    struct buf learn;
    int64_t prompt_count; // of the example at hand; -1: it has no answer
    const char *file;
    bool fatal; // the failure is not the example's
    struct error first_bad;
};

static bool fatal(struct builder *b, struct error *err, const char *where, const char *what)
{
    b->fatal = true;
    return fail(err, "%s: %s", where, what);
}

// loss_on decides anew what the template has marked: the answers that are not masked.
static void set_loss(struct builder *b)
{
    struct segments *s = &b->segments;
    const int64_t last = segments_last_answer(s);
    for (int64_t i = 0; i < s->count; i++) {
        struct segment *g = &s->segment[i];
        const bool masked = g->message >= 0 && b->sample.message[g->message].mask == 1;
        if (b->o->loss_on == LOSS_ON_ALL) g->learn = !masked;
        if (b->o->loss_on == LOSS_ON_LAST && i < last) g->learn = false;
    }
}

static bool encode_chat(struct builder *b, struct error *err)
{
    struct segments *s = &b->segments;
    segments_clear(s);
    if (!b->o->chat->render(s, b->sample.message, b->sample.count, &b->o->special, false, err)) {
        return false;
    }
    set_loss(b);
    s->unguarded = b->o->special_text;
    return segments_encode_all(s, b->t, &b->ids, &b->learn, &b->prompt_count, err);
}

// Every token of a text learns, and the eos behind it where there is one.
static bool encode_plain_text(struct builder *b, struct error *err)
{
    const struct special_tokens *s = &b->o->special;
    const char *text = b->sample.text;
    if (s->add_bos && !tokens_add(&b->ids, tokenizer_id(b->t, s->bos))) {
        return fail(err, "out of memory");
    }
    if (!tokenizer_encode(b->t, text, strlen(text), b->o->special_text, &b->ids, err)) return false;
    if (*s->eos && !tokens_add(&b->ids, tokenizer_id(b->t, s->eos))) {
        return fail(err, "out of memory");
    }
    if (!buf_reserve(&b->learn, (size_t)b->ids.count)) return fail(err, "out of memory");
    b->learn.size = (size_t)b->ids.count;
    memset(b->learn.data, 1, b->learn.size);
    return true;
}

static bool encode_ids(struct builder *b, struct error *err)
{
    const struct sample *s = &b->sample;
    for (int64_t i = 0; i < s->ids.count; i++) {
        if (!tokens_add(&b->ids, s->ids.id[i])) return fail(err, "out of memory");
    }
    return buf_append(&b->learn, s->learn.data, s->learn.size) || fail(err, "out of memory");
}

static bool encode(struct builder *b, const char *where, struct error *err)
{
    b->ids.count = 0;
    b->learn.size = 0;
    b->prompt_count = -1;
    if (!b->t && b->sample.kind != SAMPLE_IDS) {
        return fail(err, "%s: found text, expected input_ids: the model has no tokenizer", where);
    }
    bool ok = false;
    switch (b->sample.kind) {
    case SAMPLE_CHAT:
        ok = encode_chat(b, err);
        break;
    case SAMPLE_TEXT:
        ok = encode_plain_text(b, err);
        break;
    case SAMPLE_IDS:
        ok = encode_ids(b, err);
        break;
    }
    if (!ok) return fail_in(err, "%s", where);
    for (int64_t i = 0; i < b->ids.count; i++) {
        if (b->ids.id[i] >= 0 && b->ids.id[i] < b->vocab) continue;
        return fail(err, "%s: token id %d, expected one below the vocabulary's %" PRId64, where,
                    b->ids.id[i], b->vocab);
    }
    return true;
}

// A cut from the left that takes the whole prompt leaves nothing to answer.
static bool loses_prompt(const struct builder *b, int64_t first)
{
    return b->o->keep_prompts && b->prompt_count >= 0 && first >= b->prompt_count;
}

// Fits [*first, *first + *count) of the example's tokens to max_length. False: it is left out, or an
// error where that was asked for (err->msg set).
static bool fit(struct builder *b, int64_t *first, int64_t *count, const char *where,
                struct error *err)
{
    const int64_t limit = b->o->max_length;
    *first = 0;
    *count = b->ids.count;
    if (!limit || *count <= limit) return true;
    enum too_long what = b->o->too_long;
    if (what == TOO_LONG_CUT_LEFT && loses_prompt(b, *count - limit)) what = TOO_LONG_DROP;
    switch (what) {
    case TOO_LONG_DROP:
        b->d->dropped++;
        return false;
    case TOO_LONG_REFUSE:
        b->fatal = true;
        return fail(err, "%s: %" PRId64 " tokens, expected at most %" PRId64, where, *count, limit);
    case TOO_LONG_CUT_LEFT:
        *first = *count - limit;
        break;
    case TOO_LONG_CUT_RIGHT:
        break;
    }
    *count = limit;
    b->d->cut++;
    return true;
}

static bool reserve(struct dataset *d, int64_t n)
{
    struct example *grown =
        array_grow(d->example, d->count, &d->example_capacity, sizeof *d->example);
    if (grown) d->example = grown;
    if (!grown || n > INT64_MAX / 16 - d->n_tokens) return false;
    if (d->n_tokens + n <= d->token_capacity) return true;
    const int64_t wanted =
        d->n_tokens + n > d->n_tokens * 3 / 2 ? d->n_tokens + n : d->n_tokens * 3 / 2;
    int32_t *id = mem_realloc(d->id, (size_t)wanted * sizeof *id);
    if (id) d->id = id;
    uint8_t *learn = id ? mem_realloc(d->learn, (size_t)wanted) : NULL;
    if (learn) d->learn = learn;
    if (learn) d->token_capacity = wanted;
    return learn != NULL;
}

// Texts before and of the last answer.
static bool keep_prompt(const struct builder *b, struct example *e)
{
    const struct segments *s = &b->segments;
    const int64_t last = segments_last_answer(s);
    if (b->sample.kind != SAMPLE_CHAT || last == s->count) return true;
    struct buf prompt = {0};
    bool ok = buf_puts(&prompt, "");
    for (int64_t i = 0; ok && i < last; i++) {
        ok = buf_puts(&prompt, s->segment[i].text);
    }
    e->prompt = prompt.data;
    e->answer = ok ? mem_strdup(b->sample.message[s->segment[last].message].content) : NULL;
    return e->answer != NULL;
}

static void example_free(struct example *e)
{
    mem_free((char *)e->prompt);
    mem_free((char *)e->answer);
}

// Appends what encode left, unless it is too long or has no target.
static bool append(struct builder *b, int64_t line, const char *where, struct error *err)
{
    struct dataset *d = b->d;
    int64_t first, count, supervised = 0;
    if (!fit(b, &first, &count, where, err)) return !b->fatal;
    for (int64_t i = 1; i < count; i++) {
        supervised += b->learn.data[first + i];
    }
    if (!supervised) {
        d->unsupervised++;
        return true;
    }
    if (!reserve(d, count)) return fatal(b, err, where, "out of memory");
    struct example e = {.first = d->n_tokens,
                        .count = count,
                        .supervised = supervised,
                        .prompt_count = count,
                        .file = b->file,
                        .line = line};
    if (b->prompt_count >= 0 && b->prompt_count - first < count) {
        e.prompt_count = b->prompt_count > first ? b->prompt_count - first : 0;
    }
    if (b->o->keep_prompts && !keep_prompt(b, &e)) {
        example_free(&e);
        return fatal(b, err, where, "out of memory");
    }
    memcpy(d->id + d->n_tokens, b->ids.id + first, (size_t)count * sizeof *d->id);
    memcpy(d->learn + d->n_tokens, b->learn.data + first, (size_t)count);
    d->learn[d->n_tokens] = 0; // nothing before it predicts it
    d->n_tokens += count;
    d->supervised += supervised;
    d->example[d->count++] = e;
    return true;
}

static bool add_example(struct builder *b, const char *text, size_t size, int64_t line,
                        struct error *err)
{
    char where[4200];
    snprintf(where, sizeof where, "%.4096s:%" PRId64, b->file, line);
    if (size > EXAMPLE_LIMIT) {
        return fail(err, "%s: more than %d bytes, the limit", where, EXAMPLE_LIMIT);
    }
    json_t *object = json_parse(text, size, where, err);
    b->sample.any_turns = b->o->chat && b->o->chat->own;
    const bool ok = object && sample_parse(&b->sample, object, where, err) &&
                    encode(b, where, err) && append(b, line, where, err);
    json_decref(object);
    return ok;
}

static bool full(const struct builder *b)
{
    return b->o->limit > 0 && b->d->count >= b->o->limit;
}

// Counts a bad example and goes on, if that was asked for.
static bool skip(struct builder *b, const struct error *err)
{
    if (b->fatal || !b->o->skip_bad) return false;
    if (!b->d->bad++) {
        b->first_bad = *err;
        log_warning("%s (left out, as all that are bad from here on)", err->msg);
    }
    return true;
}

static bool add_file(struct builder *b, const char *path, struct error *err)
{
    struct dataset_source s;
    const char *text;
    size_t size;
    int64_t line;
    if (!dataset_source_open(&s, path, err)) return false;
    err->msg[0] = 0;
    bool ok = true;
    while (ok && !full(b) && dataset_source_next(&s, &text, &size, &line, err)) {
        ok = add_example(b, text, size, line, err) || skip(b, err);
    }
    dataset_source_close(&s);
    return ok && !err->msg[0];
}

static bool check_options(const struct dataset_options *o, const struct tokenizer *t,
                          struct error *err)
{
    if (o->n_files < 1) return fail(err, "data: no file given");
    if (!o->chat && t) return fail(err, "data: no template given");
    if (o->max_length < 0 || o->max_length == 1) {
        return fail(err, "data: a length of %" PRId64 " tokens, expected at least 2",
                    o->max_length);
    }
    if (t && *o->special.eos && tokenizer_id(t, o->special.eos) < 0) {
        return fail(err, "eos '%s' is no token of the tokenizer", o->special.eos);
    }
    if (t && *o->special.bos && tokenizer_id(t, o->special.bos) < 0) {
        return fail(err, "bos '%s' is no token of the tokenizer", o->special.bos);
    }
    return true;
}

static bool copy_names(struct dataset *d, const struct dataset_options *o, struct error *err)
{
    d->file = mem_zalloc((size_t)o->n_files, sizeof *d->file);
    for (int64_t i = 0; d->file && i < o->n_files; i++) {
        d->file[i] = mem_strdup(o->files[i]);
        if (!d->file[i]) return fail(err, "data: out of memory");
        d->n_files++;
    }
    return d->file || fail(err, "data: out of memory");
}

static bool check_result(const struct builder *b, struct error *err)
{
    const struct dataset *d = b->d;
    if (d->supervised) return true;
    if (!d->bad && !d->dropped && !d->unsupervised) {
        return fail(err, "%s: no examples, expected JSONL or a JSON array of objects", d->file[0]);
    }
    return fail(err,
                "%s: no token carries loss: %" PRId64 " examples without a target, %" PRId64
                " too long, %" PRId64 " bad%s%.700s",
                d->file[0], d->unsupervised, d->dropped, d->bad, d->bad ? "; the first: " : "",
                b->first_bad.msg);
}

bool dataset_open(struct dataset *d, const struct dataset_options *o, const struct tokenizer *t,
                  struct error *err)
{
    struct error ignored;
    if (!err) err = &ignored;
    *d = (struct dataset){0};
    struct builder b = {.d = d, .o = o, .t = t, .vocab = o->vocab};
    if (!b.vocab) b.vocab = t ? tokenizer_size(t) : INT32_MAX;
    bool ok = check_options(o, t, err) && copy_names(d, o, err);
    for (int64_t i = 0; ok && i < o->n_files && !full(&b); i++) {
        b.file = d->file[i];
        ok = add_file(&b, b.file, err);
    }
    ok = ok && check_result(&b, err);
    sample_free(&b.sample);
    segments_free(&b.segments);
    tokens_free(&b.ids);
    buf_free(&b.learn);
    if (!ok) dataset_close(d);
    return ok;
}

void dataset_close(struct dataset *d)
{
    for (int64_t i = 0; i < d->count; i++) {
        example_free(&d->example[i]);
    }
    for (int64_t i = 0; i < d->n_files; i++) {
        mem_free(d->file[i]);
    }
    mem_free(d->file);
    mem_free(d->example);
    mem_free(d->id);
    mem_free(d->learn);
    *d = (struct dataset){0};
}

// Files are read in order, so that a file's examples lie side by side.
struct dataset dataset_of_file(const struct dataset *d, int64_t i)
{
    struct dataset of = {.id = d->id, .learn = d->learn, .file = d->file, .n_files = d->n_files};
    for (int64_t k = 0; k < d->count; k++) {
        if (d->example[k].file != d->file[i]) continue;
        if (!of.count++) of.example = &d->example[k];
        of.n_tokens += d->example[k].count;
        of.supervised += d->example[k].supervised;
    }
    return of;
}
