// tests/io/test_http.c - what is answered to a request, whole, cut anywhere, or crafted.
#include "support.h"

#include "io/http.h"

#include <stdio.h>
#include <string.h>

static enum http_answer ask(const char *text)
{
    return http_request(text, strlen(text), 8765);
}

static void a_browser_gets_the_page(void **unused)
{
    (void)unused;
    static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nAccept: text/html\r\n"
                                  "Cookie: a=b: c\r\n\r\n";
    assert_int_equal(ask(request), HTTP_OK);
    for (size_t n = 0; n < sizeof request - 1;
         n++) { // however it is cut, it is not whole before its end
        assert_int_equal(http_request(request, n, 8765), HTTP_MORE);
    }
    assert_int_equal(ask("GET / HTTP/1.0\r\nhost:LOCALHOST:8765 \r\n\r\n"), HTTP_OK);
    assert_int_equal(http_request("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35, 80), HTTP_OK);
}

// A page of elsewhere whose name leads to 127.0.0.1 asks with its own name.
static void other_hosts_are_refused(void **unused)
{
    (void)unused;
    static const char *const hosts[] = {
        "evil.example:8765",
        "127.0.0.1",
        "127.0.0.1:8766",
        "127.0.0.1:87650",
        "localhost.evil:8765",
        "127.0.0.1:8765.evil",
        "",
        "user@127.0.0.1:8765",
        "[::1]:8765",
    };
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", hosts[i]);
        if (ask(text) != HTTP_FORBIDDEN) fail_msg("Host: %s: %d", hosts[i], (int)ask(text));
    }
    assert_int_equal(ask("GET / HTTP/1.1\r\n\r\n"), HTTP_BAD);
    assert_int_equal(ask("GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nHost: evil:1\r\n\r\n"),
                     HTTP_BAD);
    assert_int_equal(ask("GET / HTTP/1.1\r\nX-Host: 127.0.0.1:8765\r\n\r\n"), HTTP_BAD);
    assert_int_equal(ask("GET /nothing HTTP/1.1\r\nHost: evil.example\r\n\r\n"), HTTP_FORBIDDEN);
}

static void only_one_page_is_there(void **unused)
{
    (void)unused;
    static const char *const targets[] = {
        "/favicon.ico",           "/run.json", "/..",  "/../../etc/passwd", "/%2e%2e/", "//", "/?x",
        "http://127.0.0.1:8765/", "*",         "/%00",
    };
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n", targets[i]);
        if (ask(text) != HTTP_NOT_FOUND) fail_msg("%s: %d", targets[i], (int)ask(text));
    }
    assert_int_equal(ask("POST / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n"), HTTP_NOT_ALLOWED);
    assert_int_equal(ask("HEAD / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n"), HTTP_NOT_ALLOWED);
    assert_int_equal(ask("get / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n"), HTTP_NOT_ALLOWED);
}

static void what_is_no_request_is_refused(void **unused)
{
    (void)unused;
    static const char *const texts[] = {
        "\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2\r\nHost: 127.0.0.1:8765\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: 127.0.0.1:8765\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : 127.0.0.1:8765\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nnonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: 127.0.0.1:8765\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\n: nameless\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nX Y: z\r\n\r\n",
        "GET / http/1.1\r\nHost: 127.0.0.1:8765\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (ask(texts[i]) != HTTP_BAD) fail_msg("text %zu: %d", i, (int)ask(texts[i]));
    }
    assert_int_equal(http_request("GET \0", 5, 8765), HTTP_BAD);
    assert_int_equal(http_request("\0", 1, 8765), HTTP_BAD);
    assert_int_equal(http_request("", 0, 8765), HTTP_MORE);
}

static void a_head_has_a_limit(void **unused)
{
    (void)unused;
    static char text[HTTP_REQUEST_LIMIT + 64] = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nX: ";
    const size_t n = strlen(text);
    memset(text + n, 'a', sizeof text - n);
    assert_int_equal(http_request(text, HTTP_REQUEST_LIMIT - 1, 8765), HTTP_MORE);
    assert_int_equal(http_request(text, HTTP_REQUEST_LIMIT, 8765), HTTP_TOO_LARGE);
    memcpy(text + sizeof text - 4, "\r\n\r\n", 4);
    assert_int_equal(http_request(text, sizeof text, 8765), HTTP_TOO_LARGE);
    memcpy(text + HTTP_REQUEST_LIMIT - 3, "\r\n\r\n", 4); // one byte more than there may be
    assert_int_equal(http_request(text, sizeof text, 8765), HTTP_TOO_LARGE);
    memcpy(text + HTTP_REQUEST_LIMIT - 4, "\r\n\r\n", 4);
    assert_int_equal(http_request(text, sizeof text, 8765), HTTP_OK);
}

static void each_answer_has_its_words(void **unused)
{
    (void)unused;
    static const struct {
        enum http_answer answer;
        const char *words;
    } all[] = {{HTTP_OK, "OK"},
               {HTTP_BAD, "Bad Request"},
               {HTTP_FORBIDDEN, "Forbidden"},
               {HTTP_NOT_FOUND, "Not Found"},
               {HTTP_NOT_ALLOWED, "Method Not Allowed"},
               {HTTP_TOO_LARGE, "Request Header Fields Too Large"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_string_equal(http_reason(all[i].answer), all[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_browser_gets_the_page), cmocka_unit_test(other_hosts_are_refused),
        cmocka_unit_test(only_one_page_is_there),  cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(a_head_has_a_limit),      cmocka_unit_test(each_answer_has_its_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
