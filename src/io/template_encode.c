// io/template_encode.c - segments to ids. The one place that decides what is tokenized together, so
// that training, evaluation and generation cut a conversation in the same places.
#include "io/template.h"

#include <assert.h>
#include <string.h>

// The id of a template's mark, or -1 where the vocabulary does not have it and it is plain text.
static int32_t mark_id(const struct segment *s, const struct tokenizer *t)
{
    return s->special ? tokenizer_id(t, s->text) : -1;
}

static bool same_run(const struct segment *a, const struct segment *b)
{
    return a->answer == b->answer && a->learn == b->learn;
}

// The distinct marks of a conversation that are tokens. Those that are added tokens without being
// special would become ids even in a user's words.
enum { MARKS_MAX = 8 }; // a template has at most five
struct marks {
    const char *text[MARKS_MAX];
    char initial[MARKS_MAX + 1]; // their first bytes, for strpbrk
    size_t count;
};

static void marks_add(struct marks *k, const char *text)
{
    for (size_t i = 0; i < k->count; i++) {
        if (strcmp(k->text[i], text) == 0) return;
    }
    assert(k->count < MARKS_MAX);
    k->initial[k->count] = text[0];
    k->text[k->count++] = text;
}

// Where the next mark begins in text; NULL: none.
static const char *marks_find(const struct marks *k, const char *text)
{
    for (const char *at = text; k->count && (at = strpbrk(at, k->initial)); at++) {
        for (size_t i = 0; i < k->count; i++) {
            if (strncmp(at, k->text[i], strlen(k->text[i])) == 0) return at;
        }
    }
    return NULL;
}

// What one call works with.
struct encoder {
    const struct tokenizer *t;
    struct marks marks;
    struct buf text; // pieces of the current run
    struct tokens *ids;
    struct buf *learn;
};

// One run of text, cut behind the first character of every mark in it, which is then none.
static bool encode_text(struct encoder *e, const char *text, struct error *err)
{
    for (const char *mark; (mark = marks_find(&e->marks, text));) {
        size_t n = (size_t)(mark - text) + 1;
        while (((unsigned char)text[n] & 0xC0) == 0x80) {
            n++; // to the end of a character
        }
        if (!tokenizer_encode(e->t, text, n, false, e->ids, err)) return false;
        text += n;
    }
    return tokenizer_encode(e->t, text, strlen(text), false, e->ids, err);
}

static bool add_learn(struct buf *learn, int64_t n, bool value, struct error *err)
{
    if (!learn) return true;
    if (!buf_reserve(learn, (size_t)n)) return fail(err, "out of memory");
    memset(learn->data + learn->size, value, (size_t)n);
    learn->size += (size_t)n;
    learn->data[learn->size] = 0;
    return true;
}

// Appends what the text collected so far becomes, and empties it.
static bool flush(struct encoder *e, bool learn, struct error *err)
{
    if (!e->text.size) return true;
    const int64_t before = e->ids->count;
    if (!encode_text(e, e->text.data, err)) return false;
    e->text.size = 0;
    return add_learn(e->learn, e->ids->count - before, learn, err);
}

static bool encode_segment(struct encoder *e, const struct segment *g, const struct segment *before,
                           struct error *err)
{
    const int32_t id = mark_id(g, e->t);
    if (before && (id >= 0 || !same_run(before, g)) && !flush(e, before->learn, err)) return false;
    if (id < 0) return buf_puts(&e->text, g->text) || fail(err, "out of memory");
    if (!tokens_add(e->ids, id)) return fail(err, "out of memory");
    return add_learn(e->learn, 1, g->learn, err);
}

enum { FLAG_LEARN = 1, FLAG_LAST = 2 }; // of the last answer, or behind it

// Segments [first, last) as one text with its marks, in one array: text, flags, guard.
static bool gather(struct buf *out, const struct segments *s, int64_t first, int64_t last)
{
    const int64_t answer = segments_last_answer(s);
    size_t size = 0, at = 0;
    for (int64_t i = first; i < last; i++) {
        size += strlen(s->segment[i].text);
    }
    if (size > SIZE_MAX / 4 || !buf_reserve(out, 3 * size)) return false;
    for (int64_t i = first; i < last; i++) {
        const struct segment *g = &s->segment[i];
        const size_t n = strlen(g->text);
        memcpy(out->data + at, g->text, n);
        memset(out->data + size + at, (g->learn ? FLAG_LEARN : 0) | (i >= answer ? FLAG_LAST : 0),
               n);
        memset(out->data + 2 * size + at, s->unguarded ? 0 : g->guard, n);
        at += n;
    }
    out->size = size;
    return true;
}

// All ids at once, as of a text that nobody cut.
static bool encode_whole(const struct segments *s, int64_t first, int64_t last,
                         const struct tokenizer *t, struct tokens *ids, struct buf *flags,
                         struct error *err)
{
    struct buf text = {0};
    bool ok = gather(&text, s, first, last) || fail(err, "out of memory");
    if (ok && text.size) {
        const struct text_marks marks = {.flags = (const uint8_t *)text.data + text.size,
                                         .guard = (const uint8_t *)text.data + 2 * text.size,
                                         .written = s->written};
        ok = tokenizer_encode_marked(t, text.data, text.size, &marks, ids, flags, err);
    }
    buf_free(&text);
    return ok;
}

static bool append_learn(struct buf *learn, const struct buf *flags, struct error *err)
{
    for (size_t i = 0; learn && i < flags->size; i++) {
        const char bit = flags->data[i] & FLAG_LEARN;
        if (!buf_append(learn, &bit, 1)) return fail(err, "out of memory");
    }
    return true;
}

bool segments_encode_all(const struct segments *s, const struct tokenizer *t, struct tokens *ids,
                         struct buf *learn, int64_t *prompt_count, struct error *err)
{
    const int64_t answer = segments_last_answer(s);
    *prompt_count = -1;
    if (!s->whole) {
        if (!segments_encode(s, 0, answer, t, ids, learn, err)) return false;
        if (answer < s->count) *prompt_count = ids->count;
        return segments_encode(s, answer, s->count, t, ids, learn, err);
    }
    struct buf flags = {0};
    const int64_t before = ids->count;
    const bool ok =
        encode_whole(s, 0, s->count, t, ids, &flags, err) && append_learn(learn, &flags, err);
    if (ok && answer < s->count) {
        size_t n = 0;
        while (n < flags.size && !(flags.data[n] & FLAG_LAST)) {
            n++;
        }
        *prompt_count = before + (int64_t)n;
    }
    buf_free(&flags);
    return ok;
}

bool segments_encode(const struct segments *s, int64_t first, int64_t last,
                     const struct tokenizer *t, struct tokens *ids, struct buf *learn,
                     struct error *err)
{
    if (s->whole) {
        struct buf flags = {0};
        const bool done =
            encode_whole(s, first, last, t, ids, &flags, err) && append_learn(learn, &flags, err);
        buf_free(&flags);
        return done;
    }
    struct encoder e = {.t = t, .ids = ids, .learn = learn};
    for (int64_t i = 0; i < s->count; i++) {
        if (mark_id(&s->segment[i], t) >= 0) marks_add(&e.marks, s->segment[i].text);
    }
    bool ok = true;
    for (int64_t i = first; ok && i < last; i++) {
        ok = encode_segment(&e, &s->segment[i], i > first ? &s->segment[i - 1] : NULL, err);
    }
    ok = ok && (last <= first || flush(&e, s->segment[last - 1].learn, err));
    buf_free(&e.text);
    return ok;
}

bool chat_encode(const struct chat_template *c, const struct message *m, int64_t n,
                 const struct special_tokens *s, const struct tokenizer *t, struct tokens *out,
                 struct error *err)
{
    struct segments segments = {0};
    const bool ok = c->render(&segments, m, n, s, true, err) &&
                    segments_encode(&segments, 0, segments.count, t, out, NULL, err);
    segments_free(&segments);
    return ok;
}
