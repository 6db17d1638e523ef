// bench/generate_bench.c - tokens/s of generation beside the floor that memory sets: the bytes of the weights that a round
// of tokens needs (each expert that any of them routed to, once) over the machine's own best rate of reading.
// Usage: generate_bench MODEL [threads] [new tokens] [batch...]; the model is any folder, ids are random. A batch is
// measured three times, and medians of a round's time are taken: other programs disturb.
#include "base/mem.h"
#include "eval/generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPT = 32, TRIES = 3, MOST = 64, ROUNDS = 4096 };

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void give_up(const struct error *err)
{
    fprintf(stderr, "generate_bench: %s\n", err->msg);
    exit(1);
}

// Bytes a second of reading a large array, and of copying it (read and written bytes both counted): the best of a few.
static void bandwidth(double *reading, double *copying, int threads)
{
    const int64_t n = (int64_t)1 << 25, part = n / threads;
    uint64_t *a = mem_alloc((size_t)n * sizeof *a), *b = mem_alloc((size_t)n * sizeof *b);
    if (!a || !b) exit(1);
    memset(a, 1, (size_t)n * sizeof *a);
    memset(b, 1, (size_t)n * sizeof *b);
    uint64_t total = 0;
    *reading = *copying = 0;
    for (int i = 0; i < 7; i++) {
        const double start = now(CLOCK_MONOTONIC);
#pragma omp parallel for num_threads(threads) reduction(+ : total)
        for (int t = 0; t < threads; t++) {
            for (int64_t k = t * part; k < (t + 1) * part; k++) {
                total += a[k];
            }
        }
        const double middle = now(CLOCK_MONOTONIC);
#pragma omp parallel for num_threads(threads)
        for (int t = 0; t < threads; t++) {
            memcpy(b + t * part, a + t * part, (size_t)part * sizeof *a);
        }
        const double end = now(CLOCK_MONOTONIC), bytes = (double)(part * threads) * sizeof *a;
        *reading = fmax(*reading, bytes / (middle - start));
        *copying = fmax(*copying, 2 * bytes / (end - middle));
    }
    if (total == 42) puts(""); // so that the sum is made
    mem_free(a);
    mem_free(b);
}

// What one pass reads.
struct watch {
    struct model *m;
    double expert_bytes; // of the experts that the pass under way routed to
    double start, seconds[ROUNDS], bytes[ROUNDS];
    int rounds, tokens, n; // n: sequences
};

static double size_of(const struct matrices *w)
{
    return (double)(w->rows * w->cols) * (double)dtype_size(w->dtype);
}

static void see_route(void *user, int64_t layer, struct tensor z, const struct route *r)
{
    struct watch *w = user;
    bool seen[4096] = {false};
    (void)z;
    if (layer == 0) w->expert_bytes = 0;
    const struct model_config *c = &w->m->config;
    for (int64_t s = 0; s < tensor_count(r->expert); s++) {
        const int32_t e = data_i32(r->expert)[s];
        if (!seen[e]) w->expert_bytes += 3.0 * (double)(c->width * c->expert_width) * 2;
        seen[e] = true;
    }
}

// All banks but the experts'.
static double other_bytes(const struct model *m)
{
    double bytes = size_of(&m->head_bank.value);
    for (int64_t i = 0; i < m->n_banks; i++) {
        if (m->bank[i]->value.groups == 1) bytes += size_of(&m->bank[i]->value);
    }
    return bytes;
}

static bool see_token(void *user, int64_t sequence, int32_t id)
{
    struct watch *w = user;
    (void)sequence, (void)id;
    if (++w->tokens % w->n) return true;
    const double end = now(CLOCK_MONOTONIC);
    if (w->tokens > w->n && w->rounds < ROUNDS) { // the first came out of the prompts
        w->seconds[w->rounds] = end - w->start;
        w->bytes[w->rounds++] = w->expert_bytes;
    }
    w->start = now(CLOCK_MONOTONIC);
    return true;
}

static void measure(struct model *m, int n, int64_t new_tokens, double rate)
{
    struct watch w = {.m = m, .n = n};
    struct sequence s[MOST] = {0};
    struct error err;
    int32_t id[MOST][PROMPT];
    m->watcher = (struct route_watcher){&w, see_route};
    const struct generate_options o = {
        .max_new_tokens = new_tokens, .token = see_token, .user = &w};
    for (int i = 0; i < n; i++) {
        for (int t = 0; t < PROMPT; t++) {
            id[i][t] = (int32_t)((i * 7919 + t * 104729) % m->config.vocab);
        }
        s[i].prompt = id[i];
        s[i].n_prompt = PROMPT - i % 5; // of unequal length
    }
    const double worked = now(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < TRIES; i++) {
        w.tokens = 0;
        if (!generate(m, s, n, &o, &err)) give_up(&err);
    }
    const double work =
        (now(CLOCK_PROCESS_CPUTIME_ID) - worked) / ((double)TRIES * (double)new_tokens);
    double bytes = 0;
    for (int i = 0; i < w.rounds; i++) {
        bytes += w.bytes[i] / w.rounds;
    }
    bytes += other_bytes(m);
    qsort(w.seconds, (size_t)w.rounds, sizeof *w.seconds, compare);
    const double median = w.seconds[w.rounds / 2], best = w.seconds[w.rounds / 10];
    printf("batch %2d: %7.1f tokens/s (%7.1f at best); a round of %4.0f MB %6.1f ms (%6.1f), floor "
           "%5.1f ms, %4.2f of it "
           "(%4.2f); %6.1f ms of processor time, the prompts' share included\n",
           n, n / median, n / best, 1e-6 * bytes, 1e3 * median, 1e3 * best, 1e3 * bytes / rate,
           bytes / rate / median, bytes / rate / best, 1e3 * work);
    for (int i = 0; i < n; i++) {
        tokens_free(&s[i].out);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    const int threads = argc > 2 ? atoi(argv[2]) : 2;
    const int64_t new_tokens = argc > 3 ? atoi(argv[3]) : 32;
    struct error err;
    struct model m;
    double reading, copying;
    const struct model_setup setup = {.dir = argv[1],
                                      .ops = &cpu_ops,
                                      .dtype = DTYPE_BF16,
                                      .routing = routing_find("topk", &err),
                                      .max_tokens = 512,
                                      .cache_rows = MOST * (PROMPT + new_tokens)};
    cpu_configure(threads, CPU_PRODUCTS_AUTO);
    bandwidth(&reading, &copying, threads);
    printf("%d threads: reading %.1f GB/s, copying %.1f GB/s\n", threads, reading * 1e-9,
           copying * 1e-9);
    if (!model_open(&m, &setup, &err) || !model_allocate(&m, &err)) give_up(&err);
    const double rate = fmax(reading, copying);
    if (argc < 5) measure(&m, 1, new_tokens, rate);
    if (argc < 5) measure(&m, 16, new_tokens, rate);
    for (int i = 4; i < argc; i++) {
        const int n = atoi(argv[i]);
        if (n > 0 && n <= MOST) measure(&m, n, new_tokens, rate);
    }
    model_close(&m);
    return 0;
}
