// io/tokenizer_marks.c - which bytes of a text each id stands for, where they are marked differently. Ids
// of byte-level and of plain BPE spell the (normalized) text, so their lengths tell; where they do not,
// the text up to each change of marks is encoded alone.
#include "io/tokenizer_parts.h"

#include <string.h>

bool *tokenizer_written(const struct tokenizer *t, const char *text)
{
    bool *written = mem_zalloc((size_t)t->added.count + 1, sizeof *written);
    for (int64_t i = 0; written && i < t->added.count; i++) {
        const char *content = t->added.token[i].content;
        const bool blank = !content[strspn(content, " \t\n\r")]; // ordinary text in templates
        written[i] = !t->added.token[i].special && !blank && strstr(text, content);
    }
    return written;
}

// Bytes of text that an id spells; 0: not known.
static size_t spelled(const struct tokenizer *t, int32_t id)
{
    const int32_t index = t->added.by_id[id];
    if (index >= 0) return strlen(t->added.token[index].pattern);
    const char *token = id < t->bpe.size ? t->bpe.token[id] : NULL;
    if (!token || id == t->bpe.unk) return 0;
    const size_t size = strlen(token);
    if (!t->bpe.byte_level) {
        return t->bpe.byte_fallback && size == 6 && memcmp(token, "<0x", 3) == 0 ? 1 : size;
    }
    size_t n = 0;
    for (size_t at = 0; at < size; n++) { // a byte each
        if (byte_level_byte(utf8_next(token, &at)) < 0) return 0;
    }
    return n;
}

// A stretch of equal flags, and where it ends in the normalized text or among the ids.
struct run {
    size_t end;
    uint8_t flags;
    int64_t to;
};
struct runs {
    struct run *at;
    int64_t count, capacity;
};

// Characters stay whole, for what is done with a run alone: one has the flags of all its bytes.
static bool find_runs(struct runs *r, const char *text, const uint8_t *flags, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint8_t of_character = 0;
        do {
            of_character |= flags[at++];
        } while (at < size && ((unsigned char)text[at] & 0xC0U) == 0x80U);
        if (r->count && r->at[r->count - 1].flags == of_character) {
            r->at[r->count - 1].end = at;
            continue;
        }
        struct run *grown = array_grow(r->at, r->count, &r->capacity, sizeof *grown);
        if (!grown) return false;
        r->at = grown;
        r->at[r->count++] = (struct run){at, of_character, 0};
    }
    return true;
}

// Where each run ends once the text is normalized, and the size of the whole in *size.
static bool normalized_ends(struct encoder *e, struct runs *runs, const char *text, size_t *size)
{
    for (int64_t i = runs->count - 1; i >= 0; i--) {
        const char *part = text;
        size_t n = runs->at[i].end;
        char *owned = NULL;
        if (!normalizer_run(&e->t->normalizer, &e->matcher, &part, &n, &owned, e->err))
            return false;
        const bool changed = owned != NULL;
        mem_free(owned);
        runs->at[i].to = (int64_t)n;
        if (i + 1 < runs->count) continue;
        *size = n;
        if (changed) continue;
        for (; i >= 0; i--) {
            runs->at[i].to = (int64_t)runs->at[i].end;
        }
    }
    return true;
}

// Where each run ends among the ids, by what it becomes alone.
static bool encoded_ends(struct encoder *e, struct runs *runs, const char *text, bool at_start)
{
    for (int64_t i = 0; i < runs->count; i++) {
        struct tokens ids = {0};
        struct encoder alone = {.t = e->t, .out = &ids, .err = e->err, .special = e->special};
        const bool ok = stretch_encode(&alone, text, runs->at[i].end, at_start);
        runs->at[i].to = ids.count;
        tokens_free(&ids);
        mem_free(alone.ranges.at);
        matcher_close(&alone.matcher);
        bpe_scratch_free(&alone.scratch);
        if (!ok) return false;
    }
    runs->at[runs->count - 1].to = INT64_MAX;
    return true;
}

// The flags of [from, to) in the units of `to`.
static char flags_between(const struct runs *runs, int64_t from, int64_t to)
{
    uint8_t flags = 0;
    int64_t start = 0;
    for (int64_t i = 0; i < runs->count; i++) {
        if (start < to && runs->at[i].to > from) flags |= runs->at[i].flags;
        start = runs->at[i].to;
    }
    return (char)flags;
}

static bool assign(struct encoder *e, struct runs *runs, const char *text, int64_t before,
                   bool at_start)
{
    const int32_t *id = e->out->id + before;
    const int64_t n = e->out->count - before;
    size_t size = 0, sum = 0;
    bool known = true;
    if (!normalized_ends(e, runs, text, &size)) return false;
    for (int64_t i = 0; i < n; i++) {
        known = known && spelled(e->t, id[i]) > 0;
        sum += spelled(e->t, id[i]);
    }
    known = known && sum == size;
    if (!known && !encoded_ends(e, runs, text, at_start)) return false;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t end = at + (known ? (int64_t)spelled(e->t, id[i]) : 1);
        const char flags = flags_between(runs, at, end);
        if (!buf_append(e->flags, &flags, 1)) return no_memory(e->err);
        at = end;
    }
    return true;
}

bool marks_assign(struct encoder *e, size_t start, size_t end, int64_t before, bool one_token)
{
    struct runs runs = {0};
    bool ok = find_runs(&runs, e->base + start, e->marks->flags + start, end - start) ||
              no_memory(e->err);
    if (ok && !one_token && runs.count > 1) {
        ok = assign(e, &runs, e->base + start, before, start == 0);
    } else if (ok) {
        uint8_t flags = 0;
        for (int64_t i = 0; i < runs.count; i++) {
            flags |= runs.at[i].flags;
        }
        for (int64_t i = before; ok && i < e->out->count; i++) {
            ok = buf_append(e->flags, &flags, 1) || no_memory(e->err);
        }
    }
    mem_free(runs.at);
    return ok;
}
