// eval/page.c - see page.h.
#include "eval/page.h"

static void put_bytes(struct html *h, const unsigned char *bytes, size_t n)
{
    if (!buf_append(&h->text, bytes, n)) h->failed = true;
}

void page_begin(struct html *h, const char *title, bool live)
{
    html_raw(h, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "style-src 'unsafe-inline'; img-src data:");
    if (live) html_raw(h, "; script-src 'unsafe-inline'; connect-src 'self'");
    html_raw(h, "\">\n");
    if (live) html_raw(h, "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n");
    html_raw(h, "<meta name=\"referrer\" content=\"no-referrer\">\n"
                "<link rel=\"icon\" href=\"data:,\">\n<title>");
    html_text(h, title);
    html_raw(h, "</title>\n<style>\n");
    put_bytes(h, page_style, page_style_size);
    html_raw(h, "</style>\n</head>\n<body>\n");
}

void page_end(struct html *h, bool live)
{
    if (live) {
        html_raw(h, "<script>\n");
        put_bytes(h, page_watch, page_watch_size);
        html_raw(h, "</script>\n");
    }
    html_raw(h, "</body>\n</html>\n");
}
