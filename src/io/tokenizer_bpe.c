// io/tokenizer_bpe.c - one word into ids: its characters, joined pair by pair, lowest rank first and
// leftmost among equals. Short words are searched from end to end each time; long ones (a line without
// spaces, a file of one character) keep their candidates in a heap.
#include "io/tokenizer_parts.h"

#include <string.h>

enum { SHORT_WORD = 40 }; // symbols; about where the heap becomes the faster one

struct symbol {
    int32_t id;             // -1: joined into the one before
    int32_t previous, next; // -1: none
};

struct candidate {
    uint32_t rank;
    int32_t at, id; // the symbol to be joined with its next one, and what becomes of them
};

void bpe_scratch_free(struct bpe_scratch *s)
{
    mem_free(s->symbol);
    mem_free(s->heap);
    *s = (struct bpe_scratch){0};
}

// Every join takes one candidate away and adds at most two, so that 2n are enough.
static bool reserve(struct bpe_scratch *s, size_t n)
{
    if (n <= s->capacity) return true;
    const size_t capacity = n < 256 ? 256 : n;
    struct symbol *symbol = mem_realloc(s->symbol, capacity * sizeof *symbol);
    if (symbol) s->symbol = symbol;
    struct candidate *heap = mem_realloc(s->heap, 2 * capacity * sizeof *heap);
    if (heap) s->heap = heap;
    if (!symbol || !heap) return false;
    s->capacity = capacity;
    return true;
}

// The symbols of a word while they are found. An unknown token is held back until the next known
// character, as in `tokenizers`, so that bytes of a fallback overtake it.
struct first {
    struct symbol *symbol; // room for one a byte
    size_t n;
    bool held_back;
};

static void add_unknown(const struct bpe *b, struct first *f, const char *text, size_t size)
{
    bool bytes = b->byte_fallback;
    for (size_t i = 0; i < size; i++) {
        bytes = bytes && b->byte_id[(unsigned char)text[i]] >= 0;
    }
    if (bytes) {
        for (size_t i = 0; i < size; i++) {
            f->symbol[f->n++].id = b->byte_id[(unsigned char)text[i]];
        }
    } else if (b->unk >= 0) {
        if (f->held_back && !b->fuse_unk) f->symbol[f->n++].id = b->unk;
        f->held_back = true;
    }
}

static size_t first_symbols(const struct bpe *b, struct symbol *symbol, const char *word,
                            size_t size)
{
    struct first f = {.symbol = symbol};
    for (size_t at = 0; at < size;) {
        const size_t start = at;
        int32_t id;
        if (b->byte_level) {
            id = b->byte_id[(unsigned char)word[at++]];
        } else {
            utf8_next(word, &at);
            id = string_map_find(&b->by_word, word + start, at - start);
        }
        if (id < 0) {
            add_unknown(b, &f, word + start, at - start);
            continue;
        }
        if (f.held_back) f.symbol[f.n++].id = b->unk;
        f.held_back = false;
        f.symbol[f.n++].id = id;
    }
    if (f.held_back) f.symbol[f.n++].id = b->unk;
    return f.n;
}

static size_t join_short(const struct bpe *b, struct symbol *symbol, size_t n)
{
    const struct merge *pair[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) {
        pair[i] = bpe_find_merge(b, symbol[i].id, symbol[i + 1].id);
    }
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            if (pair[i] && (best == n || pair[i]->rank < pair[best]->rank)) best = i;
        }
        if (best == n) return n;
        symbol[best].id = pair[best]->id;
        n--;
        memmove(&symbol[best + 1], &symbol[best + 2], (n - best - 1) * sizeof *symbol);
        if (best + 1 < n)
            memmove(&pair[best + 1], &pair[best + 2], (n - best - 2) * sizeof(void *));
        if (best > 0) pair[best - 1] = bpe_find_merge(b, symbol[best - 1].id, symbol[best].id);
        if (best + 1 < n) pair[best] = bpe_find_merge(b, symbol[best].id, symbol[best + 1].id);
    }
}

static bool before(struct candidate a, struct candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void sift_down(struct candidate *heap, size_t n, size_t i)
{
    const struct candidate moving = heap[i];
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moving)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

// Adds the pair that starts at symbol `at`, if there is one and it merges.
static void push(const struct bpe *b, struct bpe_scratch *s, size_t *n, int32_t at)
{
    const int32_t next = at < 0 ? -1 : s->symbol[at].next;
    if (next < 0) return;
    const struct merge *m = bpe_find_merge(b, s->symbol[at].id, s->symbol[next].id);
    if (!m) return;
    const struct candidate c = {m->rank, at, m->id};
    size_t i = (*n)++;
    for (; i > 0 && before(c, s->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        s->heap[i] = s->heap[(i - 1) / 2];
    }
    s->heap[i] = c;
}

static void join_long(const struct bpe *b, struct bpe_scratch *s, size_t n)
{
    struct symbol *symbol = s->symbol;
    size_t candidates = 0;
    for (size_t i = 0; i < n; i++) {
        symbol[i].previous = (int32_t)i - 1;
        symbol[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i < n; i++) {
        push(b, s, &candidates, (int32_t)i);
    }
    while (candidates > 0) {
        const struct candidate top = s->heap[0];
        s->heap[0] = s->heap[--candidates];
        sift_down(s->heap, candidates, 0);

        struct symbol *left = &symbol[top.at];
        if (left->id < 0 || left->next < 0) continue;
        struct symbol *right = &symbol[left->next];
        const struct merge *m = bpe_find_merge(b, left->id, right->id);
        if (!m || m->id != top.id) continue; // something else was joined here since

        left->id = top.id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) symbol[left->next].previous = top.at;
        push(b, s, &candidates, left->previous);
        push(b, s, &candidates, top.at);
    }
}

bool bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t size,
                struct tokens *out)
{
    const int32_t id = string_map_find(&b->by_word, word, size);
    if (id >= 0 && b->whole[id]) return tokens_add(out, id);
    if (!reserve(s, size)) return false;
    size_t n = first_symbols(b, s->symbol, word, size);
    if (n <= SHORT_WORD) {
        n = join_short(b, s->symbol, n);
    } else {
        join_long(b, s, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (s->symbol[i].id >= 0 && !tokens_add(out, s->symbol[i].id)) return false;
    }
    return true;
}
