// Any bytes as tokenizer.json; one that opens must encode and decode.
#include "io/tokenizer.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "ab a1  <x>\xC3\xA9 e\xCC\x81 \xE4\xB8\xAD\xE6\x96\x87\n\n it's\t--\xF0\x9F\x98\x80";
    struct error err = {0};
    struct tokenizer *t = tokenizer_parse((const char *)data, size, "fuzz", &err);
    if (!t) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return 0;
    }
    for (int special = 0; special < 2; special++) {
        struct tokens ids = {0};
        struct buf out = {0};
        if (tokenizer_encode(t, text, sizeof text - 1, special, &ids, &err)) {
            for (int64_t i = 0; i < ids.count; i++) {
                assert(tokenizer_token(t, ids.id[i]));
            }
            // A step of the decoder may give up; an id that encode made is never out of range.
            const bool ok = tokenizer_decode(t, ids.id, ids.count, special, &out, &err);
            assert(ok || !strstr(err.msg, "expected 0 to"));
        }
        tokens_free(&ids);
        buf_free(&out);
    }
    tokenizer_close(t);
    return 0;
}
