// Any bytes as a text, with a tokenizer that has every kind of step, and with one whose decode must give
// the text back.
#include "io/tokenizer.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char every_step[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s{3,}\"},\"content\":\"  \"},"
    "{\"type\":\"NFKD\"}]}"
    ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\","
    "\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"split\":true},{\"type\":\"Split\","
    "\"pattern\":{\"String\":\"-\"},\"behavior\":\"MergedWithPrevious\",\"invert\":true},"
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{P}*\"},\"behavior\":\"Contiguous\","
    "\"invert\":false},{\"type\":\"Digits\",\"individual_digits\":true},"
    "{\"type\":\"Whitespace\"}]}"
    ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
    "\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":2},{\"type\":\"Fuse\"}]}"
    ",\"added_tokens\":[{\"id\":9,\"content\":\"<x>\",\"special\":true,\"normalized\":false,"
    "\"lstrip\":true,\"rstrip\":true,\"single_word\":false},{\"id\":10,\"content\":\"cab\","
    "\"special\":false,\"normalized\":true,\"lstrip\":false,\"rstrip\":false,"
    "\"single_word\":true},{\"id\":11,\"content\":\" \",\"special\":false,"
    "\"normalized\":true,\"lstrip\":true,\"rstrip\":true,\"single_word\":false}]"
    ",\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"byte_fallback\":true,"
    "\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"ab\":3,\"aa\":4,\"aaa\":5,\"_\":6,\"<0x41>\":7,"
    "\"__\":8},\"merges\":[\"a b\",\"a a\",\"aa a\",\"_ _\"]}}";

static struct tokenizer *every, *bytes;
static bool *written; // by a template, of the tokens of `every` that are not special

// Byte-level over the whole alphabet.
static struct tokenizer *open_bytes(void)
{
    struct buf json = {0};
    bool ok = buf_puts(
        &json, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
               "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    unsigned next = 0x100;
    for (unsigned i = 0; i < 256; i++) {
        const bool same = (i >= 0x21 && i <= 0x7E) || (i >= 0xA1 && i != 0xAD);
        ok = ok && buf_printf(&json, "\"\\u%04x\":%u,", same ? i : next, i);
        if (!same) next++;
    }
    ok = ok &&
         buf_puts(&json,
                  "\"aa\":256,\"aaaa\":257,\"ab\":258,\"\\u0120a\":259},\"merges\":[[\"a\",\"a\"],"
                  "[\"aa\",\"aa\"],[\"a\",\"b\"],[\"\\u0120\",\"a\"]]}}");
    struct error err = {0};
    struct tokenizer *t = ok ? tokenizer_parse(json.data, json.size, "bytes", &err) : NULL;
    buf_free(&json);
    return t;
}

static void close_both(void)
{
    mem_free(written);
    tokenizer_close(every);
    tokenizer_close(bytes);
}

// The ids of a text with two marks, the first up to a byte that the text itself says: one byte of flags each, and where
// nothing is guarded the same ids as without marks.
static void encode_marked(const uint8_t *data, size_t size, bool guarded)
{
    struct tokens ids = {0}, plain = {0};
    struct buf flags = {0};
    struct error err = {0};
    static uint8_t mark[1 << 12], guard[1 << 12];
    if (size > sizeof mark) return;
    for (size_t i = 0; i < size; i++) {
        mark[i] = i < data[0] % size ? 1 : 2;
        guard[i] = guarded && i >= data[size - 1] % size ? data[size / 2] % 3 : 0;
    }
    const struct text_marks marks = {.flags = mark, .guard = guard, .written = written};
    const char *text = (const char *)data;
    const bool ok = tokenizer_encode_marked(every, text, size, &marks, &ids, &flags, &err);
    assert(ok || *err.msg);
    assert(!ok || (int64_t)flags.size == ids.count);
    if (ok && !guarded && tokenizer_encode(every, text, size, true, &plain, &err)) {
        assert(plain.count == ids.count);
        assert(!ids.count || !memcmp(ids.id, plain.id, (size_t)ids.count * sizeof *ids.id));
    }
    tokens_free(&ids);
    tokens_free(&plain);
    buf_free(&flags);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    if (!every) {
        every = tokenizer_parse(every_step, strlen(every_step), "every", &err);
        bytes = open_bytes();
        written = every ? tokenizer_written(every, "cab") : NULL;
        if (!written || !bytes) abort();
        atexit(close_both);
    }
    struct tokens ids = {0}, more = {0};
    struct buf out = {0};
    const bool valid = tokenizer_encode(bytes, (const char *)data, size, true, &ids, &err);
    if (valid) {
        if (!tokenizer_decode(bytes, ids.id, ids.count, false, &out, &err)) abort();
        assert(out.size == size && (size == 0 || memcmp(out.data, data, size) == 0));
        out.size = 0;
    } else {
        assert(strstr(err.msg, "UTF-8"));
    }
    if (size % 4 == 3) encode_marked(data, size, size % 8 == 7);
    const bool special = size & 1U; // either way in half of the inputs
    if (tokenizer_encode(every, (const char *)data, size, special, &more, &err) != valid) abort();
    if (valid && !tokenizer_decode(every, more.id, more.count, special, &out, &err)) abort();
    tokens_free(&ids);
    tokens_free(&more);
    buf_free(&out);
    return 0;
}
