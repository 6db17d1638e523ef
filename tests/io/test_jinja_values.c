// How templates print and compare values of each kind, as jinja2 3.1 in the sandbox of transformers does; and what
// filters, methods and formats refuse. Whole chat templates are in test_chat_templates.c.
#include "data_fixtures.h"

#include "io/jinja.h"

static bool render(const char *source, struct jinja_text *out, struct error *err)
{
    struct jinja *t = jinja_parse("T", source, strlen(source), NULL, err);
    const bool ok = t && jinja_render(t, out, NULL, 0, 0, err);
    jinja_free(t);
    return ok;
}

static void values_print_as_in_python(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{{ {'a':1,'b':2}.copy() }}", "{'a': 1, 'b': 2}"},
        {"{{ {'a':1} | attr('copy') is callable }}", "True"},
        {"{{ {'a':1} | attr('a') is defined }}", "False"},
        {"{{ namespace(x=3) | attr('x') }}", "3"},
        {"{{ [1,2] is callable }}{{ range is callable }}", "FalseTrue"},
        {"{{ 1 is le 2 }}{{ 2 is le 1 }}{{ 2 is ge 2 }}{{ 1 is ge 2 }}", "TrueFalseTrueFalse"},
        {"{{ 'upper' is filter }}{{ 'nonesuch' is filter }}{{ 7 is filter }}", "TrueFalseFalse"},
        {"{{ 'defined' is test }}{{ 'nonesuch' is test }}", "TrueFalse"},
        {"{{ '%x %d %s %r' | format(255, -3.9, 'a', 'b') }}", "ff -3 a 'b'"},
        {"{{ '%x' | format(-255) }}{{ '%d' % true }}", "-ff1"},
        {"{{ ['a\\n\\r\\t\\x01', '\xC2\x80\xE2\x80\x8B', '\xF3\xA0\x80\x81'] }}",
         "['a\\n\\r\\t\\x01', '\\x80\\u200b', '\\U000e0001']"},
        {"{% for x in [1,2] %}{{ loop }};{% endfor %}", "<LoopContext 1/2>;<LoopContext 2/2>;"},
        {"{% for x in [1] %}{{ loop == loop }}{{ 'y' if loop }}{% endfor %}", "Truey"},
        {"{{ range == range }}{{ range == 1 }}{{ 'y' if range }}", "TrueFalsey"},
        {"{{ {'a':1e999, 'b':-1e999} | tojson }}", "{\"a\": Infinity, \"b\": -Infinity}"},
        {"{{ '\xF0\x9F\x98\x80' | tojson(ensure_ascii=true) }}", "\"\\ud83d\\ude00\""},
        {"{{ [1.5, 2] | max }}{{ 1.5 < 2 }}{{ 2.5 >= 2 }}", "2TrueTrue"},
        {"{{ (1e999 - 1e999) < 1 }}{{ (1e999 - 1e999) >= 1 }}", "FalseFalse"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct jinja_text out = {0};
        struct error err = {0};
        if (!render(cases[i][0], &out, &err)) fail_msg("%s: %s", cases[i][0], err.msg);
        if (out.size != strlen(cases[i][1]) || memcmp(out.bytes, cases[i][1], out.size) != 0) {
            fail_msg("%s: %.*s", cases[i][0], (int)out.size, out.bytes);
        }
        jinja_text_free(&out);
    }
}

static void what_python_refuses_is_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{{ 1 in 'abc' }}", "requires string as left operand, not int"},
        {"{{ [1,2].index(7) }}", "not in the list"},
        {"{{ 'abc' | trim(3) }}", "trim: chars of type 'int'"},
        {"{{ 2.5 | round(99) }}", "precision 99, expected 0 to 40"},
        {"{{ 2.5 | round(method='x') }}", "method must be common, ceil or floor"},
        {"{{ '%q' | format(1) }}", "kind 'q'"},
        {"{{ '%\x01' | format(1) }}", "kind '?'"},
        {"{{ '%d' | format('a') }}", "a number is required, not str"},
        {"{{ '%d' | format(1e300) }}", "beyond 64 bits"},
        {"{{ {(1,2): 3} | tojson }}", "not tuple"},
        {"{{ [1] | tojson(indent=[]) }}", "indent of type 'list'"},
        {"{{ [1] | tojson(separators=[1]) }}", "expected two texts"},
        {"{{ 'a' | upper(1,2,3) }}", "filter 'upper'"},
        {"{{ 'a' | attr(1) }}", "expected a name"},
        {"{{ '{'.format(1) }}", "expected '}' before end of string"},
        {"{{ '}'.format(1) }}", "Single '}' encountered"},
        {"{{ '{a}'.format(1) }}", "format: no value for '{a}'"},
        {"{{ '{1}'.format(1) }}", "format: no value for '{1}'"},
        {"{{ '{:>3}'.format(1) }}", "'{:>3}' is not implemented"},
        {"{{ '%d %d' | format(1) }}", "not enough arguments for format string"},
        {"{{ '%d' | format(1, 2) }}", "not all arguments converted"},
        {"{{ '%1001d' | format(1) }}", "width is beyond 1000"},
        {"{{ '%5' | format(1) }}", "incomplete format"},
        {"{{ '%x' | format(1.5) }}", "%x format: an integer is required, not float"},
        {"{{ 'a' | center(100001) }}", "a width of 100001, expected at most 100000"},
        {"{{ 'a' | indent(1001) }}", "indent: 1001, expected at most 1000"},
        {"{{ [1] | batch(0) }}", "batch: 0, expected 1 to 100000"},
        {"{{ [1] | map }}", "map requires a filter argument"},
        {"{{ [1] | selectattr }}", "Missing parameter for attribute name"},
        {"{{ [1] | map(1) | list }}", "the name of a filter of type 'int'"},
        {"{{ [1] | select(1) | list }}", "the name of a test of type 'int'"},
        {"{{ 0x }}", "a number without digits"},
        {"{{ 9223372036854775808 }}", "9223372036854775808: a number beyond 64 bits"},
        {"{{ 3 ** 40 }}", "a whole number beyond 64 bits"},
        {"{{ -9223372036854775807 - 2 }}", "a whole number beyond 64 bits"},
        {"{{ (-8) ** 0.5 }}", "a power that is a complex number"},
        {"{{ 1e300 ** 2 }}", "a power beyond the range of numbers"},
        {"{{ dict([[1]]) }}", "dict: an element of length 1, expected 2"},
        {"{{ dict({}, {}) }}", "dict expected at most 1 argument, got 2"},
        {"{{ range() }}", "range: expected 1 to 3 arguments, found 0"},
        {"{{ range(1, 2, 0) }}", "range() arg 3 must not be zero"},
        {"{{ 'a'.join([1]) }}", "sequence item 0: expected str instance, int found"},
        {"{{ {} | dictsort(by='x') }}", "You can only sort by either"},
        {"{{ [1, 2] | sum(start='') }}", "can't sum strings"},
        {"{{ range('a') }}", "cannot be interpreted as an integer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct jinja_text out = {0};
        struct error err = {0};
        const bool ok = render(cases[i][0], &out, &err);
        jinja_text_free(&out);
        if (ok || !strstr(err.msg, cases[i][1])) fail_msg("%s: '%s'", cases[i][0], err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_print_as_in_python),
        cmocka_unit_test(what_python_refuses_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
