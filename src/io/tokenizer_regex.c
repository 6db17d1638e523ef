// io/tokenizer_regex.c - patterns written for Oniguruma, run by PCRE2. Only what means the same to both
// is let through; the rest is refused by name. \s differs in one character and the classes in those that
// newer versions of Unicode assigned: unicode_shadow mends both.
#include "io/tokenizer_parts.h"

#include <ctype.h>
#include <string.h>

enum { JIT_STACK_START = 64 << 10, JIT_STACK_LIMIT = 256 << 20 }; // bytes; reserved, used as needed

// Reads a pattern and writes it as PCRE2 understands it.
struct translation {
    const char *at; // what comes next; the pattern ends with a NUL
    struct buf out;
    bool in_class;
};

static bool copy(struct translation *t, size_t n)
{
    const bool ok = buf_append(&t->out, t->at, n);
    t->at += n;
    return ok;
}

static bool is_category(const char *name, size_t n)
{
    static const char *const known[] = {
        "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me",  "N",
        "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf",  "Po",
        "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Han",
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i]) == n && memcmp(known[i], name, n) == 0) return true;
    }
    return false;
}

// Length of the escape at t->at that may be copied as it is; 0: none.
static size_t plain_escape(const struct translation *t)
{
    const char *p = t->at + 1;
    if (*p == 'p' || *p == 'P') {
        const char *end = p[1] == '{' ? strchr(p, '}') : NULL;
        return end && is_category(p + 2, (size_t)(end - p) - 2) ? (size_t)(end - t->at) + 1 : 0;
    }
    if (*p == 'x' && p[1] == '{') {
        const size_t n = strspn(p + 2, "0123456789abcdefABCDEF");
        return n > 0 && n <= 6 && p[2 + n] == '}' ? n + 4 : 0;
    }
    // One byte: the same to both where it is a character.
    if (*p == 'x') return p[1] >= '0' && p[1] <= '7' && isxdigit((unsigned char)p[2]) ? 4 : 0;
    if (*p && strchr("sSdDrntf", *p)) return 2;
    if (*p && strchr("Az", *p)) return t->in_class ? 0 : 2;
    return (unsigned char)*p < 0x80 && ispunct((unsigned char)*p) ? 2 : 0;
}

static bool translate_escape(struct translation *t, const char *where, struct error *err)
{
    const size_t n = plain_escape(t);
    if (n) return copy(t, n) || no_memory(err);
    if (t->at[1] == 'u' && strspn(t->at + 2, "0123456789abcdefABCDEF") >= 4) {
        if (!buf_printf(&t->out, "\\x{%.4s}", t->at + 2)) return no_memory(err);
        t->at += 6;
        return true;
    }
    return fail(err, "%s: regex: the escape at \"%.12s\" is not implemented", where, t->at);
}

static bool translate_group(struct translation *t, bool first, const char *where, struct error *err)
{
    static const char *const known[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (t->at[1] != '?') return copy(t, 1) || no_memory(err);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t n = strlen(known[i]);
        if (strncmp(t->at, known[i], n) == 0) return copy(t, n) || no_memory(err);
    }
    // Elsewhere its reach is another one.
    if (first && strncmp(t->at, "(?i)", 4) == 0) return copy(t, 4) || no_memory(err);
    return fail(err, "%s: regex: the group at \"%.12s\" is not implemented", where, t->at);
}

// {n}, {n,} or {n,m}. What follows it must not change it: "{2}+" is possessive to one and not the other.
static bool translate_count(struct translation *t, const char *where, struct error *err)
{
    size_t n = 1 + strspn(t->at + 1, "0123456789");
    bool ok = n > 1;
    if (t->at[n] == ',') {
        n++;
        n += strspn(t->at + n, "0123456789");
    }
    ok = ok && t->at[n] == '}' && !strchr("+?*{", t->at[n + 1] ? t->at[n + 1] : 'x');
    if (ok) return copy(t, n + 1) || no_memory(err);
    return fail(err, "%s: regex: the repetition at \"%.12s\" is not implemented", where, t->at);
}

static bool translate_class(struct translation *t, const char *where, struct error *err)
{
    t->in_class = true;
    bool ok = copy(t, t->at[1] == '^' ? 2 : 1);
    const char *start = t->at;
    while (ok && *t->at && (*t->at != ']' || t->at == start)) {
        if (*t->at == '[' || *t->at == ']' || strncmp(t->at, "&&", 2) == 0) {
            return fail(err, "%s: regex: the set at \"%.12s\" is not implemented", where, t->at);
        }
        if (*t->at == '\\') {
            if (!translate_escape(t, where, err)) return false;
        } else {
            ok = copy(t, 1);
        }
    }
    t->in_class = false;
    if (ok && *t->at == ']') return copy(t, 1) || no_memory(err);
    return ok ? fail(err, "%s: regex: a set without its ]", where) : no_memory(err);
}

static bool translate(struct translation *t, const char *where, struct error *err)
{
    const char *start = t->at;
    while (*t->at) {
        bool ok;
        switch (*t->at) {
        case '\\':
            ok = translate_escape(t, where, err);
            break;
        case '(':
            ok = translate_group(t, t->at == start, where, err);
            break;
        case '[':
            ok = translate_class(t, where, err);
            break;
        case '{':
            ok = translate_count(t, where, err);
            break;
        default:
            ok = copy(t, 1) || no_memory(err);
            break;
        }
        if (!ok) return false;
    }
    return buf_reserve(&t->out, 0) || no_memory(err);
}

pcre2_code *regex_open(const char *pattern, bool literal, const char *where, struct error *err)
{
    struct translation t = {.at = pattern};
    pcre2_code *re = NULL;
    pcre2_compile_context *context = NULL;
    if (!*pattern) {
        fail(err, "%s: an empty pattern", where);
    } else if (literal ? !copy(&t, strlen(pattern)) && !no_memory(err)
                       : !translate(&t, where, err)) {
        // err says why
    } else if (!(context = pcre2_compile_context_create(NULL))) {
        no_memory(err);
    } else {
        int code;
        size_t offset;
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        const uint32_t options =
            literal ? PCRE2_LITERAL | PCRE2_UTF
                    : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE;
        re = pcre2_compile((PCRE2_SPTR)t.out.data, t.out.size, options, &code, &offset, context);
        if (re) {
            pcre2_jit_compile(re,
                              PCRE2_JIT_COMPLETE); // where there is no JIT, the interpreter runs
        } else {
            char message[128] = "";
            pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
            fail(err, "%s: regex: %s at byte %zu of \"%.100s\"", where, message, offset,
                 t.out.data);
        }
    }
    pcre2_compile_context_free(context);
    buf_free(&t.out);
    return re;
}

void matcher_close(struct matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    *m = (struct matcher){0};
}

// The limit is on steps back: a few for each byte are honest, an exponential number is not.
static bool matcher_open(struct matcher *m, size_t size)
{
    if (!m->data) m->data = pcre2_match_data_create(1, NULL);
    if (!m->context) m->context = pcre2_match_context_create(NULL);
    if (!m->data || !m->context) return false;
    pcre2_set_match_limit(m->context, size < 1 << 26 ? 10000000 + 16 * (uint32_t)size : UINT32_MAX);
    pcre2_set_heap_limit(m->context, 1 << 20); // KiB
    return true;
}

static int match(struct matcher *m, const pcre2_code *re, const char *text, size_t size, size_t at)
{
    int code = pcre2_match(re, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT && !m->stack) {
        m->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_LIMIT, NULL);
        if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
        code = pcre2_match(re, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
    }
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) { // the interpreter keeps its state on the heap
        code = pcre2_match(re, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           m->data, m->context);
    }
    return code;
}

// An empty match is taken too, but not where the match before it ended.
static bool split(struct matcher *m, const pcre2_code *re, const char *text, size_t size,
                  struct ranges *out, struct error *err)
{
    size_t done = 0, at = 0;
    bool matched = false;
    while (at <= size) {
        const int code = match(m, re, text, size, at);
        if (code == PCRE2_ERROR_NOMATCH) break;
        if (code < 0) {
            char message[128] = "";
            pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
            return fail(err, "tokenizer: regex gave up at byte %zu of %zu: %s", at, size, message);
        }
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(m->data);
        const size_t start = place[0], end = place[1];
        if (start == end && matched && end == done) {
            if (at >= size) break;
            utf8_next(text, &at);
            continue;
        }
        if (done < start && !ranges_add(out, done, start, 0)) return no_memory(err);
        if (!ranges_add(out, start, end, 1)) return no_memory(err);
        matched = true;
        done = at = end;
    }
    return done >= size || ranges_add(out, done, size, 0) || no_memory(err);
}

bool regex_split(struct matcher *m, const pcre2_code *re, const char *text, size_t size,
                 struct ranges *out, struct error *err)
{
    if (!matcher_open(m, size)) return no_memory(err);
    return split(m, re, text, size, out, err);
}
