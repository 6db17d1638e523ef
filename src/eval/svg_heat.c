// eval/svg_heat.c - heat maps: a PNG with a palette, one pixel a cell, stretched by the browser.
#include "eval/svg.h"

#include <math.h>
#include <string.h>
#include <zlib.h>

enum { LEVELS = 255, NOTHING = 255 }; // colours of a palette, and the transparent one

struct colour {
    unsigned char r, g, b;
};

// Anchors at equal distances. The sequential ones rise in lightness throughout, so that they read in grey, too;
// the diverging ones are blue and orange, which the colour-blind tell apart.
static const struct colour sequential[] = {{24, 15, 61},   {52, 48, 124},  {43, 93, 146},
                                           {33, 133, 142}, {45, 171, 118}, {135, 205, 79},
                                           {247, 230, 56}};
static const struct colour diverging[] = {{8, 64, 129},    {60, 130, 190},  {160, 200, 225},
                                          {238, 238, 236}, {245, 190, 120}, {220, 120, 30},
                                          {140, 60, 4}};
enum { ANCHORS = sizeof sequential / sizeof *sequential };

static unsigned char between(unsigned char a, unsigned char b, double t)
{
    return (unsigned char)lround((1 - t) * a + t * b);
}

static struct colour colour_at(enum svg_scale scale, double t)
{
    const struct colour *anchor = scale == SVG_DIVERGING ? diverging : sequential;
    const double place = t * (ANCHORS - 1);
    const int i = place >= ANCHORS - 1 ? ANCHORS - 2 : (int)place;
    const struct colour a = anchor[i], b = anchor[i + 1];
    const double f = place - i;
    return (struct colour){between(a.r, b.r, f), between(a.g, b.g, f), between(a.b, b.b, f)};
}

static void put32(unsigned char *at, unsigned long v)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (unsigned char)(v >> (24 - 8 * i));
    }
}

static bool put_chunk(struct buf *out, const char *type, const void *bytes, size_t n)
{
    unsigned char number[4];
    put32(number, (unsigned long)n);
    if (!buf_append(out, number, 4) || !buf_append(out, type, 4)) return false;
    if (n && !buf_append(out, bytes, n)) return false;
    uLong crc = crc32(0, (const Bytef *)type, 4);
    if (n) crc = crc32(crc, bytes, (uInt)n);
    put32(number, crc);
    return buf_append(out, number, 4);
}

// Each row with its filter, 0: none.
static bool put_rows(struct buf *out, const unsigned char *cell, int64_t rows, int64_t columns)
{
    struct buf raw = {0}, packed = {0};
    bool ok = true;
    for (int64_t r = 0; ok && r < rows; r++) {
        ok = buf_append(&raw, "", 1) && buf_append(&raw, cell + r * columns, (size_t)columns);
    }
    uLongf n = compressBound((uLong)raw.size);
    ok = ok && buf_reserve(&packed, n) &&
         compress2((Bytef *)packed.data, &n, (const Bytef *)raw.data, (uLong)raw.size, 9) == Z_OK &&
         put_chunk(out, "IDAT", packed.data, n);
    buf_free(&raw);
    buf_free(&packed);
    return ok;
}

bool svg_png(struct buf *out, const unsigned char *cell, int64_t rows, int64_t columns,
             enum svg_scale scale)
{
    unsigned char head[13] = {[8] = 8, [9] = 3}, palette[3 * 256] = {0}, alpha[256];
    put32(head, (unsigned long)columns);
    put32(head + 4, (unsigned long)rows);
    for (int i = 0; i < LEVELS; i++) {
        const struct colour c = colour_at(scale, (double)i / (LEVELS - 1));
        memcpy(palette + 3 * (size_t)i, &c, 3);
    }
    memset(alpha, 255, sizeof alpha);
    alpha[NOTHING] = 0;
    return buf_append(out, "\x89PNG\r\n\x1a\n", 8) && put_chunk(out, "IHDR", head, sizeof head) &&
           put_chunk(out, "PLTE", palette, sizeof palette) &&
           put_chunk(out, "tRNS", alpha, sizeof alpha) && put_rows(out, cell, rows, columns) &&
           put_chunk(out, "IEND", NULL, 0);
}

// 0 to 1: where on the scale.
static double place(const struct svg_heat *m, double v)
{
    double low = m->low, high = m->high;
    if (m->scale == SVG_DIVERGING) low = -high;
    if (m->log) {
        low = log1p(low);
        high = log1p(high);
        v = log1p(v > -0.999 ? v : -0.999);
    }
    const double t = high > low ? (v - low) / (high - low) : 0.5;
    return t < 0 ? 0 : t > 1 ? 1 : t;
}

static void put_image(struct html *h, const struct svg_heat *m)
{
    struct buf png = {0};
    const int64_t n = m->rows * m->columns;
    unsigned char *cell = mem_alloc((size_t)n);
    for (int64_t i = 0; cell && i < n; i++) {
        const double v = (double)m->value[i];
        cell[i] = isfinite(v) ? (unsigned char)lround(place(m, v) * (LEVELS - 1)) : NOTHING;
    }
    if (cell && svg_png(&png, cell, m->rows, m->columns, m->scale)) {
        html_raw(h, "<image width=\"100%\" height=\"100%\" preserveAspectRatio=\"none\" "
                    "href=\"data:image/png;base64,");
        html_base64(h, png.data, png.size);
        html_raw(h, "\"/>");
    } else {
        h->failed = true;
    }
    buf_free(&png);
    mem_free(cell);
}

static void put_row_label(struct html *h, const struct svg_heat *m, int64_t r)
{
    const bool marked = m->marked && m->marked[r];
    html_format(h, "<text class=\"y%s\" x=\"-6\" dy=\".35em\" y=\"", marked ? " mark" : "");
    html_fixed(h, 100 * ((double)r + 0.5) / (double)m->rows, 2);
    html_raw(h, "%\">");
    if (m->row) {
        html_text(h, m->row[r]);
    } else {
        html_format(h, "%lld", (long long)r);
    }
    html_raw(h, marked ? " \xE2\x96\xB8</text>" : "</text>");
}

// All rows where they have names, else the first, the last and those that are marked.
static void put_rows_labels(struct html *h, const struct svg_heat *m)
{
    for (int64_t r = 0; r < m->rows; r++) {
        bool free = true; // no marked row where its label would stand
        const int64_t room = m->cell >= 12 ? 0 : 12 / (m->cell ? m->cell : 1);
        for (int64_t q = r - room; m->marked && q <= r + room; q++) {
            if (q >= 0 && q < m->rows && q != r && m->marked[q]) free = false;
        }
        const bool end = free && (r == 0 || r == m->rows - 1);
        if (m->row || end || (m->marked && m->marked[r])) put_row_label(h, m, r);
    }
}

static void put_column_label(struct html *h, double at, const char *anchor)
{
    html_raw(h, "<text class=\"x\" y=\"100%\" dy=\"1.3em\" x=\"");
    html_fixed(h, at, 2);
    html_format(h, "%%\" text-anchor=\"%s\">", anchor);
}

static void put_columns_labels(struct html *h, const struct svg_heat *m)
{
    for (int64_t c = 0; m->column && c < m->columns; c++) {
        put_column_label(h, 100 * ((double)c + 0.5) / (double)m->columns, "middle");
        html_text(h, m->column[c]);
        html_raw(h, "</text>");
    }
    if (m->column || !isfinite(m->x_first)) return;
    put_column_label(h, 0, "start");
    if (m->x_name) {
        html_text(h, m->x_name);
        html_raw(h, " ");
    }
    html_count(h, m->x_first);
    html_raw(h, "</text>");
    put_column_label(h, 100, "end");
    html_count(h, m->x_last);
    html_raw(h, "</text>");
}

void svg_heat(struct html *h, const struct svg_heat *m)
{
    if (m->rows < 1 || m->columns < 1) return;
    size_t longest = 0;
    for (int64_t r = 0; m->row && r < m->rows; r++) {
        if (strlen(m->row[r]) > longest) longest = strlen(m->row[r]);
    }
    html_format(h, "<svg class=\"plot heat%s\" style=\"height:%lldpx\" role=\"img\" aria-label=\"",
                longest > 9 ? " named"
                : m->row    ? " short"
                            : "",
                (long long)(m->rows * m->cell));
    html_text(h, m->about);
    html_raw(h, "\">");
    put_image(h, m);
    put_rows_labels(h, m);
    put_columns_labels(h, m);
    html_raw(h, "</svg>\n");
}

void svg_heat_scale(struct html *h, const struct svg_heat *m, const char *low, const char *high)
{
    html_raw(h, "<p class=\"scale\" aria-hidden=\"true\"><span>");
    html_text(h, low);
    html_raw(h, "</span><i style=\"background:linear-gradient(90deg");
    for (int i = 0; i < ANCHORS; i++) {
        const struct colour c = colour_at(m->scale, (double)i / (ANCHORS - 1));
        html_format(h, ",rgb(%d,%d,%d)", c.r, c.g, c.b);
    }
    html_raw(h, ")\"></i><span>");
    html_text(h, high);
    html_raw(h, "</span></p>\n");
}
