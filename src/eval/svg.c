// eval/svg.c - see svg.h; heat maps are in svg_heat.c.
#include "eval/svg.h"

#include <math.h>

enum {
    BOX_X = 4000, // units of the stretched box
    BOX_Y = 1000,
    SLICES = 400, // of a line that is thinned
    HOVER = 100,  // boxes that say values
    TICKS = 12
};

struct scale {
    double low, high; // of the values, or of their logarithms
    bool log;
};

// 0 to 1 from low to high.
static double at(const struct scale *s, double v)
{
    const double x = s->log ? log10(v) : v;
    return s->high > s->low ? (x - s->low) / (s->high - s->low) : 0.5;
}

static bool drawn(const struct svg_line *l, int64_t i)
{
    return isfinite(l->x[i]) && isfinite(l->y[i]);
}

struct range {
    double x_low, x_high, y_low, y_high;
    int64_t points;
};

static struct range range_of(const struct svg_chart *c)
{
    const double most = (double)INFINITY;
    struct range r = {most, -most, most, -most, 0};
    for (int64_t k = 0; k < c->n_lines; k++) {
        const struct svg_line *l = &c->line[k];
        for (int64_t i = 0; i < l->n; i++) {
            if (!drawn(l, i)) continue;
            r.points++;
            r.x_low = fmin(r.x_low, l->x[i]);
            r.x_high = fmax(r.x_high, l->x[i]);
            r.y_low = fmin(r.y_low, l->y[i]);
            r.y_high = fmax(r.y_high, l->y[i]);
        }
    }
    return r;
}

// 1, 2 or 5 times a power of ten, so that there are about `n` steps from low to high.
static double nice_step(double span, double n)
{
    const double raw = span / n, power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

static int linear_ticks(double tick[TICKS], struct scale *s, double want, bool widen)
{
    if (!(s->high > s->low)) {
        const double room = s->high > 0 || s->high < 0 ? fabs(s->high) * 0.1 : 1;
        s->low -= room;
        s->high += room;
    }
    const double step = nice_step(s->high - s->low, want);
    if (widen) {
        s->low = floor(s->low / step + 1e-9) * step;
        s->high = ceil(s->high / step - 1e-9) * step;
    }
    int n = 0;
    for (double k = ceil(s->low / step - 1e-9); n < TICKS && k * step <= s->high + 1e-9 * step;
         k++) {
        tick[n++] = fabs(k) < 0.5 ? 0 : k * step; // no -0
    }
    return n;
}

// Decades, and 2 and 5 between them where there are few.
static int log_ticks(double tick[TICKS], struct scale *s)
{
    if (s->high - s->low < 0.2) {
        s->low -= 0.1;
        s->high += 0.1;
    }
    const double decades = s->high - s->low;
    const int every = decades > 8 ? (int)ceil(decades / 6) : 1;
    int n = 0;
    for (int d = (int)floor(s->low); d <= (int)ceil(s->high); d += every) {
        static const double lead[] = {1, 2, 5};
        for (int i = 0; i < (decades > 2.5 ? 1 : 3); i++) {
            const double x = d + log10(lead[i]);
            if (n < TICKS && x >= s->low - 1e-9 && x <= s->high + 1e-9) tick[n++] = pow(10, x);
        }
    }
    return n;
}

static void put_percent(struct html *h, const char *name, double share)
{
    html_format(h, " %s=\"", name);
    html_fixed(h, 100 * share, 2);
    html_raw(h, "%\"");
}

static void put_tick(struct html *h, double v)
{
    if (fabs(v) >= 1000 && fabs(v) < 1e9) {
        html_count(h, v);
    } else {
        html_real(h, v, 4);
    }
}

static void put_y_axis(struct html *h, struct scale *s)
{
    double tick[TICKS];
    const int n = s->log ? log_ticks(tick, s) : linear_ticks(tick, s, 4, true);
    for (int i = 0; i < n; i++) {
        const double y = 1 - at(s, tick[i]);
        html_raw(h, "<line class=\"grid\" x2=\"100%\"");
        put_percent(h, "y1", y);
        put_percent(h, "y2", y);
        html_raw(h, "/><text class=\"y\" x=\"-6\" dy=\".35em\"");
        put_percent(h, "y", y);
        html_raw(h, ">");
        put_tick(h, tick[i]);
        html_raw(h, "</text>");
    }
}

static void put_x_axis(struct html *h, const struct svg_chart *c, struct scale *s)
{
    double tick[TICKS];
    const int n = linear_ticks(tick, s, c->small ? 3 : 5, false);
    html_raw(h, "<line class=\"axis\" x2=\"100%\" y1=\"100%\" y2=\"100%\"/>");
    for (int i = 0; i < n; i++) {
        const double x = at(s, tick[i]);
        html_raw(h, "<text class=\"x\" y=\"100%\" dy=\"1.3em\"");
        put_percent(h, "x", x);
        html_format(h, " text-anchor=\"%s\">", x > 0.95 ? "end" : x < 0.03 ? "start" : "middle");
        put_tick(h, tick[i]);
        html_raw(h, "</text>");
    }
    if (!c->x_name) return;
    html_raw(h, "<text class=\"name\" x=\"100%\" y=\"100%\" dy=\"2.5em\" text-anchor=\"end\">");
    html_text(h, c->x_name);
    html_raw(h, "</text>");
}

static void put_marks(struct html *h, const struct svg_chart *c, const struct scale *x)
{
    for (int64_t i = 0; i < c->n_marks; i++) {
        const double place = at(x, c->mark[i].x);
        if (!(place >= 0 && place <= 1)) continue;
        html_raw(h, "<line class=\"rule\" y2=\"100%\"");
        put_percent(h, "x1", place);
        put_percent(h, "x2", place);
        html_format(h, "/><text class=\"name\" y=\"0\" dx=\"%s\" dy=\"1em\" text-anchor=\"%s\"",
                    place > 0.7 ? "-4" : "4", place > 0.7 ? "end" : "start");
        put_percent(h, "x", place);
        html_raw(h, ">");
        html_text(h, c->mark[i].label);
        html_raw(h, "</text>");
    }
}

struct pen {
    struct html *h;
    const struct svg_line *line;
    const struct scale *x, *y;
    bool down;
};

static void pen_to(struct pen *p, int64_t i)
{
    const long x = lround((double)BOX_X * at(p->x, p->line->x[i]));
    const long y = lround((double)BOX_Y * (1 - at(p->y, p->line->y[i])));
    html_format(p->h, "%s%ld %ld", p->down ? "L" : "M", x, y);
    // A point on its own is a line to itself, which a round cap shows.
    if (!p->down) html_format(p->h, "L%ld %ld", x, y);
    p->down = true;
}

// The lowest and the highest point of each slice, in their order.
static void put_thinned(struct pen *p)
{
    const struct svg_line *l = p->line;
    int64_t low = -1, high = -1;
    int slice = -1;
    for (int64_t i = 0; i <= l->n; i++) {
        if (i < l->n && !drawn(l, i)) continue;
        const int here = i < l->n ? (int)((double)SLICES * at(p->x, l->x[i])) : SLICES + 1;
        if (here != slice && low >= 0) {
            pen_to(p, low < high ? low : high);
            if (low != high) pen_to(p, low < high ? high : low);
            low = high = -1;
            if (here > slice + SLICES / 20) p->down = false;
        }
        slice = here;
        if (i == l->n) break;
        if (low < 0 || l->y[i] < l->y[low]) low = i;
        if (high < 0 || l->y[i] > l->y[high]) high = i;
    }
}

static void put_path(struct html *h, const struct svg_line *l, const struct scale *x,
                     const struct scale *y)
{
    struct pen pen = {h, l, x, y, false};
    html_format(h, "<path class=\"l%s k%d\" d=\"",
                l->shape == SVG_THIN     ? " thin"
                : l->shape == SVG_DASHED ? " dashed"
                                         : "",
                l->colour);
    if (l->n > 2 * SLICES) {
        put_thinned(&pen);
    } else {
        for (int64_t i = 0; i < l->n; i++) {
            if (drawn(l, i)) {
                pen_to(&pen, i);
            } else {
                pen.down = false;
            }
        }
    }
    html_raw(h, "\"/>");
}

static void put_dots(struct html *h, const struct svg_line *l, const struct scale *x,
                     const struct scale *y)
{
    const int64_t every = l->n / SLICES + 1;
    for (int64_t i = 0; i < l->n; i++) {
        if (!drawn(l, i) || (i % every != 0 && i != l->n - 1)) continue;
        html_format(h, "<circle class=\"d k%d\" r=\"3\"", l->colour);
        put_percent(h, "cx", at(x, l->x[i]));
        put_percent(h, "cy", 1 - at(y, l->y[i]));
        html_raw(h, "/>");
    }
}

// The last point of the line up to x that lies in its slice; -1: none.
static int64_t point_in(const struct svg_line *l, int64_t *from, double low, double high)
{
    int64_t found = -1;
    while (*from < l->n && l->x[*from] < high) {
        if (drawn(l, *from) && l->x[*from] >= low) found = *from;
        ++*from;
    }
    return found;
}

static void put_hover(struct html *h, const struct svg_chart *c, const struct scale *x)
{
    int64_t from[16] = {0}, boxes = 0;
    if (c->n_lines > 16 || c->small) return;
    for (int64_t k = 0; k < c->n_lines; k++) {
        if (c->line[k].n > boxes) boxes = c->line[k].n;
    }
    if (boxes > HOVER) boxes = HOVER;
    for (int64_t b = 0; b < boxes; b++) {
        const double span = x->high - x->low, width = span / (double)boxes;
        const double low = b ? x->low + width * (double)b : (double)-INFINITY;
        const double high = b + 1 < boxes ? x->low + width * (double)(b + 1) : (double)INFINITY;
        bool any = false;
        for (int64_t k = 0; k < c->n_lines; k++) {
            const struct svg_line *l = &c->line[k];
            const int64_t i = point_in(l, &from[k], low, high);
            if (i < 0) continue;
            if (!any) {
                html_raw(h, "<rect class=\"hit\" height=\"100%\"");
                put_percent(h, "x", (double)b / (double)boxes);
                put_percent(h, "width", 1 / (double)boxes);
                html_raw(h, "><title>");
                html_text(h, c->x_name ? c->x_name : "");
                html_raw(h, " ");
                html_real(h, l->x[i], 9);
                html_raw(h, ":");
            }
            any = true;
            html_raw(h, " ");
            html_text(h, l->name ? l->name : c->value);
            html_raw(h, " ");
            html_real(h, l->y[i], 4);
        }
        if (any) html_raw(h, "</title></rect>");
    }
}

static void put_legend(struct html *h, const struct svg_chart *c)
{
    int64_t names = 0;
    for (int64_t k = 0; k < c->n_lines; k++) {
        names += c->line[k].name != NULL;
    }
    if (names < 2) return;
    html_raw(h, "<p class=\"legend\">");
    for (int64_t k = 0; k < c->n_lines; k++) {
        const struct svg_line *l = &c->line[k];
        if (!l->name) continue;
        html_format(h, "<span class=\"%s k%d\"></span>",
                    l->shape == SVG_DOTS     ? "dot"
                    : l->shape == SVG_DASHED ? "dash"
                                             : "key",
                    l->colour);
        html_text(h, l->name);
    }
    html_raw(h, "</p>\n");
}

static void put_lines(struct html *h, const struct svg_chart *c, const struct scale *x,
                      const struct scale *y)
{
    html_format(h,
                "<svg viewBox=\"0 0 %d %d\" width=\"100%%\" height=\"100%%\" "
                "preserveAspectRatio=\"none\" aria-hidden=\"true\">",
                BOX_X, BOX_Y);
    for (int64_t k = c->n_lines - 1; k >= 0; k--) { // the first on top
        if (c->line[k].shape != SVG_DOTS) put_path(h, &c->line[k], x, y);
    }
    html_raw(h, "</svg>");
    for (int64_t k = 0; k < c->n_lines; k++) {
        if (c->line[k].shape == SVG_DOTS) put_dots(h, &c->line[k], x, y);
    }
}

bool svg_has_points(const struct svg_chart *c)
{
    return range_of(c).points > 0;
}

void svg_plot(struct html *h, const struct svg_chart *c, const char *attributes)
{
    const struct range r = range_of(c);
    const bool log = c->log_y && r.y_low > 0;
    struct scale x = {r.x_low, r.x_high, false}, y = {r.y_low, r.y_high, log};
    if (log) {
        y.low = log10(y.low);
        y.high = log10(y.high);
    }
    if (c->from_zero && !log) y.low = fmin(y.low, 0);
    if (c->x_high > c->x_low) {
        x.low = c->x_low;
        x.high = c->x_high;
    }
    html_format(h, "<svg class=\"plot%s\"%s role=\"img\" aria-label=\"", c->small ? " small" : "",
                attributes);
    html_text(h, c->about);
    html_raw(h, "\">");
    put_y_axis(h, &y);
    put_x_axis(h, c, &x);
    put_marks(h, c, &x);
    put_lines(h, c, &x, &y);
    put_hover(h, c, &x);
    html_raw(h, "</svg>\n");
}

void svg_lines(struct html *h, const struct svg_chart *c)
{
    if (!svg_has_points(c)) {
        html_raw(h, "<p class=\"none\">No value yet.</p>\n");
        return;
    }
    put_legend(h, c);
    svg_plot(h, c, "");
}

void svg_bar(struct html *h, double share, int colour)
{
    html_format(h, "<svg class=\"bar\" aria-hidden=\"true\"><rect class=\"k%d\" height=\"100%%\"",
                colour);
    put_percent(h, "width", isfinite(share) ? fmax(0, fmin(1, share)) : 0);
    html_raw(h, "/></svg>");
}
