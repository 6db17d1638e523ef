// tests/fuzz/fuzz_jinja.c - a template and, behind a NUL, its variables as JSON: nothing may crash, and no
// run may go beyond its limits.
#include "io/jinja.h"
#include "io/json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct jinja_limits limits = {
    .steps = 20000, .depth = 100, .output = 1 << 16, .memory = 1 << 22};

static const char usual[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":"
                            "\"user\",\"content\":\"\u00e9 <b>\\n\"},"
                            "{\"role\":\"assistant\",\"content\":\"A\",\"tool_calls\":[{"
                            "\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.5}}}]},"
                            "{\"role\":\"tool\",\"content\":[1,null,true]}],\"tools\":[{"
                            "\"function\":{\"name\":\"f\",\"parameters\":"
                            "{\"type\":\"object\"}}}],\"add_generation_prompt\":true,\"bos_token\":"
                            "\"<s>\",\"eos_token\":\"</s>\"}";

static json_t *usual_context; // parsed once; a run changes nothing of its variables

static void free_usual(void)
{
    json_decref(usual_context);
}

static void render(const struct jinja *t, const json_t *context)
{
    struct jinja_variable v[16];
    struct jinja_text out = {0};
    struct error err = {0};
    int64_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)context, key, value)
    {
        const bool messages = strcmp(key, "messages") == 0;
        if (n < 16)
            v[n++] = (struct jinja_variable){key, value,
                                             messages ? JINJA_FROM_MESSAGES : JINJA_FROM_DATA};
    }
    const bool ok = jinja_render(t, &out, v, n, 0, &err);
    assert(ok || (err.msg[0] && !strchr(err.msg, '\n')));
    assert(out.size <= limits.output && out.memory <= limits.memory + 16);
    // The last operation may touch as much as memory holds before it is counted.
    assert(out.steps <= limits.steps + (int64_t)(limits.memory / 64) + 2);
    for (int64_t i = 0; i < out.n_generated; i++) {
        assert(out.generated[i].start <= out.generated[i].end);
    }
    jinja_text_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    const uint8_t *split = size ? memchr(data, 0, size) : NULL;
    const size_t n = split ? (size_t)(split - data) : size;
    struct jinja *t = jinja_parse("fuzz", (const char *)data, n, &limits, &err);
    if (!t) {
        assert(err.msg[0] && !strchr(err.msg, '\n'));
        return 0;
    }
    json_t *own = split ? json_parse((const char *)split + 1, size - n - 1, "fuzz", &err) : NULL;
    if (!usual_context) {
        usual_context = json_parse(usual, sizeof usual - 1, "usual", &err);
        atexit(free_usual);
    }
    render(t, json_is_object(own) ? own : usual_context);
    json_decref(own);
    jinja_free(t);
    return 0;
}
