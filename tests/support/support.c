// tests/support/support.c - see support.h.
#include "support.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fixture_open(struct fixture *f, const char *name)
{
    struct error err = {0};
    snprintf(f->path, sizeof f->path, "%s/%s", FIXTURES, name);
    check_ok(safetensors_open(&f->st, f->path, &err), &err);
}

void fixture_close(struct fixture *f)
{
    safetensors_close(&f->st);
}

bool fixture_has(const struct fixture *f, const char *name)
{
    return safetensors_find(&f->st, name) != NULL;
}

struct tensor fixture_get(const struct fixture *f, const char *name)
{
    const struct st_entry *e = safetensors_find(&f->st, name);
    if (!e) fail_msg("%s: no tensor %s", f->path, name);
    return e->tensor;
}

static double element(struct tensor t, int64_t i)
{
    float value;
    switch (t.dtype) {
    case DTYPE_I32:
        return ((const int32_t *)t.data)[i];
    case DTYPE_I64:
        return (double)((const int64_t *)t.data)[i];
    case DTYPE_U8:
        return ((const uint8_t *)t.data)[i];
    case DTYPE_F64:
        return ((const double *)t.data)[i];
    default:
        break;
    }
    dtype_convert(&value, DTYPE_F32, (const char *)t.data + (size_t)i * dtype_size(t.dtype),
                  t.dtype, 1);
    return (double)value;
}

double relative_error(struct tensor got, struct tensor want)
{
    assert_int_equal(tensor_count(got), tensor_count(want));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < tensor_count(want); i++) {
        const double g = element(got, i), w = element(want, i);
        if (isfinite(g) && isfinite(w)) {
            difference += (g - w) * (g - w);
            norm += w * w;
        } else if (!(g == w || (isnan(g) && isnan(w)))) {
            return (double)INFINITY;
        }
    }
    if (difference <= 0) return 0;
    return sqrt(difference) / (norm > 0 ? sqrt(norm) : 1);
}

void check_close(const char *what, struct tensor got, struct tensor want, double limit)
{
    const double e = relative_error(got, want);
    if (!(e <= limit)) fail_msg("%s: relative error %.3g, limit %.3g", what, e, limit);
}

void check_ok(bool ok, const struct error *err)
{
    if (!ok) fail_msg("%s", err->msg);
}

void check_error(bool ok, const struct error *err, const char *needle)
{
    if (ok) fail_msg("succeeded where an error naming '%s' was expected", needle);
    if (!strstr(err->msg, needle)) fail_msg("error '%s' does not name '%s'", err->msg, needle);
}

static char dir[1024];

static void remove_test_dir(void)
{
    dir_remove(dir, NULL);
}

const char *test_dir(void)
{
    if (*dir) {
        remove_test_dir();
    } else {
        atexit(remove_test_dir);
    }
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/moetune-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir)) fail_msg("no temporary folder %s", dir);
    return dir;
}
