// demo/train_tokenizer.c - byte pair encoding learnt from the text on standard input, written to
// standard output as tokenizer.json: digits apart, then words as GPT-2 cuts them, then bytes.
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPECIALS = 2, BYTES = 256, MAX_VOCAB = 4096 };
static const char *const specials[SPECIALS] = {"<|endoftext|>", "<|pad|>"};

// A distinct piece of text, never joined with another.
struct piece {
    const unsigned char *text;
    int *symbol; // ids of what it is made of so far
    int64_t length, count;
};

struct trainer {
    struct buf text;
    struct piece *piece;
    int64_t n_pieces, capacity;
    int vocab;
    int (*merge)[2];     // of ids SPECIALS + BYTES and up
    int64_t *pair_count; // (vocab, vocab)
};

static void no_memory(void)
{
    fprintf(stderr, "train_tokenizer: no memory\n");
    exit(1);
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128;
}

static bool is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

// The length of the piece at the start of n bytes: a digit, or what GPT-2's expression
// " ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+" takes (its contractions left out: the text has none).
static size_t piece_length(const unsigned char *s, size_t n)
{
    if (is_digit(s[0])) return 1;
    size_t spaces = 0;
    while (spaces < n && is_space(s[spaces])) {
        spaces++;
    }
    const bool ends = spaces == n || is_digit(s[spaces]);
    if (spaces > 0 && ends) return spaces;
    if (spaces > 1) return spaces - 1;
    if (spaces == 1 && s[0] != ' ') return 1;
    const bool letters = is_letter(s[spaces]);
    size_t end = spaces;
    while (end < n && !is_space(s[end]) && !is_digit(s[end]) && is_letter(s[end]) == letters) {
        end++;
    }
    return end;
}

static int compare_pieces(const void *a, const void *b)
{
    const struct piece *p = a, *q = b;
    if (p->length != q->length) return p->length < q->length ? -1 : 1;
    return memcmp(p->text, q->text, (size_t)p->length);
}

static void cut(struct trainer *t)
{
    const unsigned char *s = (const unsigned char *)t->text.data;
    for (size_t at = 0; at < t->text.size;) {
        const size_t n = piece_length(s + at, t->text.size - at);
        struct piece *grown = array_grow(t->piece, t->n_pieces, &t->capacity, sizeof *grown);
        if (!grown) no_memory();
        t->piece = grown;
        t->piece[t->n_pieces++] = (struct piece){.text = s + at, .length = (int64_t)n, .count = 1};
        at += n;
    }
}

// Keeps one piece of each text, with its count, and makes symbols of its bytes.
static void count_pieces(struct trainer *t)
{
    qsort(t->piece, (size_t)t->n_pieces, sizeof t->piece[0], compare_pieces);
    int64_t kept = 0;
    for (int64_t i = 0; i < t->n_pieces; i++) {
        if (kept > 0 && compare_pieces(&t->piece[kept - 1], &t->piece[i]) == 0) {
            t->piece[kept - 1].count++;
        } else {
            t->piece[kept++] = t->piece[i];
        }
    }
    t->n_pieces = kept;
    for (int64_t i = 0; i < kept; i++) {
        struct piece *p = &t->piece[i];
        p->symbol = mem_zalloc((size_t)p->length, sizeof p->symbol[0]);
        if (!p->symbol) no_memory();
        for (int64_t k = 0; k < p->length; k++) {
            p->symbol[k] = SPECIALS + p->text[k];
        }
    }
}

// The most frequent pair of neighbours; of equal ones the lowest ids. False: no pair is left.
static bool best_pair(struct trainer *t, int pair[2], int known)
{
    const size_t V = (size_t)t->vocab;
    memset(t->pair_count, 0, V * V * sizeof t->pair_count[0]);
    for (int64_t i = 0; i < t->n_pieces; i++) {
        const struct piece *p = &t->piece[i];
        for (int64_t k = 0; k + 1 < p->length; k++) {
            t->pair_count[(size_t)p->symbol[k] * V + (size_t)p->symbol[k + 1]] += p->count;
        }
    }
    int64_t best = 0;
    for (int a = 0; a < known; a++) {
        for (int b = 0; b < known; b++) {
            const int64_t count = t->pair_count[(size_t)a * V + (size_t)b];
            if (count <= best) continue;
            best = count;
            pair[0] = a, pair[1] = b;
        }
    }
    return best > 1;
}

static void join(struct trainer *t, const int pair[2], int id)
{
    for (int64_t i = 0; i < t->n_pieces; i++) {
        struct piece *p = &t->piece[i];
        int64_t length = 0;
        for (int64_t k = 0; k < p->length; k++) {
            const bool both =
                k + 1 < p->length && p->symbol[k] == pair[0] && p->symbol[k + 1] == pair[1];
            p->symbol[length++] = both ? id : p->symbol[k];
            k += both;
        }
        p->length = length;
    }
}

// A byte as the letter that stands for it in tokenizer.json: itself where it is printable, else one
// of those from U+0100 on, in order. All are below U+0800.
static void print_byte(int byte)
{
    int code = 256;
    for (int b = 0; b <= byte; b++) {
        const bool printable =
            (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        if (b == byte && printable) {
            code = b;
        } else if (b < byte && !printable) {
            code++;
        }
    }
    if (code == '"' || code == '\\') putchar('\\');
    if (code < 128) {
        putchar(code);
    } else {
        putchar(0xc0 | code >> 6);
        putchar(0x80 | (code & 0x3f));
    }
}

static void print_token(const struct trainer *t, int id)
{
    if (id < SPECIALS) {
        fputs(specials[id], stdout);
    } else if (id < SPECIALS + BYTES) {
        print_byte(id - SPECIALS);
    } else {
        const int *pair = t->merge[id - SPECIALS - BYTES];
        print_token(t, pair[0]);
        print_token(t, pair[1]);
    }
}

static void print_tokenizer(const struct trainer *t)
{
    puts("{\n\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n\"added_tokens\": [");
    for (int i = 0; i < SPECIALS; i++) {
        printf("{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
               "\"rstrip\": false, \"normalized\": false, \"special\": true}%s\n",
               i, specials[i], i + 1 < SPECIALS ? "," : "],");
    }
    const char *byte_level = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                             "\"trim_offsets\": true, \"use_regex\": true}";
    printf(
        "\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
        "{\"type\": \"Digits\", \"individual_digits\": true},\n%s]},\n",
        byte_level);
    printf("\"post_processor\": null,\n\"decoder\": %s,\n", byte_level);
    puts("\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
         "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, "
         "\"byte_fallback\": false, \"ignore_merges\": false,\n\"vocab\": {");
    for (int id = 0; id < t->vocab; id++) {
        putchar('"');
        print_token(t, id);
        printf("\": %d%s\n", id, id + 1 < t->vocab ? "," : "},");
    }
    puts("\"merges\": [");
    for (int id = SPECIALS + BYTES; id < t->vocab; id++) {
        const int *pair = t->merge[id - SPECIALS - BYTES];
        putchar('"');
        print_token(t, pair[0]);
        putchar(' ');
        print_token(t, pair[1]);
        printf("\"%s\n", id + 1 < t->vocab ? "," : "");
    }
    puts("]}\n}");
}

static void read_text(struct buf *b)
{
    char block[1 << 16];
    for (size_t n = 0; (n = fread(block, 1, sizeof block, stdin)) > 0;) {
        if (!buf_append(b, block, n)) no_memory();
    }
}

int main(int argc, char **argv)
{
    const long vocab = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
    if (vocab < SPECIALS + BYTES || vocab > MAX_VOCAB) {
        fprintf(stderr,
                "usage: train_tokenizer VOCABULARY < TEXT > tokenizer.json\n"
                "VOCABULARY: %d to %d\n",
                SPECIALS + BYTES, MAX_VOCAB);
        return 2;
    }
    struct trainer t = {.vocab = (int)vocab};
    read_text(&t.text);
    if (t.text.size == 0) {
        fprintf(stderr, "train_tokenizer: no text on standard input\n");
        return 1;
    }
    cut(&t);
    count_pieces(&t);
    t.merge = mem_zalloc((size_t)vocab, sizeof t.merge[0]);
    t.pair_count = mem_zalloc((size_t)vocab * (size_t)vocab, sizeof t.pair_count[0]);
    if (!t.merge || !t.pair_count) no_memory();

    for (int id = SPECIALS + BYTES; id < t.vocab; id++) {
        int *pair = t.merge[id - SPECIALS - BYTES];
        if (!best_pair(&t, pair, id)) {
            fprintf(stderr, "train_tokenizer: the text gives %d tokens only\n", id);
            return 1;
        }
        join(&t, pair, id);
    }
    print_tokenizer(&t);
    for (int64_t i = 0; i < t.n_pieces; i++) {
        mem_free(t.piece[i].symbol);
    }
    mem_free(t.piece);
    mem_free(t.merge);
    mem_free(t.pair_count);
    buf_free(&t.text);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
