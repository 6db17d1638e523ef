// io/http.h - one request of HTTP/1.1 as far as a server of a single page needs it: GET of "/" from a browser on
// this machine. Bytes in, a status out; knows no socket.
#pragma once
#include <stddef.h>

enum { HTTP_REQUEST_LIMIT = 16384 }; // bytes of a request's head

enum http_answer {
    HTTP_MORE = 0, // not whole yet
    HTTP_OK = 200,
    HTTP_BAD = 400,
    HTTP_FORBIDDEN =
        403, // asked for by another name than this machine's: a page of elsewhere may not read it
    HTTP_NOT_FOUND = 404,
    HTTP_NOT_ALLOWED = 405,
    HTTP_TOO_LARGE = 431
};

// What to answer to the n bytes that have come so far. The one Host must be 127.0.0.1 or localhost, with this port.
enum http_answer http_request(const char *bytes, size_t n, unsigned port);
const char *http_reason(enum http_answer a); // "Not Found"
