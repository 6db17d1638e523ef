// base/codes.c - see codes.h.
#include "base/codes.h"

#include <pthread.h>
#include <stdlib.h>

enum { DECADES = 7 };

static float with_sign[CODES], without_sign[CODES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fill(float *code, bool is_signed)
{
    int n = 0;
    double decade = 1e-6;
    for (int i = 0; i < DECADES; i++, decade *= 10) {
        const int parts = (is_signed ? 1 : 2) << i;
        for (int k = 0; k < parts; k++) {
            const double mean = 0.1 + 0.9 * (2 * k + 1) / (2.0 * parts);
            code[n++] = (float)(decade * mean);
            if (is_signed) code[n++] = (float)(-decade * mean);
        }
    }
    code[n++] = 0;
    code[n] = 1;
    qsort(code, CODES, sizeof *code, ascending);
}

static void fill_both(void)
{
    fill(with_sign, true);
    fill(without_sign, false);
}

const float *codes_signed(void)
{
    pthread_once(&once, fill_both);
    return with_sign;
}

const float *codes_unsigned(void)
{
    pthread_once(&once, fill_both);
    return without_sign;
}
