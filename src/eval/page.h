// eval/page.h - the frame of a page that stands alone: one file, its style inside, nothing fetched. What it asks
// of a browser is said by a policy in its head, so that a mistake of ours would be blocked, not sent.
#pragma once
#include "eval/html.h"

#include <stddef.h>

// page.css, embedded at build time.
extern const unsigned char page_style[];
extern const size_t page_style_size;
// watch.js: what a page that moetune watch serves runs besides.
extern const unsigned char page_watch[];
extern const size_t page_watch_size;

void page_begin(struct html *h, const char *title,
                bool live); // up to <body>; live: may poll where it came from
void page_end(struct html *h, bool live);
