// io/jinja_lex.c - a template's source into tokens. White space is taken away here: trim_blocks (the line
// end behind a block or comment), lstrip_blocks (the spaces before one on its line), and the marks - and +.
#include "io/jinja_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct lexer {
    struct jrun *r;
    char *s; // line ends are \n, and one at the very end is gone
    size_t size, at;
    int line;
    bool line_starts; // what was read last ended in a line end
    struct jtoken *token;
    int64_t count, capacity;
};

static struct jtoken *add(struct lexer *x, enum jtoken_kind kind, const char *text)
{
    x->token = j_grow(x->r, x->token, x->count, &x->capacity, sizeof *x->token);
    x->token[x->count] = (struct jtoken){.kind = kind, .line = x->line, .text = text};
    return &x->token[x->count++];
}

static void advance(struct lexer *x, size_t to)
{
    for (; x->at < to; x->at++) {
        x->line += x->s[x->at] == '\n';
    }
    x->r->line = x->line;
}

static bool starts(const struct lexer *x, size_t at, const char *what)
{
    const size_t n = strlen(what);
    return x->size - at >= n && memcmp(x->s + at, what, n) == 0;
}

static size_t skip_space(const struct lexer *x, size_t at)
{
    const struct jtext all = {.bytes = x->s, .size = x->size};
    int32_t c;
    for (size_t next; at < x->size; at = next) {
        next = j_next(&all, at, &c);
        if (!j_is_space(c)) break;
    }
    return at;
}

// The text before a tag that begins at `end` with that sign.
static void add_data(struct lexer *x, size_t end, char sign, bool is_block)
{
    const size_t start = x->at;
    size_t stop = end;
    if (sign == '-') {
        const struct jtext t = {.bytes = x->s + start, .size = end - start};
        stop = start + j_strip(x->r, &t, NULL, false, true).text->size;
    } else if (sign != '+' && is_block) {
        size_t line = end;
        while (line > start && x->s[line - 1] != '\n') {
            line--;
        }
        if ((line > start || x->line_starts) && skip_space(x, line) >= end) stop = line;
    }
    if (stop > start) add(x, T_DATA, "")->value = j_text(x->r, x->s + start, stop - start, 0);
    advance(x, end);
}

static char sign_at(const struct lexer *x, size_t at)
{
    return at < x->size && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
}

// Behind the end of a tag, whose closing mark (two bytes) is at `at`.
static void close_tag(struct lexer *x, size_t at, char sign, bool trims)
{
    const size_t end = at + 2;
    size_t to = end;
    if (sign == '-') to = skip_space(x, end);
    if (!sign && trims && end < x->size && x->s[end] == '\n') to = end + 1;
    x->line_starts = x->s[to - 1] == '\n';
    advance(x, to);
}

static void comment(struct lexer *x)
{
    size_t at = x->at + 2;
    at += sign_at(x, at) != 0;
    for (; at < x->size && !starts(x, at, "#}"); at++) {
        if (sign_at(x, at) && starts(x, at + 1, "#}")) break;
    }
    if (at >= x->size) j_fail(x->r, "a comment without its end #}");
    const char sign = sign_at(x, at);
    advance(x, at);
    close_tag(x, at + (sign != 0), sign, true);
}

// {% NAME %} at `at`: where its closing mark is, and that mark's sign; false: another tag.
static bool is_tag(const struct lexer *x, size_t at, const char *name, size_t *close, char *sign)
{
    if (!starts(x, at, "{%")) return false;
    at += 2;
    at += sign_at(x, at) != 0;
    at = skip_space(x, at);
    if (!starts(x, at, name)) return false;
    at = skip_space(x, at + strlen(name));
    *sign = sign_at(x, at);
    *close = at + (*sign != 0);
    return starts(x, *close, "%}");
}

static void raw(struct lexer *x, size_t close, char sign)
{
    close_tag(x, close, sign, false);
    for (size_t at = x->at; at < x->size; at++) {
        if (!is_tag(x, at, "endraw", &close, &sign)) continue;
        add_data(x, at, sign_at(x, at + 2), true);
        close_tag(x, close, sign, true);
        return;
    }
    j_fail(x->r, "{%% raw %%} without {%% endraw %%}");
}

// ---- within a tag

static bool is_name(char c)
{
    const unsigned char u = (unsigned char)c;
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || u >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t digits(const struct lexer *x, size_t at)
{
    while (at < x->size && (is_digit(x->s[at]) ||
                            (x->s[at] == '_' && at + 1 < x->size && is_digit(x->s[at + 1])))) {
        at++;
    }
    return at;
}

static int64_t whole_number(struct lexer *x, const char *digits_text, int base)
{
    char *end;
    errno = 0;
    const long long value = strtoll(digits_text, &end, base);
    if (!*digits_text) j_fail(x->r, "a number without digits");
    if (errno || *end) j_fail(x->r, "%.40s: a number beyond 64 bits", digits_text);
    return value;
}

static void number(struct lexer *x)
{
    const size_t start = x->at;
    size_t end = digits(x, start);
    int base = 10;
    bool real = false;
    const char second = start + 1 < x->size ? x->s[start + 1] : 0;
    if (x->s[start] == '0' && second && strchr("xXoObB", second)) {
        base = second == 'x' || second == 'X' ? 16 : second == 'o' || second == 'O' ? 8 : 2;
        for (end = start + 2; end < x->size && (is_name(x->s[end]) || is_digit(x->s[end]));) {
            end++;
        }
    } else {
        if (end + 1 < x->size && x->s[end] == '.' && is_digit(x->s[end + 1])) {
            end = digits(x, end + 1);
            real = true;
        }
        size_t power = end;
        if (power < x->size && (x->s[power] == 'e' || x->s[power] == 'E')) {
            power += sign_at(x, power + 1) ? 2 : 1;
            if (power < x->size && is_digit(x->s[power])) {
                end = digits(x, power);
                real = true;
            }
        }
    }
    char *text = j_alloc(x->r, end - start + 1);
    size_t n = 0;
    for (size_t i = start + (base == 10 ? 0 : 2); i < end; i++) {
        if (x->s[i] != '_') text[n++] = x->s[i];
    }
    add(x, real ? T_FLOAT : T_INT, text)->value =
        real ? j_float(strtod(text, NULL)) : j_int(whole_number(x, text, base));
    advance(x, end);
}

static int hex_digits(const struct lexer *x, size_t at, int n, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < n; i++) {
        const char c = at + (size_t)i < x->size ? x->s[at + (size_t)i] : 0;
        const int digit = is_digit(c)            ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return 0;
        *value = *value * 16 + (uint32_t)digit;
    }
    return n;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) return (void)(out[0] = (char)c), 1;
    const int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (char)((0xF00 >> n & 0xFF) | c);
    return (size_t)n;
}

// The escape behind a backslash at `at`, written to out; returns where it ends. As "unicode-escape".
static size_t escape(struct lexer *x, size_t at, char *out, size_t *n)
{
    static const char from[] = "ntrabfv\\'\"", to[] = "\n\t\r\a\b\f\v\\'\"";
    const char c = x->s[at];
    const char *simple = strchr(from, c);
    uint32_t value = 0;
    size_t end = at + 1;
    if (c == '\n') return end;
    if (c && simple) {
        out[(*n)++] = to[simple - from];
        return end;
    }
    if (c >= '0' && c <= '7') {
        for (end = at; end < x->size && end < at + 3 && x->s[end] >= '0' && x->s[end] <= '7';
             end++) {
            value = value * 8 + (uint32_t)(x->s[end] - '0');
        }
    } else if (c == 'x' || c == 'u' || c == 'U') {
        const int wanted = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (!hex_digits(x, end, wanted, &value) || value > 0x10FFFF ||
            (value >= 0xD800 && value < 0xE000)) {
            j_fail(x->r, "a text's escape \\%c is malformed", c);
        }
        end += (size_t)wanted;
    } else if (c == 'N') {
        j_fail(x->r, "a text's escape \\N{...} is not implemented");
    } else {
        out[(*n)++] = '\\';
        return at; // the character itself follows, as any
    }
    *n += put_utf8(out + *n, value);
    return end;
}

static void string(struct lexer *x)
{
    const char quote = x->s[x->at];
    size_t end = x->at + 1;
    while (end < x->size && x->s[end] != quote) {
        end += x->s[end] == '\\' ? 2 : 1;
    }
    if (end >= x->size) j_fail(x->r, "a text without its closing %c", quote);
    char *text = j_alloc(x->r, end - x->at + 8);
    size_t n = 0;
    for (size_t at = x->at + 1; at < end;) {
        if (x->s[at] == '\\') {
            at = escape(x, at + 1, text, &n);
        } else {
            text[n++] = x->s[at++];
        }
    }
    add(x, T_TEXT, "")->value = j_text(x->r, text, n, 0);
    advance(x, end + 1);
}

static void operator(struct lexer *x, int *braces)
{
    static const char *const known[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                        "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                        ">",  "<",  "=",  ".",  ":",  "|",  ",", ";", NULL};
    for (size_t i = 0; known[i]; i++) {
        if (!starts(x, x->at, known[i])) continue;
        *braces += strchr("[({", *known[i]) ? 1 : strchr("])}", *known[i]) ? -1 : 0;
        if (*braces < 0) j_fail(x->r, "'%s' closes nothing", known[i]);
        add(x, T_OPERATOR, known[i]);
        advance(x, x->at + strlen(known[i]));
        return;
    }
    const unsigned char c = (unsigned char)x->s[x->at];
    if (c < 0x20 || c > 0x7E) j_fail(x->r, "unexpected byte 0x%02X", c);
    j_fail(x->r, "unexpected character '%c'", c);
}

// One token; false where the tag ends.
static bool tag_token(struct lexer *x, const char *end, int *braces)
{
    advance(x, skip_space(x, x->at));
    const size_t at = x->at;
    if (at >= x->size) j_fail(x->r, "the template ends within a tag, expected %s", end);
    const bool block = *end == '%';
    const char sign = x->s[at] == '-' || (block && x->s[at] == '+') ? x->s[at] : 0;
    if (!*braces && starts(x, at + (sign != 0), end)) {
        add(x, block ? T_BLOCK_END : T_PRINT_END, end);
        close_tag(x, at + (sign != 0), sign, block);
        return false;
    }
    if (is_digit(x->s[at])) {
        number(x);
    } else if (is_name(x->s[at])) {
        size_t stop = at;
        while (stop < x->size && (is_name(x->s[stop]) || is_digit(x->s[stop]))) {
            stop++;
        }
        add(x, T_NAME, j_copy(x->r, x->s + at, stop - at));
        advance(x, stop);
    } else if (x->s[at] == '"' || x->s[at] == '\'') {
        string(x);
    } else {
        operator(x, braces);
    }
    return true;
}

static void tag(struct lexer *x, bool block)
{
    int braces = 0;
    add(x, block ? T_BLOCK_BEGIN : T_PRINT_BEGIN, block ? "{%" : "{{");
    advance(x, x->at + 2 + (sign_at(x, x->at + 2) != 0));
    while (tag_token(x, block ? "%}" : "}}", &braces)) {
        j_step(x->r, 0);
    }
}

static void prepare(struct lexer *x, const char *source, size_t size)
{
    x->s = j_alloc(x->r, size + 1);
    for (size_t i = 0; i < size; i++) {
        if (source[i] == '\r' && i + 1 < size && source[i + 1] == '\n') continue;
        x->s[x->size++] = source[i] == '\r' ? '\n' : source[i];
    }
    for (size_t at = 0; at < x->size;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)x->s + at,
                                                    (utf8proc_ssize_t)(x->size - at), &c);
        if (n <= 0) j_fail(x->r, "the template is not valid UTF-8 at byte %zu", at);
        at += (size_t)n;
    }
    if (x->size && x->s[x->size - 1] == '\n') x->s[--x->size] = 0;
}

struct jtoken *j_lex(struct jrun *r, const char *source, size_t size)
{
    struct lexer x = {.r = r, .line = 1, .line_starts = true};
    prepare(&x, source, size);
    while (x.at < x.size) {
        size_t at = x.at, close;
        char sign;
        while (at < x.size &&
               !(x.s[at] == '{' && at + 1 < x.size && strchr("{%#", x.s[at + 1]) && x.s[at + 1])) {
            at++;
        }
        const char kind = at < x.size ? x.s[at + 1] : 0;
        add_data(&x, at, kind ? sign_at(&x, at + 2) : '+', kind != '{');
        if (kind == '#') comment(&x);
        if (kind == '{') tag(&x, false);
        if (kind != '%') continue;
        if (is_tag(&x, at, "raw", &close, &sign)) {
            raw(&x, close, sign);
        } else {
            tag(&x, true);
        }
    }
    add(&x, T_END, "");
    return x.token;
}
