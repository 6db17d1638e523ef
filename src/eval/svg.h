// eval/svg.h - charts as inline SVG for a page of HTML. A chart stretches with its column while its text keeps
// its size: the plot is an <svg> without a viewBox, in it lines in a box of their own that is stretched, and labels
// placed in per cent. Colours and sizes come from the style sheet (page.h), so that a page has a dark side and can
// be printed. Each chart says in words what it shows (aria-label); tables are the page's. Knows nothing of runs.
#pragma once
#include "eval/html.h"

#include <stdint.h>

enum { SVG_COLOURS = 6 }; // colour-blind-safe, in the style sheet: --c0 ... --c5
enum svg_shape { SVG_LINE, SVG_THIN, SVG_DASHED, SVG_DOTS };

struct svg_line {
    const char *name;    // in the legend; NULL: not in it
    const double *x, *y; // (n) x ascending; a y that is not finite leaves a gap
    int64_t n;
    int colour; // 0 .. SVG_COLOURS - 1; -1: grey
    enum svg_shape shape;
};

struct svg_mark { // an upright rule with a word at its head
    double x;
    const char *label;
};

struct svg_chart {
    const char *about;          // in words, for those who do not see it
    const char *x_name, *value; // names of the axes: "step", "loss"
    bool log_y;                 // logarithmic where all values are above 0
    bool from_zero;             // the axis begins at 0
    double x_low, x_high;       // equal: from the lines
    const struct svg_line *line;
    int64_t n_lines;
    const struct svg_mark *mark;
    int64_t n_marks;
    bool small; // half as high, no hover boxes
};
// A legend where there is more than one name, the plot, and boxes that say the values where the pointer is. Lines
// of many points are thinned to the lowest and highest of each of some hundred slices. Without a finite point: a
// line of words.
void svg_lines(struct html *h, const struct svg_chart *c);

// The same chart as a file of its own, for documents that show pictures: title, legend, plot and the style sheet in
// one <svg>. Only with svg_has_points.
void svg_picture(struct html *h, const char *title, const struct svg_chart *c);
bool svg_has_points(const struct svg_chart *c); // something finite to draw
// The plot alone, what both are made of; `attributes` (with a space in front, or "") go into its <svg>.
void svg_plot(struct html *h, const struct svg_chart *c, const char *attributes);

// A number from 0 to 1 as a bar that fills its cell.
void svg_bar(struct html *h, double share, int colour);

enum svg_scale {
    SVG_SEQUENTIAL, // from low (dark) to high (bright)
    SVG_DIVERGING   // around 0: blue below, orange above; from -high to high
};
struct svg_heat {
    const char *about;
    int64_t rows, columns;
    const float *value; // (rows, columns); NaN: nothing there, transparent
    double low, high;   // of the scale; clamped
    enum svg_scale scale;
    bool log;                  // the colour follows log(1 + value)
    const char *const *row;    // (rows) labels; NULL: the first and last row's number
    const bool *marked;        // (rows) rows that get a sign at their side; NULL: none
    const char *x_name;        // "step"
    double x_first, x_last;    // labels of the first and last column; NaN: none
    const char *const *column; // (columns) labels instead; NULL
    int cell;                  // height of a row in px, 1 to 24
};
// One image of a pixel a cell, as a PNG within the page, stretched.
void svg_heat(struct html *h, const struct svg_heat *m);
// The scale of such a map, with a few values under it.
void svg_heat_scale(struct html *h, const struct svg_heat *m, const char *low, const char *high);

// The bytes of a PNG with a palette: one byte a cell, 255 is transparent. buf_free. False: no memory.
bool svg_png(struct buf *out, const unsigned char *cell, int64_t rows, int64_t columns,
             enum svg_scale scale);
