// The tokenizers of OLMo, Qwen and DeepSeek against checksums of what `tokenizers` makes of GSM8K, the
// ESFT sets, generated lines and all code points (fixtures/tokenizer/NAME.sums, written by
// fixtures/make_tokenizer.py); and how fast they are. Skipped where SHARED_DATA is missing.
#include "base/file.h"
#include "io/json.h"
#include "tokenizer_lines.h"

#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
static const bool timed = false;
#elif defined(__has_feature)
static const bool timed = !__has_feature(address_sanitizer);
#else
static const bool timed = true;
#endif

static const char *const names[] = {"olmo", "qwen", "deepseek"};

struct lines {
    struct buf text; // each ends with a NUL
    size_t *start;
    int64_t count, capacity;
};

static void add_line(struct lines *l, const char *text)
{
    l->start = array_grow(l->start, l->count, &l->capacity, sizeof *l->start);
    assert_non_null(l->start);
    l->start[l->count++] = l->text.size;
    assert_true(buf_append(&l->text, text, strlen(text) + 1));
}

// Appends the strings of each row of a JSONL file: its keys, or its messages' contents.
static void add_rows(struct lines *l, const char *name, const char *first, const char *second)
{
    char path[1024];
    struct error err = {0};
    char *data;
    size_t size;
    snprintf(path, sizeof path, "%s/data/%s", SHARED_DATA, name);
    check_ok(file_read(&data, &size, path, 1 << 30, &err), &err);
    for (char *row = data, *end; row < data + size; row = end + 1) {
        end = strchr(row, '\n');
        if (!end) end = data + size;
        json_t *value = json_parse(row, (size_t)(end - row), path, &err);
        check_ok(value != NULL, &err);
        const json_t *messages = json_object_get(value, "messages");
        for (size_t i = 0; i < json_array_size(messages); i++) {
            const json_t *content = json_object_get(json_array_get(messages, i), "content");
            add_line(l, json_string_value(content));
        }
        if (!messages) {
            add_line(l, json_string_value(json_object_get(value, first)));
            add_line(l, json_string_value(json_object_get(value, second)));
        }
        json_decref(value);
    }
    mem_free(data);
}

static struct tokenizer *open_public(const char *name)
{
    char path[1024];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/tokenizers/%s", SHARED_DATA, name);
    struct tokenizer *t = tokenizer_open(path, &err);
    check_ok(t != NULL, &err);
    return t;
}

static void need_shared_data(void)
{
    if (file_exists(SHARED_DATA "/tokenizers/olmo/tokenizer.json")) return;
    print_message("skipped: %s has no tokenizers\n", SHARED_DATA);
    skip();
}

// Where we are in a file of sums.
struct sums {
    const char *name, *data;
    size_t size;
    int64_t line;
    uint32_t total;
};

static void check_line(struct sums *s, struct result *r, const struct tokenizer *t,
                       const char *text, size_t size)
{
    const uint32_t sum = checksum(r, t, text, size);
    uint16_t want;
    assert_true((size_t)s->line * 2 + 6 <= s->size);
    memcpy(&want, s->data + 2 * s->line, sizeof want);
    if ((sum & 0xFFFF) != want) {
        fail_msg("%s, line %d: checksum %04x, expected %04x: '%.*s'", s->name, (int)s->line,
                 sum & 0xFFFF, want, (int)size, text);
    }
    s->total = add_sum(s->total, &sum, sizeof sum);
    s->line++;
}

static void check_all(const char *name, const struct lines *l)
{
    char path[1024], *data;
    struct error err = {0};
    struct sums s = {.name = name};
    struct result result = {0};
    struct random r = {0};
    struct points points = {0};
    uint32_t total;
    snprintf(path, sizeof path, "%s/tokenizer/%s.sums", FIXTURES, name);
    check_ok(file_read(&data, &s.size, path, 1 << 24, &err), &err);
    s.data = data;
    struct tokenizer *t = open_public(name);
    for (int64_t i = 0; i < l->count; i++) {
        const char *text = l->text.data + l->start[i];
        check_line(&s, &result, t, text, strlen(text));
    }
    for (uint64_t i = 0; i < GENERATED; i++) {
        generate_line(&r, i);
        check_line(&s, &result, t, r.out.data, r.out.size);
    }
    assert_true(s.line > 40000);
    while (point_line(&points, &r)) {
        check_line(&s, &result, t, r.out.data, r.out.size);
    }
    assert_int_equal(s.size, 2 * s.line + 4);
    memcpy(&total, s.data + 2 * s.line, sizeof total);
    assert_int_equal(s.total, total);
    tokenizer_close(t);
    result_free(&result);
    buf_free(&r.out);
    mem_free(data);
}

static void public_tokenizers_match(void **state)
{
    (void)state;
    need_shared_data();
    struct lines l = {0};
    add_rows(&l, "gsm8k/train.jsonl", "question", "answer");
    add_rows(&l, "gsm8k/test.jsonl", "question", "answer");
    add_rows(&l, "esft/intent.jsonl", NULL, NULL);
    add_rows(&l, "esft/law.jsonl", NULL, NULL);
    for (int i = 0; i < 3; i++) {
        check_all(names[i], &l);
    }
    buf_free(&l.text);
    mem_free(l.start);
}

static double seconds(void) // of this thread, so that other work on the machine does not count
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// The goal is 2 MB/s; the limit leaves room for a slow machine.
static void gsm8k_is_fast(void **state)
{
    (void)state;
    need_shared_data();
    struct lines l = {0};
    add_rows(&l, "gsm8k/train.jsonl", "question", "answer");
    for (int i = 0; i < 3; i++) {
        struct tokenizer *t = open_public(names[i]);
        struct tokens out = {0};
        struct error err = {0};
        const double start = seconds();
        for (int64_t k = 0; k < l.count; k++) {
            const char *text = l.text.data + l.start[k];
            check_ok(tokenizer_encode(t, text, strlen(text), true, &out, &err), &err);
        }
        const double rate = 1e-6 * (double)l.text.size / (seconds() - start);
        print_message("%s: %.2f MB/s\n", names[i], rate);
        if (timed && rate < 0.5) fail_msg("%s: %.2f MB/s, expected 0.5", names[i], rate);
        tokens_free(&out);
        tokenizer_close(t);
    }
    buf_free(&l.text);
    mem_free(l.start);
}

// Runs that make one word, one piece or one run of marks of the whole text. The goal is 2 s.
static void a_megabyte_of_one_character(void **state)
{
    (void)state;
    need_shared_data();
    static const char *const units[] = {"a",
                                        " ",
                                        "1",
                                        "\n",
                                        "-",
                                        "\t",
                                        "中",
                                        "é",
                                        "'",
                                        "a ",
                                        "\r\n ",
                                        "\xCC\x81",
                                        "\xCC\x96\xCC\x81",
                                        "😀",
                                        "e\xCC\x81",
                                        "\xE1\x84\x80"};
    for (int i = 0; i < 3; i++) {
        struct tokenizer *t = open_public(names[i]);
        for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
            struct buf text = {0};
            struct tokens out = {0};
            struct error err = {0};
            while (text.size < 1000000) {
                assert_true(buf_puts(&text, units[k]));
            }
            const double start = seconds();
            check_ok(tokenizer_encode(t, text.data, text.size, true, &out, &err), &err);
            const double took = seconds() - start;
            print_message("%s: 1 MB of unit %zu: %.2f s\n", names[i], k, took);
            if (timed && took > 8) fail_msg("%s: 1 MB of unit %zu took %.2f s", names[i], k, took);
            assert_true(out.count > 0);
            tokens_free(&out);
            buf_free(&text);
        }
        tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_tokenizers_match),
        cmocka_unit_test(gsm8k_is_fast),
        cmocka_unit_test(a_megabyte_of_one_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
