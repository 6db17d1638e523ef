// cli/nearest.c - "did you mean": the known name that takes the fewest edits to reach.
#include "cli/options.h"

#include <string.h>

enum { LONGEST = 48 };

// Levenshtein's distance, one row at a time; names longer than LONGEST are far from everything.
static size_t edit_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    size_t row[LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return LONGEST;
    for (size_t j = 0; j <= m; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            const size_t shift = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = replace < shift ? replace : shift;
        }
    }
    return row[m];
}

const char *nearest_name(const char *word, const char *(*next)(void *user, int64_t i), void *user)
{
    const char *best = NULL, *name;
    size_t least = strlen(word) / 3 + 2; // more edits than that is another word
    for (int64_t i = 0; (name = next(user, i)); i++) {
        const size_t d = edit_distance(word, name);
        if (d >= least) continue;
        least = d;
        best = name;
    }
    return best;
}

// "help" and the options of a command, one after another: `next` is asked in order, so that each row is looked at once.
struct rows {
    enum command command;
    int64_t row, count;
};

static const char *next_option(void *user, int64_t i)
{
    struct rows *r = user;
    if (i == 0) return "help";
    while (r->row < r->count) {
        const struct option *row = option_at(r->row++);
        if (option_in(row, r->command)) return row->name;
    }
    return NULL;
}

const char *nearest_option(enum command c, const char *word)
{
    const char *here = foreign_option(c, word);
    if (here) return here;
    return nearest_name(word, next_option, &(struct rows){c, 0, option_count()});
}
