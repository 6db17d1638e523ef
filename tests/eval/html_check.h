// tests/eval/html_check.h - is a text well-formed as we write HTML: every element closed in order, attributes quoted
// and none twice, every '<' and '&' of text escaped, ids unique, links within the page, nothing fetched?
#pragma once
#include "support.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { HTML_DEPTH = 64, HTML_NAME = 32, HTML_IDS = 64 };

struct html_check {
    const char *at;
    char open[HTML_DEPTH][HTML_NAME];
    int depth;
    char id[HTML_IDS][HTML_NAME], link[HTML_IDS][HTML_NAME];
    int ids, links;
    bool scripts; // allowed
};

static inline void html_wrong(const struct html_check *c, const char *what)
{
    fail_msg("%s at: %.120s", what, c->at);
}

static inline bool html_is_void(const char *name)
{
    static const char *const names[] = {"meta", "link", "br", "hr", "img", "input"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i], name)) return true;
    }
    return false;
}

static inline size_t html_name(const char *from, char out[HTML_NAME])
{
    size_t n = 0;
    while ((isalnum((unsigned char)from[n]) || from[n] == '-') && n < HTML_NAME - 1) {
        out[n] = from[n];
        n++;
    }
    out[n] = 0;
    return n;
}

static inline void html_entity(struct html_check *c)
{
    static const char *const known[] = {"&amp;",  "&lt;",    "&gt;",   "&quot;",   "&#39;",
                                        "&nbsp;", "&ndash;", "&rarr;", "&hellip;", "&#9656;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t n = strlen(known[i]);
        if (strncmp(c->at, known[i], n) != 0) continue;
        c->at += n;
        return;
    }
    html_wrong(c, "an '&' that begins no entity");
}

static inline void html_attribute(struct html_check *c)
{
    char name[HTML_NAME], value[HTML_NAME] = "";
    c->at += html_name(c->at, name);
    if (!*name) html_wrong(c, "no attribute");
    if (!strncmp(name, "on", 2) || !strcmp(name, "src") || !strcmp(name, "srcset")) {
        html_wrong(c, "an attribute that runs or fetches");
    }
    if (*c->at != '=') return;
    if (*++c->at != '"') html_wrong(c, "a value without quotes");
    const char *begin = ++c->at;
    while (*c->at && *c->at != '"') {
        if (*c->at == '<') html_wrong(c, "'<' in a value");
        if (*c->at == '&') {
            html_entity(c);
        } else {
            c->at++;
        }
    }
    snprintf(value, sizeof value, "%.*s", (int)(c->at - begin), begin);
    c->at++;
    if (!strcmp(name, "href")) {
        if (*value == '#') {
            assert_true(c->links < HTML_IDS);
            snprintf(c->link[c->links++], HTML_NAME, "%s", value + 1);
        } else if (strncmp(value, "data:", 5) != 0) {
            html_wrong(c, "a link to elsewhere");
        }
    }
    if (!strcmp(name, "id")) {
        for (int i = 0; i < c->ids; i++) {
            if (!strcmp(c->id[i], value)) html_wrong(c, "an id twice");
        }
        assert_true(c->ids < HTML_IDS);
        snprintf(c->id[c->ids++], HTML_NAME, "%s", value);
    }
}

static inline void html_close(struct html_check *c)
{
    char name[HTML_NAME];
    c->at += 2;
    c->at += html_name(c->at, name);
    if (!c->depth || strcmp(c->open[c->depth - 1], name) != 0)
        html_wrong(c, "closes what is not open");
    c->depth--;
    if (*c->at != '>') html_wrong(c, "'>' expected");
    c->at++;
}

// Of style and script all is text up to their end.
static inline void html_raw_text(struct html_check *c, const char *name)
{
    char end[HTML_NAME + 4];
    snprintf(end, sizeof end, "</%s>", name);
    const char *found = strstr(c->at, end);
    if (!found) html_wrong(c, "never closed");
    c->at = found;
}

static inline void html_open(struct html_check *c)
{
    char name[HTML_NAME];
    c->at++;
    c->at += html_name(c->at, name);
    if (!*name) html_wrong(c, "'<' that opens nothing");
    if (!strcmp(name, "script") && !c->scripts) html_wrong(c, "a script");
    if (!strcmp(name, "iframe") || !strcmp(name, "object"))
        html_wrong(c, "an element that fetches");
    while (isspace((unsigned char)*c->at)) {
        c->at++;
        html_attribute(c);
    }
    const bool closed = *c->at == '/';
    c->at += closed;
    if (*c->at != '>') html_wrong(c, "'>' expected");
    c->at++;
    if (closed || html_is_void(name)) return;
    assert_true(c->depth < HTML_DEPTH);
    snprintf(c->open[c->depth++], HTML_NAME, "%s", name);
    if (!strcmp(name, "style") || !strcmp(name, "script")) html_raw_text(c, name);
}

// Without what only a page has: its first line.
static inline void check_markup(const char *text, bool scripts)
{
    struct html_check c = {.at = text, .scripts = scripts};
    assert_null(strstr(text, "https://"));
    assert_null(strstr(text, "@import"));
    assert_null(strstr(text, ">nan"));
    assert_null(strstr(text, "\"nan"));
    assert_null(strstr(text, "-nan"));
    while (*c.at) {
        if (!strncmp(c.at, "</", 2)) {
            html_close(&c);
        } else if (*c.at == '<') {
            html_open(&c);
        } else if (*c.at == '&') {
            html_entity(&c);
        } else {
            c.at++;
        }
    }
    if (c.depth) fail_msg("never closed: %s", c.open[c.depth - 1]);
    for (int i = 0; i < c.links; i++) {
        bool found = false;
        for (int k = 0; k < c.ids; k++) {
            found |= !strcmp(c.id[k], c.link[i]);
        }
        if (!found) fail_msg("a link to #%s, which is not there", c.link[i]);
    }
}

static inline void check_html(const char *text, bool scripts)
{
    static const char start[] = "<!DOCTYPE html>\n";
    assert_true(!strncmp(text, start, sizeof start - 1));
    assert_null(strstr(text, "http://"));
    check_markup(text + sizeof start - 1, scripts);
}
