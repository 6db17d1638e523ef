// A chart as an SVG file of its own: well-formed, with what a document cannot add (style, title, legend), and the same
// plot as on a page.
#include "eval/svg.h"
#include "html_check.h"

#include <math.h>

static const double x[] = {0, 25, 50, 75}, low[] = {1, 2, 4, 8}, high[] = {8, 9, (double)NAN, 12};

static struct svg_chart chart_of(struct svg_line line[2], const char *first, const char *second)
{
    line[0] = (struct svg_line){.name = first, .x = x, .y = low, .n = 4, .colour = 0};
    line[1] = (struct svg_line){
        .name = second, .x = x, .y = high, .n = 4, .colour = -1, .shape = SVG_DASHED};
    return (struct svg_chart){
        .about = "two lines", .x_name = "%", .value = "v", .line = line, .n_lines = 2};
}

static void has(const struct html *h, const char *text)
{
    if (!strstr(h->text.data, text)) fail_msg("no '%s' in: %s", text, h->text.data);
}

static void test_stands_alone(void **state)
{
    (void)state;
    struct svg_line line[2];
    struct html h = {0};
    const struct svg_chart c = chart_of(line, "a < b & \"c\"", "base");
    assert_true(svg_has_points(&c));
    svg_picture(&h, "Loss > 0", &c);
    assert_false(h.failed);
    check_markup(h.text.data, false);
    assert_int_equal(strncmp(h.text.data, "<svg xmlns=\"http://www.w3.org/2000/svg\"", 39), 0);
    has(&h, "<title>Loss &gt; 0</title>");
    has(&h, "--c0:");
    has(&h, ">a &lt; b &amp; &quot;c&quot;</text>");
    has(&h, "class=\"l dashed k-1\"");
    // In XML, unlike in HTML, a style may not hold these.
    const char *style = strstr(h.text.data, "<style>") + 7;
    const size_t length = (size_t)(strstr(style, "</style>") - style);
    assert_null(memchr(style, '<', length));
    assert_null(memchr(style, '&', length));
    buf_free(&h.text);
}

// The plot's markup is the page's, but for where it stands.
static void test_same_plot(void **state)
{
    (void)state;
    struct svg_line line[2];
    struct html page = {0}, picture = {0};
    const struct svg_chart c = chart_of(line, "a", "b");
    svg_lines(&page, &c);
    svg_picture(&picture, "t", &c);
    const char *plot = strstr(page.text.data, " role=\"img\"");
    const char *same = strstr(picture.text.data, " role=\"img\"");
    assert_non_null(plot);
    assert_non_null(same);
    assert_int_equal(strncmp(plot, same, strlen(plot)), 0);
    buf_free(&page.text);
    buf_free(&picture.text);
}

// A legend that does not fit in a row makes the picture higher, and nothing overlaps the plot.
static void test_long_legend(void **state)
{
    (void)state;
    static const char name[] =
        "a name as long as those of methods with many words in them are, and then some";
    struct svg_line line[2];
    struct html h = {0};
    const struct svg_chart c = chart_of(line, name, name);
    svg_picture(&h, "t", &c);
    check_markup(h.text.data, false);
    has(&h, "height=\"360\"");
    buf_free(&h.text);
}

static void test_nothing_to_draw(void **state)
{
    (void)state;
    static const double nan[] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    struct svg_line line = {.name = "a", .x = x, .y = nan, .n = 4};
    const struct svg_chart c = {.about = "", .line = &line, .n_lines = 1};
    assert_false(svg_has_points(&c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stands_alone),
        cmocka_unit_test(test_same_plot),
        cmocka_unit_test(test_long_legend),
        cmocka_unit_test(test_nothing_to_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
