// tests/fuzz/fuzz_dataset.c - a data file's bytes through the splitter, the JSON parser, the formats and
// every template. What is rendered must have its answers where the template says they are.
#include "io/dataset_sample.h"
#include "io/dataset_source.h"
#include "io/json.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void render(const struct sample *s)
{
    static const struct special_tokens forms[] = {
        {.bos = "<b>", .eos = "<e>", .add_bos = true},
        {.bos = "<b>", .eos = "<e>", .deepseek_marks = true},
        {.bos = ""},
    };
    for (int64_t i = 0; chat_templates[i]; i++) {
        for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
            struct segments out = {0};
            struct error err;
            if (chat_templates[i]->render(&out, s->message, s->count, &forms[k], true, &err)) {
                const int64_t last = segments_last_answer(&out);
                assert(last == out.count || out.segment[last].answer);
            }
            segments_free(&out);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dataset_source source;
    struct sample sample = {0};
    struct error err = {0};
    const char *text;
    size_t n;
    int64_t line, before = 0;
    dataset_source_over(&source, "fuzz", data, size);
    while (dataset_source_next(&source, &text, &n, &line, &err)) {
        assert(line > before || source.array);
        assert(n > 0 && (size_t)(text - (const char *)data) <= size - n);
        before = line;
        json_t *object = json_parse(text, n, "fuzz", &err);
        if (object && sample_parse(&sample, object, "fuzz", &err)) {
            if (sample.kind == SAMPLE_CHAT) render(&sample);
            if (sample.kind == SAMPLE_IDS) assert((int64_t)sample.learn.size == sample.ids.count);
        }
        json_decref(object);
    }
    sample_free(&sample);
    return 0;
}
