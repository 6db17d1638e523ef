// cli/progress.c - see progress.h.
#include "cli/progress.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

enum { BAR = 24 };

double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_open(struct progress *p, const struct output *io, const char *unit)
{
    *p = (struct progress){.file = io->quiet ? NULL : io->status,
                           .terminal = io->status_terminal,
                           .unit = unit,
                           .start = monotonic_seconds(),
                           .columns = 80};
    struct winsize size;
    if (p->terminal && ioctl(fileno(io->status), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        p->columns = size.ws_col;
    }
}

void progress_from(struct progress *p, int64_t done)
{
    p->first = done;
    p->start = monotonic_seconds();
}

static void draw_bar(struct progress *p, int64_t done, int64_t of, const char *words, double now)
{
    char line[512], left[32] = "", bar[BAR + 1];
    const int64_t fresh = done - p->first;
    if (fresh > 0 && done < of) {
        format_seconds(left, (now - p->start) * (double)(of - done) / (double)fresh);
    }
    const int length =
        snprintf(line, sizeof line, "%" PRId64 "/%" PRId64 " %s%s%s%s", done, of,
                 words ? words : p->unit, *left ? ", " : "", left, *left ? " left" : "");
    const int room = p->columns - 1 - length - (int)strlen("[] "); // the words come first
    const int width = room > BAR ? BAR : room < 4 ? 0 : room;
    const int full = of > 0 ? (int)((double)width * (double)done / (double)of) : 0;
    for (int i = 0; i < width; i++) {
        bar[i] = i < full ? '#' : '.';
    }
    bar[width] = 0;
    fprintf(p->file, "\r\033[K");
    if (width) fprintf(p->file, "[%s] ", bar);
    fprintf(p->file, "%.*s", p->columns - 1, line);
    fflush(p->file);
    p->drawn = true;
}

void progress_show(struct progress *p, int64_t done, int64_t of, const char *words)
{
    if (!p->file) return;
    const double now = monotonic_seconds();
    if (p->terminal) {
        if (now - p->last < 0.1 && done < of) return;
        p->last = now;
        draw_bar(p, done, of, words, now);
        return;
    }
    if (words) {
        fprintf(p->file, "%" PRId64 "/%" PRId64 " %s\n", done, of, words);
    } else if (now - p->last >= 10) { // a line every ten seconds is enough for a log
        if (p->last > 0) fprintf(p->file, "%" PRId64 "/%" PRId64 " %s\n", done, of, p->unit);
        p->last = now;
    }
    fflush(p->file);
}

void progress_line(struct progress *p, const char *line)
{
    if (!p->file) return;
    if (p->terminal) fputs("\r\033[K", p->file);
    fprintf(p->file, "%s\n", line);
    fflush(p->file);
}

void progress_end(struct progress *p)
{
    if (p->file && p->terminal && p->drawn) fputs("\r\033[K", p->file);
    if (p->file) fflush(p->file);
    p->drawn = false;
}
