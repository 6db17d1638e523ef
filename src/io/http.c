// io/http.c - see http.h.
#include "io/http.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *http_reason(enum http_answer a)
{
    switch (a) {
    case HTTP_OK:
        return "OK";
    case HTTP_FORBIDDEN:
        return "Forbidden";
    case HTTP_NOT_FOUND:
        return "Not Found";
    case HTTP_NOT_ALLOWED:
        return "Method Not Allowed";
    case HTTP_TOO_LARGE:
        return "Request Header Fields Too Large";
    default:
        return "Bad Request";
    }
}

struct text {
    const char *at;
    size_t n;
};

static bool is(struct text t, const char *word)
{
    return t.n == strlen(word) && !strncasecmp(t.at, word, t.n);
}

static bool is_exactly(struct text t, const char *word)
{
    return t.n == strlen(word) && !memcmp(t.at, word, t.n);
}

// What stands before `end`, which is skipped; false: there is no such end.
static bool cut(struct text *out, struct text *rest, const char *end)
{
    const size_t n = strlen(end);
    const char *found = rest->n >= n ? memmem(rest->at, rest->n, end, n) : NULL;
    if (!found) return false;
    *out = (struct text){rest->at, (size_t)(found - rest->at)};
    rest->n -= out->n + n;
    rest->at = found + n;
    return true;
}

static struct text trimmed(struct text t)
{
    while (t.n && (*t.at == ' ' || *t.at == '\t')) {
        t.at++;
        t.n--;
    }
    while (t.n && (t.at[t.n - 1] == ' ' || t.at[t.n - 1] == '\t')) {
        t.n--;
    }
    return t;
}

static bool is_here(struct text host, unsigned port)
{
    static const char *const names[] = {"127.0.0.1", "localhost"};
    for (int i = 0; i < 2; i++) {
        char with[64];
        snprintf(with, sizeof with, "%s:%u", names[i], port);
        if (is(host, with) || (port == 80 && is(host, names[i]))) return true;
    }
    return false;
}

static enum http_answer check_fields(struct text head, unsigned port)
{
    struct text line;
    int hosts = 0;
    bool here = false;
    while (cut(&line, &head, "\r\n")) {
        struct text name;
        if (!cut(&name, &line, ":") || !name.n || memchr(name.at, ' ', name.n)) return HTTP_BAD;
        if (!is(name, "host")) continue;
        hosts++;
        here = is_here(trimmed(line), port);
    }
    if (hosts != 1) return HTTP_BAD;
    return here ? HTTP_OK : HTTP_FORBIDDEN;
}

enum http_answer http_request(const char *bytes, size_t n, unsigned port)
{
    struct text all = {bytes, n}, head, line, method, target;
    if (n && memchr(bytes, 0, n)) return HTTP_BAD;
    if (!cut(&head, &all, "\r\n\r\n")) return n >= HTTP_REQUEST_LIMIT ? HTTP_TOO_LARGE : HTTP_MORE;
    if (head.n + 4 > HTTP_REQUEST_LIMIT) return HTTP_TOO_LARGE;
    head.n += 2; // each line with its end
    if (!cut(&line, &head, "\r\n") || !cut(&method, &line, " ") || !cut(&target, &line, " ")) {
        return HTTP_BAD;
    }
    if (!is_exactly(line, "HTTP/1.1") && !is_exactly(line, "HTTP/1.0")) return HTTP_BAD;
    const enum http_answer fields = check_fields(head, port);
    if (fields != HTTP_OK) return fields;
    if (!is_exactly(method, "GET")) return HTTP_NOT_ALLOWED;
    return is_exactly(target, "/") ? HTTP_OK : HTTP_NOT_FOUND;
}
