// ops/cpu/embedding.c - rows of a table by id, and the gradient that adds them up again.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

void cpu_embedding_forward(struct tensor y, struct tensor table, struct tensor ids)
{
    const int64_t N = y.dim[0], C = y.dim[1], V = table.dim[0];
    assert(table.dim[1] == C && tensor_count(ids) == N);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        const int64_t id = data_i32(ids)[n];
        assert(id >= 0 && id < V);
        for (int64_t c = 0; c < C; c += BLOCK) {
            const int64_t count = min_i64(BLOCK, C - c);
            float buffer[BLOCK];
            to_f32(buffer, element_at(table, id * C + c), table.dtype, count);
            block_store(y, n * C + c, buffer, count);
        }
    }
}

// A task owns a strip of columns, so that rows with the same id are added in the order of tokens.
void cpu_embedding_backward(struct tensor dtable, struct tensor dy, struct tensor ids)
{
    enum { STRIP = 128 };
    const int64_t N = dy.dim[0], C = dy.dim[1], V = dtable.dim[0];
    assert(dtable.dim[1] == C && tensor_count(ids) == N);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t c = 0; c < C; c += STRIP) {
        const int64_t count = min_i64(STRIP, C - c);
        for (int64_t n = 0; n < N; n++) {
            const int64_t id = data_i32(ids)[n];
            assert(id >= 0 && id < V);
            float buffer[STRIP];
            const float *from = block_load(buffer, dy, n * C + c, count);
            float *restrict to = row_f32(dtable, id) + c;
            for (int64_t i = 0; i < count; i++) {
                to[i] += from[i];
            }
        }
    }
}
