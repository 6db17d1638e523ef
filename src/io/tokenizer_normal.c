// io/tokenizer_normal.c - the normal forms of Unicode, as the crate that `tokenizers` uses computes them:
// by the tables of Unicode 9. A character that came later is left alone there, and nothing moves across
// it. The table holds those later ones that a newer utf8proc would treat otherwise.
#include "io/tokenizer_parts.h"

#include <string.h>
#include <utf8proc.h>

static const struct {
    uint32_t first, last;
} inert[] = {{0x0558, 0x0558},   {0x058B, 0x058C},   {0x05C8, 0x05C9},   {0x07FD, 0x07FD},
             {0x0897, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
             {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1AF0},
             {0x1DF6, 0x1DFA},   {0x209D, 0x209F},   {0x32FF, 0x32FF},   {0xA7F1, 0xA7F4},
             {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x105C0, 0x105F3}, {0x10781, 0x10785},
             {0x10787, 0x107B0}, {0x107B2, 0x107BF}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D},
             {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF},
             {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
             {0x11380, 0x113E2}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11938},
             {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
             {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
             {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16100, 0x1612F}, {0x16D40, 0x16D79},
             {0x16FF0, 0x16FF1}, {0x1B123, 0x1B126}, {0x1CCD6, 0x1CCF9}, {0x1D127, 0x1D128},
             {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C}, {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281},
             {0x1D6A6, 0x1D6A6}, {0x1DF95, 0x1DF95}, {0x1DFCD, 0x1DFFF}, {0x1E030, 0x1E06D},
             {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
             {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6},
             {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

static bool is_inert(uint32_t c)
{
    int low = 0, high = (int)(sizeof inert / sizeof inert[0]) - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (inert[middle].first <= c) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return c >= inert[low].first && c <= inert[low].last;
}

// Ranges of characters that form C keeps, whatever of the same ranges stands beside them.
bool unicode_is_normal_c(const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const uint32_t c = utf8_next(text, &at);
        if (c < 0x300 || (c >= 0x4E00 && c <= 0x9FFF)) continue;
        if ((c >= 0x2010 && c <= 0x205F) || (c >= 0x2200 && c <= 0x2328)) continue;
        if ((c >= 0x3000 && c <= 0x3029) || (c >= 0x3041 && c <= 0x3096)) continue;
        if ((c >= 0x30A0 && c <= 0x30FF) || (c >= 0xFF01 && c <= 0xFFEE)) continue;
        return false;
    }
    return true;
}

// Code points with room for one more decomposition.
struct points {
    int32_t *at;
    int64_t count, capacity;
};
enum { LONGEST_DECOMPOSITION = 18 }; // U+FDFA

static int combining_class(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

// Stable sort of a run of marks by class, by merging: a run may be a whole file.
static void sort_marks(int32_t *run, int32_t *spare, int64_t n)
{
    int32_t *from = run, *to = spare;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t start = 0; start < n; start += 2 * width) {
            const int64_t middle = start + width < n ? start + width : n;
            const int64_t end = start + 2 * width < n ? start + 2 * width : n;
            int64_t left = start, right = middle;
            for (int64_t i = start; i < end; i++) {
                const bool take_left =
                    left < middle &&
                    (right >= end || combining_class(from[left]) <= combining_class(from[right]));
                to[i] = from[take_left ? left++ : right++];
            }
        }
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != run) memcpy(run, from, (size_t)n * sizeof *run);
}

static bool order_marks(struct points *p)
{
    int32_t *spare = NULL;
    int64_t start = 0;
    for (int64_t i = 0; i <= p->count; i++) {
        if (i < p->count && combining_class(p->at[i]) != 0) continue;
        if (i - start > 1) {
            if (!spare && !(spare = mem_alloc((size_t)p->count * sizeof *spare))) return false;
            sort_marks(p->at + start, spare, i - start);
        }
        start = i + 1;
    }
    mem_free(spare);
    return true;
}

static bool decompose(struct points *p, uint32_t c, int options)
{
    if (p->capacity - p->count < LONGEST_DECOMPOSITION) {
        const int64_t wanted = p->capacity * 2 + 64;
        int32_t *grown = mem_realloc(p->at, (size_t)wanted * sizeof *grown);
        if (!grown) return false;
        p->at = grown;
        p->capacity = wanted;
    }
    int boundary = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, p->at + p->count, p->capacity - p->count,
                                (utf8proc_option_t)options, &boundary);
    if (n < 0 || n > LONGEST_DECOMPOSITION) return false;
    p->count += n;
    return true;
}

// Appends what has been gathered, in order and composed, and empties it.
static bool flush(struct buf *out, struct points *p, bool compose)
{
    if (!order_marks(p)) return false;
    if (compose && p->count > 0) {
        p->count = utf8proc_normalize_utf32(p->at, p->count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    }
    for (int64_t i = 0; i < p->count; i++) {
        if (!buf_reserve(out, 4)) return false;
        out->size += utf8_put(out->data + out->size, (uint32_t)p->at[i]);
    }
    p->count = 0;
    return true;
}

bool unicode_normalize(struct buf *out, const char *text, size_t size, enum normal_form form)
{
    const bool compose = form == NORMAL_C || form == NORMAL_KC;
    const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                        (form == NORMAL_KC || form == NORMAL_KD ? UTF8PROC_COMPAT : 0);
    struct points p = {0};
    bool ok = true;
    for (size_t at = 0; ok && at < size;) {
        const size_t start = at;
        const uint32_t c = utf8_next(text, &at);
        if (is_inert(c)) {
            ok = flush(out, &p, compose) && buf_append(out, text + start, at - start);
        } else {
            ok = decompose(&p, c, options);
        }
    }
    ok = ok && flush(out, &p, compose) && buf_reserve(out, 0);
    if (ok) out->data[out->size] = 0;
    mem_free(p.at);
    return ok;
}
