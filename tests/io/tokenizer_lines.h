// tests/io/tokenizer_lines.h - the generator of lines of tests/fixtures/make_tokenizer.py, and the
// checksum over what a tokenizer makes of a line, as that script has it.
#pragma once
#include "base/mem.h"
#include "io/tokenizer.h"
#include "support.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum { GENERATED = 8000 };

static const uint32_t line_spaces[] = {
    0x20,   0x20,   0x20,   0x09,   0x0A,   0x0D,   0x0B,   0x0C,   0x85,   0xA0,   0x1680,
    0x2000, 0x2003, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0x180E, 0x200B, 0xFEFF};
static const char *const line_tokens[] = {"<|endoftext|>",
                                          "<|im_start|>",
                                          "<|im_end|>",
                                          "<|padding|>",
                                          "|||IP_ADDRESS|||",
                                          "<think>",
                                          "</think>",
                                          "<tool_call>",
                                          "<｜begin▁of▁sentence｜>",
                                          "<｜User｜>",
                                          "<｜tool▁sep｜>",
                                          "<s>",
                                          "<a>",
                                          "<b>",
                                          "wörd",
                                          "Å",
                                          "<｜place▁holder▁no▁79｜>",
                                          "<|im_",
                                          "<c>",
                                          "[d]"};
static const char *const line_endings[] = {"'s",  "'t", "'re", "'ve", "'m",  "'ll",
                                           "'d",  "'S", "'T",  "'RE", "'Ve", "'M",
                                           "'lL", "'D", "'ſ",  "'",   "''s", "’s"};

struct random {
    uint64_t state;
    struct buf out;
};

static uint32_t below(struct random *r, uint32_t n)
{
    r->state += 0x9E3779B97F4A7C15u;
    uint64_t z = r->state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) % n);
}

static void put(struct random *r, uint32_t c)
{
    if (c == 0 || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
    unsigned char b[4];
    size_t n = 1;
    b[0] = (unsigned char)c;
    if (c >= 0x80) {
        n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n; i-- > 1; c >>= 6) {
            b[i] = (unsigned char)(0x80 | (c & 0x3F));
        }
        b[0] = (unsigned char)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | c);
    }
    assert_true(buf_append(&r->out, b, n));
}

static void put_text(struct random *r, const char *text)
{
    assert_true(buf_puts(&r->out, text));
}

static void put_many(struct random *r, uint32_t c, uint32_t n)
{
    while (n-- > 0) {
        put(r, c);
    }
}

static uint32_t random_mark(struct random *r)
{
    const uint32_t kind = below(r, 6);
    if (kind < 3) return 0x300 + below(r, 0x70);
    if (kind == 3) return 0x591 + below(r, 0x2D);
    return kind == 4 ? 0x3099 : 0x1DC0 + below(r, 0x40);
}

// A character of the run that a piece of this kind is.
static uint32_t run_character(struct random *r, uint32_t kind)
{
    uint32_t c;
    switch (kind) {
    case 2:
        c = 65 + below(r, 26);
        return c + 32 * below(r, 2);
    case 3:
        return line_spaces[below(r, sizeof line_spaces / sizeof *line_spaces)];
    case 4:
        return 48 + below(r, 10);
    case 6:
        return below(r, below(r, 2) ? 0x3000 : 0x20000);
    case 7:
        return 0x4E00 + below(r, 0x5200);
    case 8:
        return 0x3000 + below(r, 0x100);
    case 9:
        return 33 + below(r, 15);
    default:
        return 97 + below(r, 26);
    }
}

static void put_base_and_marks(struct random *r)
{
    const uint32_t jamo = 0x1100 + below(r, 0x13), syllable = 0xAC00 + below(r, 11172);
    const uint32_t base[] = {97, 0x41, 0xC5, jamo, syllable, 0x304B};
    put(r, base[below(r, 6)]);
    for (uint32_t n = below(r, 5); n > 0; n--) {
        put(r, random_mark(r));
    }
}

static void put_piece(struct random *r)
{
    static const uint32_t longest[] = {9, 9, 7, 5, 8, 0, 4, 6, 4, 5};
    static const uint32_t repeated[] = {32, 97, 49, 45, 10, 0x4E2D, 0x301, 0x1F600};
    const uint32_t kind = below(r, 14);
    uint32_t c;
    switch (kind) {
    case 5:
        c = below(r, 0x110000);
        put_many(r, c, 1 + below(r, 3));
        break;
    case 10:
        put_many(r, 32, below(r, 3));
        put_text(r, line_tokens[below(r, sizeof line_tokens / sizeof *line_tokens)]);
        put_many(r, 32, below(r, 3));
        break;
    case 11:
        put_text(r, "it");
        put_text(r, line_endings[below(r, sizeof line_endings / sizeof *line_endings)]);
        break;
    case 12:
        put_base_and_marks(r);
        break;
    case 13:
        c = repeated[below(r, 8)];
        put_many(r, c, 1 + below(r, 200));
        break;
    default:
        if (kind < 2) put_many(r, 32, below(r, 2));
        for (uint32_t n = 1 + below(r, longest[kind]); n > 0; n--) {
            put(r, run_character(r, kind));
        }
    }
}

static void generate_line(struct random *r, uint64_t seed)
{
    r->state = seed;
    r->out.size = 0;
    for (uint32_t n = 1 + below(r, 10); n > 0; n--) {
        put_piece(r);
    }
}

static const struct {
    uint32_t first, end;
} point_ranges[] = {{1, 0x3400},        {0x9FF0, 0xAC10},   {0xD7A0, 0xD800},    {0xE000, 0xE010},
                    {0xF900, 0x17000},  {0x18CD0, 0x1FC00}, {0x2A6D0, 0x2A710},  {0x2B730, 0x2B830},
                    {0x2CEA0, 0x2CEC0}, {0x2EBD0, 0x2EE70}, {0x2F800, 0x2FA30},  {0x31340, 0x31360},
                    {0x323A0, 0x323C0}, {0xE0000, 0xE0200}, {0x10FFF0, 0x110000}};

struct points {
    size_t range;
    uint32_t next;
};

// The next line of 8 code points in all surroundings; false: no more.
static bool point_line(struct points *p, struct random *r)
{
    r->out.size = 0;
    for (int n = 0; n < 8; n++) {
        if (p->next == 0) p->next = point_ranges[0].first;
        if (p->next == point_ranges[p->range].end) {
            if (++p->range == sizeof point_ranges / sizeof *point_ranges) {
                p->range--;
                break;
            }
            p->next = point_ranges[p->range].first;
        }
        const uint32_t c = p->next++;
        static const char *const around[] = {" a", "b1", "2 ", " ", "", "x'", "\n"};
        for (int i = 0; i < 7; i++) {
            put(r, c);
            put_text(r, around[i]);
        }
    }
    return r->out.size > 0;
}

struct result {
    struct tokens ids, plain;
    struct buf decoded, skipped;
};

static void result_free(struct result *r)
{
    tokens_free(&r->ids);
    tokens_free(&r->plain);
    buf_free(&r->decoded);
    buf_free(&r->skipped);
}

static void tokenize(struct result *r, const struct tokenizer *t, const char *text, size_t size)
{
    struct error err = {0};
    r->ids.count = r->plain.count = 0;
    r->decoded.size = r->skipped.size = 0;
    check_ok(tokenizer_encode(t, text, size, true, &r->ids, &err), &err);
    check_ok(tokenizer_encode(t, text, size, false, &r->plain, &err), &err);
    check_ok(tokenizer_decode(t, r->ids.id, r->ids.count, false, &r->decoded, &err), &err);
    check_ok(tokenizer_decode(t, r->ids.id, r->ids.count, true, &r->skipped, &err), &err);
}

static uint32_t add_sum(uint32_t sum, const void *bytes, size_t n)
{
    return n ? (uint32_t)crc32(sum, bytes, (unsigned)n) : sum;
}

static uint32_t checksum(struct result *r, const struct tokenizer *t, const char *text, size_t size)
{
    tokenize(r, t, text, size);
    uint32_t sum = add_sum(0, r->ids.id, (size_t)r->ids.count * sizeof *r->ids.id);
    sum = add_sum(sum, r->plain.id, (size_t)r->plain.count * sizeof *r->plain.id);
    sum = add_sum(sum, r->decoded.data, r->decoded.size);
    return add_sum(sum, r->skipped.data, r->skipped.size);
}
