// tests/fuzz/fuzz_batch.c - any bytes as the batch of `dump`: refused with a line, or every id, target and span keeps
// within what a model is given.
#include "cli/batch_file.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { VOCAB = 100 };
    struct batch_file b;
    struct error err = {0};
    if (!batch_file_parse(&b, (const char *)data, size, "fuzz", VOCAB, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return 0;
    }
    assert(b.batch.n == b.rows * b.columns && b.batch.supervised > 0);
    for (int64_t i = 0; i < b.batch.n; i++) {
        assert(b.batch.id[i] >= 0 && b.batch.id[i] < VOCAB);
        assert(b.batch.target[i] == -100 || (b.batch.target[i] >= 0 && b.batch.target[i] < VOCAB));
        assert(b.batch.span[2 * i] >= 0 && b.batch.span[2 * i] <= b.batch.span[2 * i + 1]);
        assert(b.batch.span[2 * i + 1] == i && b.batch.position[i] >= 0);
    }
    batch_file_close(&b);
    return 0;
}
