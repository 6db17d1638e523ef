// io/tokenizer_added.c - added tokens: found in the text before anything else sees it, leftmost first,
// the longest at each place. Those that are not `normalized` are looked for in the text as written, the
// others, in their normalized form, in what the normalizer made of the rest.
#include "io/json.h"
#include "io/tokenizer_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST_TOKEN = 1024, MOST_TOKENS = 1 << 20 }; // bytes; so that a search stays linear

struct trie_node {
    int32_t child, sibling; // -1: none
    int32_t token;          // index of the token that ends here; -1: none
    unsigned char byte;
};

static int32_t trie_child(struct trie *t, int32_t *link, unsigned char byte)
{
    for (int32_t i = *link; i >= 0; i = t->node[i].sibling) {
        if (t->node[i].byte == byte) return i;
    }
    const int32_t first = *link, added = (int32_t)t->count;
    *link = added; // before the array moves: link may point into it
    struct trie_node *node = array_grow(t->node, t->count, &t->capacity, sizeof *node);
    if (!node) return -1;
    t->node = node;
    t->node[t->count++] = (struct trie_node){-1, first, -1, byte};
    return added;
}

static bool trie_add(struct trie *t, const char *pattern, size_t size, int32_t token,
                     bool *duplicate)
{
    int32_t at = -1;
    for (size_t i = 0; i < size; i++) {
        const unsigned char byte = (unsigned char)pattern[i];
        at = trie_child(t, i ? &t->node[at].child : &t->root[byte], byte);
        if (at < 0) return false;
    }
    *duplicate = t->node[at].token >= 0;
    t->node[at].token = token;
    return true;
}

// Token with the longest match at the start of the text, its length in *size; -1: none.
static int32_t trie_match(const struct trie *t, const char *text, size_t *size)
{
    int32_t found = -1, at = t->root[(unsigned char)text[0]];
    const size_t limit = *size;
    for (size_t i = 1; at >= 0; i++) {
        if (t->node[at].token >= 0) {
            found = t->node[at].token;
            *size = i;
        }
        if (i == limit) break;
        const unsigned char byte = (unsigned char)text[i];
        for (at = t->node[at].child; at >= 0 && t->node[at].byte != byte;) {
            at = t->node[at].sibling;
        }
    }
    return found;
}

bool ranges_add(struct ranges *r, size_t start, size_t end, int32_t id)
{
    struct range *at = array_grow(r->at, r->count, &r->capacity, sizeof *at);
    if (!at) return false;
    r->at = at;
    r->at[r->count++] = (struct range){(uint32_t)start, (uint32_t)end, id};
    return true;
}

static bool word_before(const char *text, size_t at)
{
    if (at == 0) return false;
    size_t start = utf8_before(text, at);
    return unicode_is_word(utf8_next(text, &start));
}

static bool word_after(const char *text, size_t size, size_t at)
{
    return at < size && unicode_is_word(utf8_next(text, &at));
}

static size_t skip_spaces_left(const char *text, size_t from, size_t at)
{
    while (at > from) {
        const size_t start = utf8_before(text, at);
        size_t next = start;
        if (!unicode_is_space(utf8_next(text, &next))) break;
        at = start;
    }
    return at;
}

static size_t skip_spaces_right(const char *text, size_t size, size_t at)
{
    while (at < size) {
        size_t next = at;
        if (!unicode_is_space(utf8_next(text, &next))) break;
        at = next;
    }
    return at;
}

static bool is_guarded(const struct added_guard *g, const struct added *a, int32_t index,
                       size_t start, size_t end)
{
    if (!g) return false;
    uint8_t most = g->all;
    for (size_t i = start; g->of && i < end; i++) {
        most = g->of[i] > most ? g->of[i] : most;
    }
    return most && (a->token[index].special || (most > 1 && g->written[index]));
}

// A match that is discarded still hides what overlaps it, and a search goes on behind the match, not
// behind the spaces that it took to its right: so it is in `tokenizers`.
bool added_split(const struct added *a, bool normalized, const char *text, size_t size,
                 bool special, const struct added_guard *guard, struct ranges *out)
{
    const struct trie *trie = normalized ? &a->normalized : &a->as_written;
    size_t done = 0;       // what lies before has its range
    size_t spaces_end = 0; // of the last run of spaces taken: tokens within it need not look again
    for (size_t at = 0; at < size;) {
        size_t length = size - at;
        const int32_t index = trie_match(trie, text + at, &length);
        if (index < 0) {
            at++;
            continue;
        }
        const struct added_token *token = &a->token[index];
        size_t start = at, end = at + length;
        if (is_guarded(guard, a, index, start, end)) {
            at++; // it hides nothing: a template's token may begin within it
            continue;
        }
        at = end;
        if (token->special && !special) continue;
        if (token->single_word && (word_before(text, start) || word_after(text, size, end)))
            continue;
        if (token->lstrip) start = start < done ? done : skip_spaces_left(text, done, start);
        if (token->rstrip) {
            if (end > spaces_end) spaces_end = skip_spaces_right(text, size, end);
            end = spaces_end;
        }
        if (done < start && !ranges_add(out, done, start, -1)) return false;
        if (!ranges_add(out, start, end, token->id)) return false;
        done = end;
    }
    return done >= size || ranges_add(out, done, size, -1);
}

// The id that `tokenizers` gives the token, whatever the file says: that of the model, or the next one.
static bool check_id(int64_t id, const char *content, size_t size, const struct bpe *b,
                     int64_t *next, const char *where, struct error *err)
{
    const int32_t known = string_map_find(&b->by_text, content, size);
    const int64_t expected = known >= 0 ? known : *next;
    if (known < 0) (*next)++;
    if (id == expected) return true;
    return fail(err, "%s: added token \"%.60s\" has id %" PRId64 ", expected %" PRId64, where,
                content, id, expected);
}

static bool read_token(struct added_token *token, json_t *value, const char *where,
                       struct error *err)
{
    const char *content = NULL;
    int64_t id = -1;
    if (!json_get_text(value, "content", true, &content, where, err) ||
        !json_get_int(value, "id", 0, INT32_MAX - 1, true, &id, where, err) ||
        !json_get_bool(value, "special", true, &token->special, where, err) ||
        !json_get_bool(value, "normalized", true, &token->normalized, where, err) ||
        !json_get_bool(value, "lstrip", true, &token->lstrip, where, err) ||
        !json_get_bool(value, "rstrip", true, &token->rstrip, where, err) ||
        !json_get_bool(value, "single_word", true, &token->single_word, where, err)) {
        return false;
    }
    token->id = (int32_t)id;
    const size_t size = strlen(content);
    if (size == 0 || size > LONGEST_TOKEN) {
        return fail(err, "%s: content of %zu bytes, expected 1 to %d", where, size, LONGEST_TOKEN);
    }
    token->content = mem_strdup(content);
    return token->content || no_memory(err);
}

static bool set_pattern(struct added_token *token, const struct steps *normalizer,
                        const char *where, struct error *err)
{
    token->pattern = token->content;
    if (!token->normalized) return true;
    struct matcher matcher = {0};
    const char *text = token->content;
    size_t size = strlen(text);
    char *owned = NULL;
    bool ok = normalizer_run(normalizer, &matcher, &text, &size, &owned, err);
    matcher_close(&matcher);
    if (ok && (size != strlen(token->content) || memcmp(text, token->content, size) != 0)) {
        token->pattern = mem_strndup(text, size);
        ok = token->pattern || no_memory(err);
        if (size == 0) ok = fail(err, "%s: the normalizer leaves nothing of it", where);
    }
    mem_free(owned);
    return ok;
}

static bool add_token(struct added *a, int32_t index, json_t *value, const struct tokenizer *t,
                      int64_t *next, const char *where, struct error *err)
{
    struct added_token *token = &a->token[index];
    char place[512];
    snprintf(place, sizeof place, "%s: added_tokens[%d]", where, index);
    a->count++; // from here on added_close frees it
    if (!read_token(token, value, place, err)) return false;
    const size_t size = strlen(token->content);
    if (!string_map_add(&a->by_text, token->content, size, index)) {
        return fail(err, "%s: \"%.60s\" is there twice", place, token->content);
    }
    if (!check_id(token->id, token->content, size, &t->bpe, next, where, err)) return false;
    if (!set_pattern(token, &t->normalizer, place, err)) return false;
    // Skipping looks at the text that a decode yields, which for this one is no special token's.
    token->skipped = token->special && token->pattern == token->content;

    struct trie *trie = token->normalized ? &a->normalized : &a->as_written;
    bool duplicate = false;
    if (!trie_add(trie, token->pattern, strlen(token->pattern), index, &duplicate)) {
        return no_memory(err);
    }
    if (duplicate) {
        return fail(err, "%s: \"%.60s\" is another token once normalized", place, token->content);
    }
    return true;
}

bool added_open(struct added *a, json_t *list, const struct tokenizer *t, const char *where,
                struct error *err)
{
    memset(a->as_written.root, 0xFF, sizeof a->as_written.root);
    memset(a->normalized.root, 0xFF, sizeof a->normalized.root);
    if (list && !json_is_null(list) && !json_is_array(list)) {
        return fail(err, "%s: added_tokens is no array", where);
    }
    const size_t count = json_array_size(list);
    if (count > MOST_TOKENS)
        return fail(err, "%s: %zu added tokens, at most %d", where, count, MOST_TOKENS);
    a->token = mem_zalloc(count, sizeof *a->token);
    if (!a->token || !string_map_open(&a->by_text, count)) return no_memory(err);

    int64_t next = 0; // tokens that the model lacks come after as many ids as it has tokens
    for (int64_t i = 0; i < t->bpe.size; i++) {
        if (t->bpe.token[i]) next++;
    }
    a->size = t->bpe.size;
    for (size_t i = 0; i < count; i++) {
        if (!add_token(a, (int32_t)i, json_array_get(list, i), t, &next, where, err)) return false;
        if (a->token[i].id >= a->size) a->size = a->token[i].id + 1;
    }
    a->by_id = mem_alloc((size_t)a->size * sizeof *a->by_id);
    if (!a->by_id) return no_memory(err);
    memset(a->by_id, 0xFF, (size_t)a->size * sizeof *a->by_id);
    for (int64_t i = 0; i < a->count; i++) {
        int32_t *index = &a->by_id[a->token[i].id];
        if (*index >= 0) {
            return fail(err, "%s: added tokens \"%.60s\" and \"%.60s\" both have id %d", where,
                        a->token[*index].content, a->token[i].content, a->token[i].id);
        }
        *index = (int32_t)i;
    }
    return true;
}

void added_close(struct added *a)
{
    for (int64_t i = 0; i < a->count; i++) {
        if (a->token[i].pattern != a->token[i].content) mem_free(a->token[i].pattern);
        mem_free(a->token[i].content);
    }
    mem_free(a->token);
    mem_free(a->as_written.node);
    mem_free(a->normalized.node);
    mem_free(a->by_id);
    string_map_close(&a->by_text);
    *a = (struct added){0};
}
