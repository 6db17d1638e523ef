// io/tokenizer_vocab.c - the model's tables: token <-> id and the merges, read from tokenizer.json.
#include "io/json.h"
#include "io/tokenizer_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool no_memory(struct error *err)
{
    return fail(err, "tokenizer: no memory");
}

static uint64_t hash_bytes(const char *key, size_t size)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ size, word;
    for (; size >= 8; key += 8, size -= 8) {
        memcpy(&word, key, 8);
        h = (h ^ word) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, key, size);
    h = (h ^ word) * 0xFF51AFD7ED558CCDu;
    return h ^ h >> 29;
}

bool string_map_open(struct string_map *m, size_t count)
{
    uint64_t slots = 16;
    while (slots < 2 * count) {
        slots *= 2;
    }
    m->slot = mem_zalloc(slots, sizeof *m->slot);
    m->mask = slots - 1;
    return m->slot != NULL;
}

void string_map_close(struct string_map *m)
{
    mem_free(m->slot);
    *m = (struct string_map){0};
}

// The slot that holds the key, or the free one where it would go.
static struct string_entry *find_slot(const struct string_map *m, const char *key, size_t size)
{
    uint64_t i = hash_bytes(key, size) & m->mask;
    for (;; i = (i + 1) & m->mask) {
        struct string_entry *e = &m->slot[i];
        if (!e->key || (e->size == size && memcmp(e->key, key, size) == 0)) return e;
    }
}

bool string_map_add(struct string_map *m, const char *key, size_t size, int32_t id)
{
    struct string_entry *e = find_slot(m, key, size);
    if (e->key) return false;
    *e = (struct string_entry){key, (uint32_t)size, id};
    return true;
}

int32_t string_map_find(const struct string_map *m, const char *key, size_t size)
{
    if (!m->slot) return -1;
    const struct string_entry *e = find_slot(m, key, size);
    return e->key ? e->id : -1;
}

uint32_t byte_level_char(unsigned char byte)
{
    if (byte < 0x21) return 0x100u + byte;
    if (byte >= 0x7F && byte <= 0xA0) return 0x121u + byte - 0x7Fu;
    return byte == 0xAD ? 0x143 : byte;
}

int byte_level_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD)) return (int)c;
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

bool byte_level_decode(char *out, size_t *n, const char *text, size_t size)
{
    *n = 0;
    for (size_t at = 0; at < size;) {
        const int byte = byte_level_byte(utf8_next(text, &at));
        if (byte < 0) return false;
        out[(*n)++] = (char)byte;
    }
    return true;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct merge *merge_slot(const struct merge_map *m, uint64_t pair)
{
    uint64_t i = pair * 0x9E3779B97F4A7C15u;
    for (i = (i ^ i >> 31) & m->mask;; i = (i + 1) & m->mask) {
        if (m->slot[i].id < 0 || m->slot[i].pair == pair) return &m->slot[i];
    }
}

const struct merge *bpe_find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    const struct merge *m = merge_slot(&b->merges, pair_of(left, right));
    return m->id < 0 ? NULL : m;
}

static bool vocab_size(struct bpe *b, json_t *vocab, size_t *bytes, const char *where,
                       struct error *err)
{
    const int64_t limit = (int64_t)json_object_size(vocab) + (1 << 20);
    const char *key;
    json_t *value;
    json_object_foreach(vocab, key, value)
    {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= limit) {
            return fail(err, "%s: model.vocab: \"%.60s\" has no id from 0 to %" PRId64, where, key,
                        limit - 1);
        }
        if (id >= b->size) b->size = id + 1;
        *bytes += strlen(key) + 1;
    }
    return true;
}

static bool read_vocab(struct bpe *b, json_t *vocab, const char *where, struct error *err)
{
    size_t bytes = 0;
    if (!json_is_object(vocab) || json_object_size(vocab) == 0) {
        return fail(err, "%s: model.vocab is no object with tokens", where);
    }
    if (!vocab_size(b, vocab, &bytes, where, err)) return false;
    const size_t count = json_object_size(vocab);
    // One block: the tokens as in the file, then the bytes they stand for.
    b->spellings = mem_alloc(2 * bytes);
    b->token = mem_zalloc((size_t)b->size, sizeof *b->token);
    b->whole = mem_zalloc((size_t)b->size, sizeof *b->whole);
    if (!b->spellings || !b->token || !b->whole || !string_map_open(&b->by_text, count) ||
        !string_map_open(&b->by_word, count)) {
        return no_memory(err);
    }
    char *text = b->spellings, *word = b->spellings + bytes;
    const char *key;
    json_t *value;
    json_object_foreach(vocab, key, value)
    {
        const int32_t id = (int32_t)json_integer_value(value);
        const size_t size = strlen(key);
        size_t n = size;
        if (b->token[id]) {
            return fail(err, "%s: model.vocab: \"%.60s\" and \"%.60s\" both have id %d", where,
                        b->token[id], key, id);
        }
        memcpy(text, key, size + 1);
        b->token[id] = text;
        string_map_add(&b->by_text, text, size, id);
        text += size + 1;
        if (b->byte_level) {
            if (!byte_level_decode(word, &n, key, size)) continue;
        } else {
            memcpy(word, key, size);
        }
        if (n > 0) string_map_add(&b->by_word, word, n, id);
        word += n;
    }
    return true;
}

// Splits "left right" at its one space.
static bool split_merge(json_t *m, const char **left, size_t *left_size, const char **right)
{
    if (json_is_string(m)) {
        *left = json_string_value(m);
        const char *space = strchr(*left, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        *left_size = (size_t)(space - *left);
        *right = space + 1;
        return true;
    }
    if (json_array_size(m) != 2) return false;
    *left = json_string_value(json_array_get(m, 0));
    *right = json_string_value(json_array_get(m, 1));
    if (!*left || !*right) return false;
    *left_size = strlen(*left);
    return true;
}

static bool read_merge(struct bpe *b, json_t *m, size_t index, uint32_t rank, struct buf *joined,
                       const char *where, struct error *err)
{
    const char *left, *right;
    size_t n;
    if (!split_merge(m, &left, &n, &right)) {
        return fail(err, "%s: model.merges[%zu] is no pair of tokens", where, index);
    }
    joined->size = 0;
    if (!buf_append(joined, left, n) || !buf_puts(joined, right)) return no_memory(err);
    const int32_t a = string_map_find(&b->by_text, left, n),
                  c = string_map_find(&b->by_text, right, strlen(right)),
                  id = string_map_find(&b->by_text, joined->data, joined->size);
    if (a < 0 || c < 0 || id < 0) {
        return fail(err, "%s: model.merges[%zu]: \"%.60s\" is not in the vocabulary", where, index,
                    id < 0 && a >= 0 && c >= 0 ? joined->data
                    : a < 0                    ? left
                                               : right);
    }
    struct merge *slot = merge_slot(&b->merges, pair_of(a, c));
    *slot = (struct merge){pair_of(a, c), rank, id}; // of two equal pairs the later one counts
    return true;
}

static bool read_merges(struct bpe *b, json_t *merges, const char *where, struct error *err)
{
    if (!json_is_array(merges)) return fail(err, "%s: model.merges is no array", where);
    const size_t count = json_array_size(merges);
    uint64_t slots = 16;
    while (slots < 2 * count) {
        slots *= 2;
    }
    b->merges.slot = mem_alloc(slots * sizeof *b->merges.slot);
    if (!b->merges.slot) return no_memory(err);
    b->merges.mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++) {
        b->merges.slot[i].id = -1;
    }

    struct buf joined = {0};
    bool ok = true, strings = json_is_string(json_array_get(merges, 0));
    uint32_t rank = 0;
    for (size_t i = 0; ok && i < count; i++) {
        json_t *m = json_array_get(merges, i);
        if (json_is_string(m) != strings) {
            ok = fail(err, "%s: model.merges mixes strings and pairs, at [%zu]", where, i);
        } else if (!strings || strncmp(json_string_value(m), "#version", 8) != 0) {
            ok = read_merge(b, m, i, rank++, &joined, where, err);
        }
    }
    buf_free(&joined);
    return ok;
}

static void find_bytes(struct bpe *b)
{
    b->all_bytes = true;
    for (int i = 0; i < 256; i++) {
        char text[8];
        size_t n;
        if (b->byte_level) {
            n = utf8_put(text, byte_level_char((unsigned char)i));
        } else {
            n = (size_t)snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
        }
        b->byte_id[i] = string_map_find(&b->by_text, text, n);
        if (b->byte_id[i] < 0) b->all_bytes = false;
    }
}

static bool read_options(struct bpe *b, json_t *model, const char *where, struct error *err)
{
    const char *type = "BPE", *unk = NULL, *prefix = "", *suffix = "";
    double dropout = 0;
    if (!json_get_text(model, "type", false, &type, where, err) ||
        !json_get_text(model, "unk_token", false, &unk, where, err) ||
        !json_get_text(model, "continuing_subword_prefix", false, &prefix, where, err) ||
        !json_get_text(model, "end_of_word_suffix", false, &suffix, where, err) ||
        !json_get_bool(model, "fuse_unk", false, &b->fuse_unk, where, err) ||
        !json_get_bool(model, "byte_fallback", false, &b->byte_fallback, where, err) ||
        !json_get_bool(model, "ignore_merges", false, &b->ignore_merges, where, err) ||
        !json_get_real(model, "dropout", 0, 1, false, &dropout, where, err)) {
        return false;
    }
    if (strcmp(type, "BPE") != 0) {
        return fail(err, "%s: model.type is \"%.40s\", only BPE is implemented", where, type);
    }
    if (*prefix) return fail(err, "%s: model.continuing_subword_prefix is not implemented", where);
    if (*suffix) return fail(err, "%s: model.end_of_word_suffix is not implemented", where);
    if (dropout > 0) return fail(err, "%s: model.dropout is not implemented", where);
    if (b->byte_fallback && b->byte_level) {
        return fail(err, "%s: model.byte_fallback with ByteLevel is not implemented", where);
    }
    b->unk = unk ? string_map_find(&b->by_text, unk, strlen(unk)) : -1;
    if (unk && b->unk < 0) {
        return fail(err, "%s: model.unk_token \"%.60s\" is not in the vocabulary", where, unk);
    }
    return true;
}

// Most words of a text are tokens as they stand; knowing for which of them the merges lead there too
// makes a word one look-up.
static bool find_whole(struct bpe *b, struct error *err)
{
    struct bpe_scratch scratch = {0};
    struct tokens out = {0};
    bool ok = true;
    for (uint64_t i = 0; ok && i <= b->by_word.mask; i++) {
        const struct string_entry *e = &b->by_word.slot[i];
        if (!e->key) continue;
        out.count = 0;
        ok = bpe_encode(b, &scratch, e->key, e->size, &out);
        b->whole[e->id] = b->ignore_merges || (out.count == 1 && out.id[0] == e->id);
    }
    tokens_free(&out);
    bpe_scratch_free(&scratch);
    return ok || no_memory(err);
}

bool bpe_open(struct bpe *b, json_t *model, bool byte_level, const char *where, struct error *err)
{
    if (!json_is_object(model)) return fail(err, "%s: model is no object", where);
    b->byte_level = byte_level;
    if (!read_vocab(b, json_object_get(model, "vocab"), where, err)) return false;
    if (!read_options(b, model, where, err)) return false;
    if (!read_merges(b, json_object_get(model, "merges"), where, err)) return false;
    find_bytes(b);
    return find_whole(b, err);
}

void bpe_close(struct bpe *b)
{
    string_map_close(&b->by_text);
    string_map_close(&b->by_word);
    mem_free(b->merges.slot);
    mem_free(b->spellings);
    mem_free(b->token);
    mem_free(b->whole);
    *b = (struct bpe){0};
}
