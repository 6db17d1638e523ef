// cli/output.c - see output.h.
#include "cli/output.h"

#include "base/mem.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void output_safe(FILE *f, const char *text, size_t size)
{
    const utf8proc_uint8_t *s = (const utf8proc_uint8_t *)text;
    for (size_t i = 0; i < size;) {
        utf8proc_int32_t point;
        const utf8proc_ssize_t n = utf8proc_iterate(s + i, (utf8proc_ssize_t)(size - i), &point);
        const bool control = n <= 0 || (point < 0x20 && point != '\n' && point != '\t') ||
                             (point >= 0x7f && point < 0xa0);
        if (control) {
            fprintf(f, "\\x%02x", n > 0 ? (unsigned)point : (unsigned)s[i]);
        } else {
            fwrite(s + i, 1, (size_t)n, f);
        }
        i += n > 0 ? (size_t)n : 1;
    }
}

bool output_json(struct output *io, json_t *line, struct error *err)
{
    char *text = line ? json_text(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(line);
    if (!text) return fail(err, "no memory for a line of output");
    fprintf(io->result, "%s\n", text);
    fflush(io->result);
    mem_free(text);
    return true;
}

const char *format_bytes(char *text, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) {
        value /= 1024;
    }
    snprintf(text, 32, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
    return text;
}

const char *format_count(char *text, int64_t n)
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRId64, n < 0 ? 0 : n);
    char *out = text;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) *out++ = ',';
        *out++ = digits[i];
    }
    *out = 0;
    return text;
}

const char *format_seconds(char *text, double seconds)
{
    const long s = seconds < 0 || seconds > 1e9 ? 0 : (long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(text, 32, "%ld h %02ld min", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        snprintf(text, 32, "%ld min %02ld s", s / 60, s % 60);
    } else {
        snprintf(text, 32, "%ld s", s);
    }
    return text;
}
