// eval/svg_picture.c - a chart as an SVG file of its own (svg.h). The plot is that of a page; what a page has around
// it as HTML, title and legend, is drawn here.
#include "eval/page.h"
#include "eval/svg.h"

#include <stdio.h>

enum { WIDTH = 760, HEIGHT = 340, LEFT = 64, RIGHT = 16, TOP = 66, BOTTOM = 48, ROW = 20 };

// About how wide a word of 12 px is, in px: nothing here can measure it.
static int width_of(const char *word)
{
    int n = 0;
    for (; *word; word++) {
        n += (*word & 0xc0) != 0x80;
    }
    return 7 * n;
}

static void put_key(struct html *h, const struct svg_line *l, int x, int y)
{
    html_format(h,
                "<path class=\"l%s k%d\" d=\"M%d %dh18\"/><text class=\"soft\" x=\"%d\" y=\"%d\">",
                l->shape == SVG_DASHED ? " dashed" : "", l->colour, x, y - 4, x + 24, y);
    html_text(h, l->name);
    html_raw(h, "</text>\n");
}

// In rows; how many there are.
static int put_keys(struct html *h, const struct svg_chart *c, bool draw)
{
    int x = LEFT, row = 0;
    for (int64_t k = 0; k < c->n_lines; k++) {
        if (!c->line[k].name) continue;
        const int width = 24 + width_of(c->line[k].name) + 18;
        if (x > LEFT && x + width > WIDTH) {
            x = LEFT;
            row++;
        }
        if (draw) put_key(h, &c->line[k], x, TOP - 20 + row * ROW);
        x += width;
    }
    return row + 1;
}

void svg_picture(struct html *h, const char *title, const struct svg_chart *c)
{
    char place[160];
    const int more = ROW * (put_keys(h, c, false) - 1), plot = HEIGHT - TOP - BOTTOM;
    snprintf(place, sizeof place,
             " x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" style=\"width:%dpx;height:%dpx\"", LEFT,
             TOP + more, WIDTH - LEFT - RIGHT, plot, WIDTH - LEFT - RIGHT, plot);
    html_format(h,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                "height=\"%d\" "
                "font-family=\"system-ui, sans-serif\">\n<title>",
                WIDTH, HEIGHT + more, WIDTH, HEIGHT + more);
    html_text(h, title);
    html_raw(h, "</title>\n<style>\n");
    if (!buf_append(&h->text, page_style, page_style_size)) h->failed = true;
    html_raw(
        h,
        ".soft { fill: var(--soft); font-size: 12px; } .head { fill: var(--ink); font-size: 15px; "
        "font-weight: 600; }\n</style>\n<rect width=\"100%\" height=\"100%\" "
        "style=\"fill:var(--paper)\"/>\n");
    html_format(h, "<text class=\"head\" x=\"%d\" y=\"24\">", LEFT);
    html_text(h, title);
    html_raw(h, "</text>\n");
    put_keys(h, c, true);
    svg_plot(h, c, place);
    html_raw(h, "</svg>\n");
}
