// io/tokenizer_split.c - runs the normalizer over a text, and the pre-tokenizer over what it leaves: each
// step cuts a piece into smaller ones and hands them to the next step, and what comes out of the last is
// a word.
#include "io/tokenizer_parts.h"

#include <string.h>

// A stretch of normalized text; shadow as in unicode_shadow, or the text itself.
struct piece {
    const char *text, *shadow;
    size_t size;
    bool at_start; // of the whole text
};

static bool check_size(size_t size, struct error *err)
{
    if (size <= TOKENIZER_MAX_TEXT) return true;
    return fail(err, "tokenizer: a normalized text of %zu bytes, at most %d", size,
                TOKENIZER_MAX_TEXT);
}

// Appends the text with each match replaced.
static bool replace(struct buf *out, struct matcher *m, const struct step *s, const char *text,
                    size_t size, struct error *err)
{
    struct ranges r = {0};
    char *shadow = NULL;
    bool ok = unicode_shadow(&shadow, text, size) || no_memory(err);
    ok = ok && regex_split(m, s->regex, shadow ? shadow : text, size, &r, err);
    for (int64_t i = 0; ok && i < r.count; i++) {
        const struct range at = r.at[i];
        ok = (at.id ? buf_puts(out, s->text)
                    : buf_append(out, text + at.start, at.end - at.start)) ||
             no_memory(err);
    }
    mem_free(shadow);
    mem_free(r.at);
    return ok;
}

bool normalizer_run(const struct steps *steps, struct matcher *m, const char **text, size_t *size,
                    char **owned, struct error *err)
{
    for (int i = 0; i < steps->count; i++) {
        const struct step *s = &steps->step[i];
        struct buf out = {0};
        bool ok = buf_reserve(&out, *size) || no_memory(err);
        if (s->kind == STEP_NORMAL) {
            if (s->form == NORMAL_C && unicode_is_normal_c(*text, *size)) {
                buf_free(&out);
                continue;
            }
            ok = ok && (unicode_normalize(&out, *text, *size, s->form) || no_memory(err));
        } else if (s->kind == STEP_PREPEND) {
            ok = ok && ((*size == 0 || buf_puts(&out, s->text)) && buf_append(&out, *text, *size));
            if (!ok) no_memory(err);
        } else {
            ok = ok && replace(&out, m, s, *text, *size, err);
        }
        if (!ok || !check_size(out.size, err)) {
            buf_free(&out);
            return false;
        }
        mem_free(*owned);
        *owned = out.data;
        *text = out.data;
        *size = out.size;
    }
    return true;
}

static bool split_characters(struct ranges *r, bool (*is)(uint32_t), const char *text, size_t size)
{
    size_t done = 0;
    for (size_t at = 0; at < size;) {
        const size_t start = at;
        if (!is(utf8_next(text, &at))) continue;
        if (done < start && !ranges_add(r, done, start, 0)) return false;
        if (!ranges_add(r, start, at, 1)) return false;
        done = at;
    }
    return done >= size || ranges_add(r, done, size, 0);
}

// Runs of word characters and of other ones as matches, white space between them.
static bool split_words(struct ranges *r, const char *text, size_t size)
{
    size_t start = 0;
    int run = -1; // kind of the current run: 0 white space, 1 word, 2 other
    for (size_t at = 0; at < size;) {
        const size_t here = at;
        const uint32_t c = utf8_next(text, &at);
        const int kind = unicode_is_word(c) ? 1 : unicode_is_space(c) ? 0 : 2;
        if (run >= 0 && kind != run) {
            if (!ranges_add(r, start, here, run > 0)) return false;
            start = here;
        }
        run = kind;
    }
    return run < 0 || ranges_add(r, start, size, run > 0);
}

// Joins or drops the ranges from `base` on as the behavior says.
bool ranges_merge(struct ranges *r, int64_t base, enum behavior behavior, bool invert)
{
    struct range *at = r->at + base;
    const int64_t n = r->count - base;
    int64_t kept = 0;
    bool previous = false;
    for (int64_t k = 0; k < n; k++) {
        const int64_t i = behavior == MERGED_WITH_NEXT ? n - 1 - k : k;
        struct range piece = at[i];
        const bool is_match = (piece.id != 0) != invert;
        const bool join = behavior == CONTIGUOUS ? is_match == previous
                          : behavior == MERGED_WITH_NEXT || behavior == MERGED_WITH_PREVIOUS
                              ? is_match && !previous
                              : false;
        previous = is_match;
        if (behavior == REMOVED && is_match) continue;
        // Going backwards the results gather at the end: index n - 1 - kept.
        struct range *last = behavior == MERGED_WITH_NEXT ? &at[n - kept] : &at[kept - 1];
        if (join && kept > 0) {
            if (behavior == MERGED_WITH_NEXT) {
                last->start = piece.start;
            } else {
                last->end = piece.end;
            }
            continue;
        }
        at[behavior == MERGED_WITH_NEXT ? n - 1 - kept : kept] = piece;
        kept++;
    }
    if (behavior == MERGED_WITH_NEXT && kept < n) {
        memmove(at, at + n - kept, (size_t)kept * sizeof *at);
    }
    r->count = base + kept;
    return true;
}

static bool run_step(struct encoder *e, int index, struct piece p);

static bool run_split(struct encoder *e, int index, struct piece p)
{
    const struct step *s = &e->t->pre_tokenizer.step[index];
    const int64_t base = e->ranges.count;
    bool ok;
    switch (s->kind) {
    case STEP_NUMBERS:
        ok = split_characters(&e->ranges, unicode_is_numeric, p.text, p.size) || no_memory(e->err);
        break;
    case STEP_SPACES:
        ok = split_characters(&e->ranges, unicode_is_space, p.text, p.size) || no_memory(e->err);
        break;
    case STEP_WORDS:
        ok = split_words(&e->ranges, p.text, p.size) || no_memory(e->err);
        break;
    default:
        ok = regex_split(&e->matcher, s->regex, p.shadow, p.size, &e->ranges, e->err);
        break;
    }
    if (!ok) return false;
    if (s->behavior != ISOLATED) ranges_merge(&e->ranges, base, s->behavior, s->invert);
    const int64_t end = e->ranges.count;
    for (int64_t i = base; ok && i < end; i++) {
        const struct range at = e->ranges.at[i]; // a copy: the array may move below
        if (at.start == at.end) continue;
        const struct piece part = {p.text + at.start, p.shadow + at.start, at.end - at.start,
                                   p.at_start && at.start == 0};
        ok = run_step(e, index + 1, part);
    }
    e->ranges.count = base;
    return ok;
}

// Goes on with a changed text.
static bool run_changed(struct encoder *e, int index, struct buf *text, bool at_start)
{
    char *shadow = NULL;
    bool ok = check_size(text->size, e->err) &&
              (unicode_shadow(&shadow, text->data, text->size) || no_memory(e->err));
    const struct piece p = {text->data, shadow ? shadow : text->data, text->size, at_start};
    ok = ok && (p.size == 0 || run_step(e, index, p));
    mem_free(shadow);
    buf_free(text);
    return ok;
}

static bool run_prefix(struct encoder *e, int index, struct piece p)
{
    const struct step *s = &e->t->pre_tokenizer.step[index];
    const size_t n = strlen(s->text);
    if ((p.size >= n && memcmp(p.text, s->text, n) == 0) || (s->first && !p.at_start)) {
        return run_step(e, index + 1, p);
    }
    struct buf text = {0};
    if (!buf_puts(&text, s->text) || !buf_append(&text, p.text, p.size)) {
        buf_free(&text);
        return no_memory(e->err);
    }
    return run_changed(e, index + 1, &text, p.at_start);
}

static bool run_step(struct encoder *e, int index, struct piece p)
{
    const struct steps *steps = &e->t->pre_tokenizer;
    if (index == steps->count) {
        return bpe_encode(&e->t->bpe, &e->scratch, p.text, p.size, e->out) || no_memory(e->err);
    }
    const struct step *s = &steps->step[index];
    if (s->kind == STEP_PREFIX) return run_prefix(e, index, p);
    if (s->kind != STEP_REPLACE) return run_split(e, index, p);
    struct buf text = {0};
    const bool ok = (buf_reserve(&text, p.size) || no_memory(e->err)) &&
                    replace(&text, &e->matcher, s, p.text, p.size, e->err);
    if (!ok) {
        buf_free(&text);
        return false;
    }
    return run_changed(e, index + 1, &text, p.at_start);
}

bool pieces_encode(struct encoder *e, const char *text, size_t size, bool at_start)
{
    char *shadow = NULL;
    if (size == 0) return true;
    if (!unicode_shadow(&shadow, text, size)) return no_memory(e->err);
    const bool ok = run_step(e, 0, (struct piece){text, shadow ? shadow : text, size, at_start});
    mem_free(shadow);
    return ok;
}
