// eval/extract.c - see extract.h. Python's regular expressions and str methods see characters, not bytes: digits
// and white space of all scripts count.
#include "eval/extract.h"

#include "base/mem.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const char *const keywords[ANSWER_KINDS][6] = {
    [ANSWER_LETTER] = {"A", "B", "C", "D", "E"},
    [ANSWER_TRUTH] = {"true", "false"},
    [ANSWER_SOLUTION] = {"solution1", "solution2"},
    [ANSWER_NUMBERED] = {"answer1", "answer2", "answer3", "answer4", "answer5"},
    [ANSWER_ENDING] = {"ending1", "ending2", "ending3", "ending4"},
    [ANSWER_OPTION] = {"option1", "option2"},
};

// The character at text (size > 0) and its length; what is no UTF-8 is a character of one byte.
static int32_t character(const char *text, size_t size, size_t *length)
{
    utf8proc_int32_t c = -1;
    const utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &c);
    *length = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : -1;
}

// str.isspace(): white space, and the separators among the control characters.
static bool is_space(int32_t c)
{
    if (c <= 0x20) return c == 0x20 || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t text_rstrip(const char *text, size_t size)
{
    size_t kept = 0, length;
    for (size_t i = 0; i < size; i += length) {
        if (!is_space(character(text + i, size - i, &length))) kept = i + length;
    }
    return kept;
}

void text_strip(const char **text, size_t *size)
{
    size_t length;
    while (*size && is_space(character(*text, *size, &length))) {
        *text += length;
        *size -= length;
    }
    *size = text_rstrip(*text, *size);
}

void answer_output(const char **text, size_t *size)
{
    static const char mark[] = "### Response:";
    const char *next = memmem(*text, *size, mark, sizeof mark - 1);
    if (next) *size = (size_t)(next - *text);
    text_strip(text, size);
}

static int digit(int32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9' ? c - '0' : -1;
    if (utf8proc_category(c) != UTF8PROC_CATEGORY_ND) return -1;
    int32_t first = c; // decimal digits come in tens, from 0 to 9
    while (utf8proc_category(first - 1) == UTF8PROC_CATEGORY_ND) {
        first--;
    }
    return (c - first) % 10;
}

// The text with digits in ASCII, without commas, and a space for all that no number is made of.
static bool number_text(struct buf *b, const char *text, size_t size)
{
    size_t length;
    bool ok = buf_puts(b, "");
    for (size_t i = 0; ok && i < size; i += length) {
        const int32_t c = character(text + i, size - i, &length);
        const int d = digit(c);
        char out = ' ';
        if (c == ',') continue;
        if (d >= 0) out = (char)('0' + d);
        if (c == '-' || c == '.') out = (char)c;
        ok = buf_append(b, &out, 1);
    }
    return ok;
}

static size_t count_digits(const char *text)
{
    size_t n = 0;
    while (text[n] >= '0' && text[n] <= '9') {
        n++;
    }
    return n;
}

// Length of -?\d+\.?\d* at text, 0: there is none.
static size_t number_length(const char *text)
{
    const size_t sign = *text == '-', whole = count_digits(text + sign);
    if (!whole) return 0;
    const size_t n = sign + whole;
    return text[n] == '.' ? n + 1 + count_digits(text + n + 1) : n;
}

static bool last_number(struct extracted *out, const char *text, size_t size)
{
    struct buf b = {0};
    const bool ok = number_text(&b, text, size);
    for (size_t i = 0; ok && i < b.size;) {
        const size_t n = number_length(b.data + i);
        if (n) {
            const char end = b.data[i + n];
            b.data[i + n] = 0; // strtod would read on: an exponent is no part of it
            out->number = strtod(b.data + i, NULL);
            out->found = true;
            b.data[i + n] = end;
        }
        i += n ? n : 1;
    }
    buf_free(&b);
    return ok;
}

static void first_keyword(struct extracted *out, enum answer_kind kind, const char *text,
                          size_t size)
{
    for (size_t i = 0; i < size; i++) {
        for (int k = 0; keywords[kind][k]; k++) {
            const size_t n = strlen(keywords[kind][k]);
            if (n > size - i || memcmp(text + i, keywords[kind][k], n) != 0) continue;
            *out = (struct extracted){.found = true, .text = keywords[kind][k], .size = n};
            return;
        }
    }
}

bool answer_extract(struct extracted *out, enum answer_kind kind, const char *output,
                    struct error *err)
{
    size_t size = strlen(output);
    *out = (struct extracted){.number = HUGE_VAL, .text = ""};
    if (kind == ANSWER_TEXT) {
        *out = (struct extracted){.found = true, .text = output, .size = size};
        text_strip(&out->text, &out->size);
        return true;
    }
    if (kind == ANSWER_NUMBER) {
        return last_number(out, output, size) || fail(err, "no memory for an answer");
    }
    first_keyword(out, kind, output, size);
    return true;
}

// All of the reference is a number.
static bool reference_number(double *out, const char *reference)
{
    enum { LONGEST = 64 };
    static const char solution[] = "####";
    char text[LONGEST];
    size_t n = 0;
    for (const char *p = reference; (p = strstr(p, solution)) != NULL;) {
        reference = p += sizeof solution - 1;
    }
    size_t size = strlen(reference);
    text_strip(&reference, &size);
    for (size_t i = 0; i < size; i++) {
        const char c = reference[i];
        if (c == ',') continue;
        if (n + 1 >= LONGEST || !strchr("0123456789.+-eE", c)) return false;
        text[n++] = c;
    }
    text[n] = 0;
    char *end;
    *out = strtod(text, &end);
    return n && !*end && isfinite(*out);
}

bool answer_kind_find(enum answer_kind *kind, unsigned allowed, const char *reference)
{
    double number;
    if (allowed >> ANSWER_NUMBER & 1U && reference_number(&number, reference)) {
        *kind = ANSWER_NUMBER;
        return true;
    }
    for (int i = 0; i < ANSWER_KINDS; i++) {
        for (int k = 0; allowed >> i & 1U && keywords[i][k]; k++) {
            if (strcmp(keywords[i][k], reference) != 0) continue;
            *kind = (enum answer_kind)i;
            return true;
        }
    }
    return false;
}

bool answer_is_right(const struct extracted *x, enum answer_kind kind, const char *reference)
{
    if (kind == ANSWER_NUMBER) {
        double number;
        return x->found && reference_number(&number, reference) &&
               fabs(number - x->number) <= 0.001;
    }
    size_t size = strlen(reference);
    if (kind == ANSWER_TEXT) text_strip(&reference, &size);
    return x->found && x->size == size && !memcmp(x->text, reference, size);
}
