// tests/mutation/mutate.c - small changes ("mutants") of C sources, for scripts/mutation.sh.
//   mutate list FILE...               every site: FILE SITE LINE KIND OLD -> NEW
//   mutate sample N SEED FILE...      N of them, by file in proportion to its sites, two of each at least
//   mutate make FILE SITE             the file with that one change
// It works on tokens inside function bodies, of sources formatted as these are (binary operators between spaces);
// comments, strings, preprocessor lines and everything outside of functions stay. The kinds:
//   bound  < <=  > >=        equal  == !=          arith  + -  * /  % *  << >>  & |  += -=  ++ --
//   logic  && ||             not    !x to x, if (c) to if (!(c))             const  an integer's +1 and -1, true false
//   drop   a statement that is a call (but of assert), an assignment, ++ or --, break, continue, a return before the last
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct token {
    size_t at, size;
    int line, depth, parens;
    bool in_function;
};
struct site {
    size_t at, size;
    int line;
    const char *kind;
    char text[64]; // what takes its place; of a negated condition what comes before it
    size_t close;  // of a negated condition: where it ends
};

static char *source;
static size_t source_size;
static struct token *tokens;
static struct site *sites;
static int n_tokens, n_sites, token_room, site_room;

static void *need(void *p)
{
    if (p) return p;
    fputs("mutate: no memory\n", stderr);
    exit(2);
}

static void read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    long size = -1;
    if (f && !fseek(f, 0, SEEK_END)) size = ftell(f);
    if (size < 0) {
        fprintf(stderr, "mutate: %s: cannot read\n", path);
        exit(2);
    }
    rewind(f);
    free(source);
    source = need(calloc((size_t)size + 2, 1));
    source_size = fread(source, 1, (size_t)size, f);
    fclose(f);
}

static bool is(const struct token *t, const char *text)
{
    return t->size == strlen(text) && !memcmp(source + t->at, text, t->size);
}

static bool is_word(const struct token *t)
{
    const char c = source[t->at];
    return isalpha((unsigned char)c) || c == '_';
}

// The end of what begins at `at` and is no code: a comment, a literal, a line of the preprocessor; or `at` itself.
static size_t skip(size_t at)
{
    const char *s = source;
    if (s[at] == '/' && s[at + 1] == '/') {
        while (s[at] && s[at] != '\n')
            at++;
    } else if (s[at] == '/' && s[at + 1] == '*') {
        const char *end = strstr(s + at + 2, "*/");
        at = end ? (size_t)(end - s) + 2 : source_size;
    } else if (s[at] == '#') {
        while (s[at] && (s[at] != '\n' || s[at - 1] == '\\'))
            at++;
    } else if (s[at] == '"' || s[at] == '\'') {
        const char quote = s[at++];
        while (s[at] && s[at] != quote)
            at += s[at] == '\\' ? 2 : 1;
        at++;
    }
    return at;
}

static size_t token_size(size_t at)
{
    static const char *const longer[] = {"<<=", ">>=", "...", "->", "++", "--", "<<", ">>",
                                         "<=",  ">=",  "==",  "!=", "&&", "||", "+=", "-=",
                                         "*=",  "/=",  "%=",  "&=", "|=", "^="};
    const char *s = source + at;
    size_t n = 0;
    if (isalnum((unsigned char)*s) || *s == '_') {
        const bool number = isdigit((unsigned char)*s) != 0;
        while (isalnum((unsigned char)s[n]) || s[n] == '_' ||
               (number &&
                (s[n] == '.' || (strchr("+-", s[n]) && strchr("eEpP", s[n - 1]) && s[1] != 'x')))) {
            n++;
        }
        return n;
    }
    for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
        if (!strncmp(s, longer[i], strlen(longer[i]))) return strlen(longer[i]);
    }
    return 1;
}

static void add_token(struct token t)
{
    if (n_tokens == token_room) {
        token_room = token_room ? 2 * token_room : 4096;
        tokens = need(realloc(tokens, (size_t)token_room * sizeof *tokens));
    }
    tokens[n_tokens++] = t;
}

static void tokenize(void)
{
    int line = 1, depth = 0, parens = 0;
    bool in_function = false;
    n_tokens = 0;
    for (size_t at = 0; at < source_size;) {
        const size_t next = skip(at);
        for (; at < next; at++)
            line += source[at] == '\n';
        if (at >= source_size) break;
        if (isspace((unsigned char)source[at])) {
            line += source[at++] == '\n';
            continue;
        }
        if (next > at) continue;
        const struct token t = {at, token_size(at), line, depth, parens, in_function};
        parens += is(&t, "(") - is(&t, ")");
        if (is(&t, "{")) {
            if (!depth++) in_function = n_tokens && is(&tokens[n_tokens - 1], ")");
        } else if (is(&t, "}") && depth) {
            if (!--depth) in_function = false;
        }
        add_token(t);
        at += t.size;
    }
}

static struct site *add_site(const struct token *t, const char *kind, const char *text)
{
    if (n_sites == site_room) {
        site_room = site_room ? 2 * site_room : 4096;
        sites = need(realloc(sites, (size_t)site_room * sizeof *sites));
    }
    struct site *s = &sites[n_sites++];
    *s = (struct site){.at = t->at, .size = t->size, .line = t->line, .kind = kind};
    snprintf(s->text, sizeof s->text, "%s", text);
    return s;
}

static void swap_operator(const struct token *t)
{
    static const struct {
        const char *kind, *from, *to;
        bool spaced; // binary only where it stands between spaces
    } swaps[] = {
        {"bound", "<", "<=", true},        {"bound", "<=", "<", true},
        {"bound", ">", ">=", true},        {"bound", ">=", ">", true},
        {"equal", "==", "!=", true},       {"equal", "!=", "==", true},
        {"arith", "+", "-", true},         {"arith", "-", "+", true},
        {"arith", "*", "/", true},         {"arith", "/", "*", true},
        {"arith", "%", "*", true},         {"arith", "<<", ">>", true},
        {"arith", ">>", "<<", true},       {"arith", "&", "|", true},
        {"arith", "|", "&", true},         {"arith", "+=", "-=", true},
        {"arith", "-=", "+=", true},       {"arith", "++", "--", false},
        {"arith", "--", "++", false},      {"logic", "&&", "||", true},
        {"logic", "||", "&&", true},       {"const", "true", "false", false},
        {"const", "false", "true", false},
    };
    const bool spaced = isspace((unsigned char)source[t->at - 1]) &&
                        isspace((unsigned char)source[t->at + t->size]);
    for (size_t i = 0; i < sizeof swaps / sizeof *swaps; i++) {
        if (is(t, swaps[i].from) && (spaced || !swaps[i].spaced))
            add_site(t, swaps[i].kind, swaps[i].to);
    }
    if (is(t, "!")) add_site(t, "not", "");
}

static void change_number(const struct token *t)
{
    char text[64], *end;
    if (!isdigit((unsigned char)source[t->at]) || t->size > 20) return;
    snprintf(text, sizeof text, "%.*s", (int)t->size, source + t->at);
    if (strpbrk(text, ".") || (text[1] != 'x' && strpbrk(text, "eEfF"))) return;
    const unsigned long long value = strtoull(text, &end, 0);
    char suffix[16];
    snprintf(suffix, sizeof suffix, "%s", end);
    snprintf(text, sizeof text, "%llu%s", value + 1, suffix);
    add_site(t, "const", text);
    snprintf(text, sizeof text, "%llu%s", value - 1, suffix);
    if (value) add_site(t, "const", text);
}

// The token that closes the bracket i.
static int closing(int i)
{
    for (int depth = 0; i < n_tokens; i++) {
        depth += is(&tokens[i], "(") - is(&tokens[i], ")");
        if (!depth) return i;
    }
    return -1;
}

static void negate(int i)
{
    if (!is(&tokens[i], "if") || i + 1 >= n_tokens || !is(&tokens[i + 1], "(")) return;
    const int end = closing(i + 1);
    if (end < 0) return;
    add_site(&tokens[i + 1], "not", "(!(")->close = tokens[end].at;
}

// Whether the bracket that token i closes belongs to an if, for or while (and to no cast).
static bool closes_head(int i)
{
    int depth = 0;
    do {
        depth += is(&tokens[i], ")") - is(&tokens[i], "(");
        i--;
    } while (depth && i > 0);
    return is(&tokens[i], "if") || is(&tokens[i], "for") || is(&tokens[i], "while");
}

// A statement that begins at token i: after ; { } ) or else. -1, or the token of its semicolon.
static int statement_end(int i)
{
    const struct token *before = &tokens[i - 1], *t = &tokens[i];
    static const char *const keep[] = {"if",      "for",  "while", "do",    "switch", "case",
                                       "default", "else", "goto",  "const", "static", "struct",
                                       "enum",    "int",  "bool",  "char",  "size_t", "unsigned"};
    if (!is(before, ";") && !is(before, "{") && !is(before, "}") &&
        !(is(before, ")") && closes_head(i - 1)) && !is(before, "else"))
        return -1;
    if (!is_word(t) && !is(t, "*") && !is(t, "++") && !is(t, "--")) return -1;
    for (size_t k = 0; k < sizeof keep / sizeof *keep; k++) {
        if (is(t, keep[k])) return -1;
    }
    if (is(t, "assert") || t->parens) return -1; // what holds anyway; a part of a for
    for (int j = i; j < n_tokens; j++) {
        if (is(&tokens[j], ";")) return j;
        if (is(&tokens[j], "{") || (is(&tokens[j], ":") && j == i + 1))
            return -1; // no statement; a label
    }
    return -1;
}

static void drop(int i)
{
    const int end = statement_end(i);
    if (end < 0) return;
    const struct token *t = &tokens[i];
    if (!is(t, "return") && is_word(t) && i + 1 < n_tokens) {
        // A declaration: two words, or a word and a star and a word.
        const struct token *next = &tokens[i + 1];
        if (is_word(next)) return;
        if (is(next, "*") && !isspace((unsigned char)source[next->at + 1])) return;
    }
    // The last return of a function: the end of it without a value is nothing that can be seen.
    if (is(t, "return") && end + 1 < n_tokens && is(&tokens[end + 1], "}") &&
        tokens[end + 1].depth == 1)
        return;
    struct site *s = add_site(t, "drop", "");
    s->size = tokens[end].at - t->at;
}

static void find_sites(const char *path)
{
    read_file(path);
    tokenize();
    n_sites = 0;
    for (int i = 1; i < n_tokens; i++) {
        if (!tokens[i].in_function) continue;
        swap_operator(&tokens[i]);
        change_number(&tokens[i]);
        negate(i);
        drop(i);
    }
}

static void print_site(const char *path, int i)
{
    const struct site *s = &sites[i];
    const size_t shown = s->close ? s->close + 1 - s->at : s->size;
    printf("%s %d %d %s ", path, i, s->line, s->kind);
    for (size_t k = 0, last = 0; k < shown && k < 60; k++) {
        const char c = source[s->at + k];
        const bool space = isspace((unsigned char)c) != 0;
        if (!space || !last) putchar(space ? ' ' : c);
        last = space;
    }
    printf(" -> %s\n", s->close ? "!(...)" : *s->text ? s->text : "(nothing)");
}

static uint64_t stream;
static uint64_t random_number(void) // splitmix64
{
    uint64_t z = (stream += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static void sample_file(const char *path, int take)
{
    find_sites(path);
    int *order = need(calloc((size_t)n_sites + 1, sizeof *order));
    for (int i = 0; i < n_sites; i++)
        order[i] = i;
    for (int i = 0; i < take && i < n_sites; i++) {
        const int j = i + (int)(random_number() % (uint64_t)(n_sites - i)), chosen = order[j];
        order[j] = order[i];
        order[i] = chosen;
        print_site(path, chosen);
    }
    free(order);
}

static int sample(int n, int files, char **path)
{
    long total = 0;
    for (int f = 0; f < files; f++) {
        find_sites(path[f]);
        total += n_sites;
    }
    for (int f = 0; total && f < files; f++) {
        find_sites(path[f]);
        const int take = (int)(((long)n * n_sites + total / 2) / total);
        sample_file(path[f], take < 2 ? 2 : take);
    }
    return 0;
}

static int make(const char *path, int site)
{
    find_sites(path);
    if (site < 0 || site >= n_sites) {
        fprintf(stderr, "mutate: %s: site %d of %d\n", path, site, n_sites);
        return 2;
    }
    const struct site *s = &sites[site];
    size_t at = s->at + s->size;
    fwrite(source, 1, s->at, stdout);
    fputs(s->text, stdout);
    if (s->close) {
        fwrite(source + at, 1, s->close - at, stdout);
        fputs("))", stdout);
        at = s->close + 1;
    }
    fwrite(source + at, 1, source_size - at, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "list")) {
        for (int f = 2; f < argc; f++) {
            find_sites(argv[f]);
            for (int i = 0; i < n_sites; i++)
                print_site(argv[f], i);
        }
        return 0;
    }
    if (argc > 4 && !strcmp(argv[1], "sample")) {
        stream = strtoull(argv[3], NULL, 10);
        return sample(atoi(argv[2]), argc - 4, argv + 4);
    }
    if (argc == 4 && !strcmp(argv[1], "make")) return make(argv[2], atoi(argv[3]));
    fputs("usage: mutate list FILE... | sample N SEED FILE... | make FILE SITE\n", stderr);
    return 2;
}
