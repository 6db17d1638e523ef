// io/model_template_turns.c - which words of a rendered text are an assistant's. What {% generation %}
// blocks wrote, where the template has them. Else turn by turn, by where each byte comes from: before turn
// i stand the last words of others and then its header, which is what the template writes behind those
// words when it is asked for an answer; the turn ends with its own last byte and what the template writes
// behind that when the turn is the last. No prefix of the text is compared, so a template that writes
// earlier turns otherwise than last ones (without their thinking) is understood, too.
#include "base/log.h"
#include "base/mem.h"
#include "io/model_template_parts.h"

#include <string.h>

static bool add_region(struct regions *r, size_t start, size_t end, int64_t message,
                       struct error *err)
{
    if (r->count && start < r->at[r->count - 1].end) start = r->at[r->count - 1].end;
    if (start >= end) return true;
    struct region *grown = array_grow(r->at, r->count, &r->capacity, sizeof *grown);
    if (!grown) return fail(err, "out of memory");
    r->at = grown;
    r->at[r->count++] = (struct region){start, end, message};
    return true;
}

static bool is_assistant(const struct turns *c, int64_t i)
{
    return strcmp(c->message[i].role, "assistant") == 0;
}

// ---- {% generation %}

// Whose words they are: of the turn that bytes of it come from, else of the k-th assistant's.
static int64_t turn_of(const struct turns *c, const struct jinja_text *text,
                       struct jinja_range range, int64_t k)
{
    int64_t last = 0;
    for (size_t i = range.start; i < range.end && i < text->size; i++) {
        const uint16_t from = text->origin[i];
        if (from && from != JINJA_DATA && is_assistant(c, from - 1)) return from - 1;
    }
    for (int64_t i = 0; i < c->n; i++) {
        if (!is_assistant(c, i)) continue;
        last = i;
        if (k-- == 0) break;
    }
    return last;
}

static bool generated_regions(struct regions *out, const struct turns *c,
                              const struct jinja_text *text, struct error *err)
{
    for (int64_t i = 0; i < text->n_generated; i++) {
        struct jinja_range g = text->generated[i];
        if (g.end > text->size) g.end = text->size;
        if (!add_region(out, g.start, g.end, turn_of(c, text, g, i), err)) return false;
    }
    return true;
}

// ---- turn by turn

// Behind the last byte before `end` that is data, of turn i only or of any but it; 0: there is none.
static size_t behind_data(const struct jinja_text *t, size_t end, int64_t i, bool own)
{
    while (end > 0 && !(t->origin[end - 1] && (t->origin[end - 1] == i + 1) == own)) {
        end--;
    }
    return end;
}

static size_t first_of(const struct jinja_text *t, int64_t i)
{
    size_t at = 0;
    while (at < t->size && t->origin[at] != i + 1) {
        at++;
    }
    return at;
}

// Where the first byte of a later turn is.
static size_t first_after(const struct jinja_text *t, int64_t i)
{
    size_t at = 0;
    while (at < t->size && !(t->origin[at] > i + 1 && t->origin[at] != JINJA_DATA)) {
        at++;
    }
    return at;
}

// To the start of the character at i.
static size_t whole_characters(const char *s, size_t n, size_t i)
{
    while (i > 0 && i < n && ((unsigned char)s[i] & 0xC0) == 0x80) {
        i--;
    }
    return i;
}

// Where a turn begins whose header stands in the gap before it only in part: behind the most of the header's
// end that is there, or, if that is more, of its beginning. 0: nothing of it.
static size_t partial_header(const char *gap, size_t n, const char *header, size_t size)
{
    size_t begins = 0, behind = 0, most = 0;
    while (begins < n && begins < size && gap[begins] == header[begins]) {
        begins++;
    }
    for (size_t end = n; end > 0; end--) {
        size_t k = 0;
        while (k < end && k < size && gap[end - 1 - k] == header[size - 1 - k]) {
            k++;
        }
        if (k <= most) continue;
        most = k;
        behind = end;
    }
    return most >= begins && most ? behind : whole_characters(gap, n, begins);
}

// Where turn i begins in the text: behind its header. SIZE_MAX: not found.
static size_t turn_start(const struct jinja_text *t, const struct jinja_text *asked, int64_t i)
{
    const size_t first = first_of(t, i), limit = first < t->size ? first : first_after(t, i);
    const size_t from = behind_data(asked, asked->size, i, false), size = asked->size - from;
    const char *header = asked->bytes + from;
    const size_t at = behind_data(t, limit, i, false);
    if (limit - at >= size && memcmp(t->bytes + at, header, size) == 0) return at + size;
    if (first < t->size) {
        const size_t n = partial_header(t->bytes + at, limit - at, header, size);
        return n ? at + n : SIZE_MAX;
    }
    // A turn without a byte of its own has its header somewhere before the next one's.
    const char *found = size ? memmem(t->bytes + at, limit - at, header, size) : NULL;
    return found ? (size_t)(found - t->bytes) + size : SIZE_MAX;
}

static size_t without_space(const struct jinja_text *t, size_t start, size_t end)
{
    while (end > start && strchr(" \t\n\r", t->bytes[end - 1])) {
        end--;
    }
    return end;
}

// One token of the kind <...> that stands at once, for a template that closes last turns otherwise.
static size_t one_mark(const struct jinja_text *t, size_t at)
{
    if (at >= t->size || t->bytes[at] != '<' || t->origin[at]) return 0;
    const char *close = memchr(t->bytes + at, '>', t->size - at);
    const size_t n = close ? (size_t)(close - t->bytes) - at + 1 : 0;
    return n && n < 64 && !memchr(t->bytes + at, '\n', n) && !memchr(t->bytes + at, ' ', n) ? n : 0;
}

// Where turn i ends: behind its last byte and what closes it. `alone` is the text in which it is the last.
static size_t turn_end(const struct jinja_text *t, const struct jinja_text *alone, int64_t i,
                       size_t start, size_t alone_start)
{
    size_t own = behind_data(t, t->size, i, true), last = behind_data(alone, alone->size, i, true);
    if (own < start) own = start; // an empty turn
    if (last < alone_start) last = alone_start;
    const size_t closes = without_space(alone, last, alone->size) - last;
    if (t->size - own >= closes && memcmp(t->bytes + own, alone->bytes + last, closes) == 0)
        return own + closes;
    return own + one_mark(t, own);
}

static void tell_changed(const struct turns *c, const struct jinja_text *t,
                         const struct jinja_text *alone)
{
    const size_t n = without_space(alone, 0, alone->size);
    if (c->t->told_changed || (n <= t->size && memcmp(t->bytes, alone->bytes, n) == 0)) return;
    c->t->told_changed = true;
    log_warning(
        "the model's template writes an assistant's turn otherwise once others follow (it drops "
        "thinking, say): such turns are learnt as they stand then; --loss-on last learns the last "
        "alone");
}

static bool find_turn(struct regions *out, const struct turns *c, const struct jinja_text *t,
                      int64_t i, bool *found, struct error *err)
{
    struct jinja_text asked = {0}, alone = {0};
    bool ok = turns_render(c, i, true, &asked, err) && turns_render(c, i + 1, false, &alone, err);
    *found = false;
    if (!ok) { // a template may refuse a part of a conversation that it takes as a whole
        ok = !asked.no_memory && !alone.no_memory;
    } else {
        const size_t start = turn_start(t, &asked, i), alone_start = turn_start(&alone, &asked, i);
        *found = start != SIZE_MAX && alone_start != SIZE_MAX;
        if (*found) {
            tell_changed(c, t, &alone);
            ok = add_region(out, start, turn_end(t, &alone, i, start, alone_start), i, err);
        }
    }
    jinja_text_free(&asked);
    jinja_text_free(&alone);
    return ok;
}

static void tell_missing(const struct turns *c, int64_t i, const char *why)
{
    if (c->t->told_missing) return;
    c->t->told_missing = true;
    log_warning(
        "turn %lld of a conversation is an assistant's, but its words are not found in what the "
        "model's template writes%s%.500s: not learnt, as all such from here on",
        (long long)i + 1, *why ? ": " : "", why);
}

bool regions_find(struct regions *out, const struct turns *c, const struct jinja_text *text,
                  struct error *err)
{
    if (jinja_has_generation(c->template)) return generated_regions(out, c, text, err);
    int64_t missing = 0;
    struct error why = {0};
    for (int64_t i = 0; i < c->n; i++) {
        bool found;
        if (!is_assistant(c, i)) continue;
        why.msg[0] = 0;
        if (!find_turn(out, c, text, i, &found, &why)) return fail(err, "%s", why.msg);
        if (found) continue;
        tell_missing(c, i, why.msg);
        missing += first_of(text, i) < text->size; // an empty one is no loss
    }
    if (out->count || !missing) return true;
    return fail(err,
                "the assistant's words are not found in what the model's template writes%s%.500s; "
                "expected {%% generation %%} in it, or another --template",
                *why.msg ? ": " : "", why.msg);
}
