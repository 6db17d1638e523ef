// results/kinds.c - see kinds.h. Each item says on one line what is given and what follows from it.
#include "kinds.h"

#include <string.h>

static char letter(struct text *t)
{
    return (char)('a' + below(t, 26));
}

// "copy k3 f9 a2 : k3 f9 a2", "back k3 f9 a2 : a2 f9 k3".
static void write_copy(struct text *t)
{
    char sign[6], number[6];
    const int n = between(t, 2, 6);
    const bool back = chance(t, 50);
    say(t, back ? "back" : "copy");
    for (int i = 0; i < n; i++) {
        sign[i] = letter(t);
        number[i] = (char)('0' + below(t, 10));
        say(t, " %c%c", sign[i], number[i]);
    }
    say(t, " :");
    for (int i = 0; i < n; i++) {
        const int k = back ? n - 1 - i : i;
        say(t, " %c%c", sign[k], number[k]);
    }
    say(t, "\n");
}

// Different letters, so that a key or an item is there once: a walk over the alphabet in a random order.
static void some_letters(struct text *t, char *out, int n)
{
    char all[26];
    for (int i = 0; i < 26; i++) {
        all[i] = (char)('a' + i);
    }
    for (int i = 0; i < n; i++) {
        const int k = between(t, i, 25);
        const char chosen = all[k];
        all[k] = all[i];
        all[i] = out[i] = chosen;
    }
}

// "a=41 k=7 d=90 ? k 7"
static void write_lookup(struct text *t)
{
    char key[5];
    int value[5];
    const int n = between(t, 3, 5), asked = below(t, n);
    some_letters(t, key, n);
    for (int i = 0; i < n; i++) {
        value[i] = below(t, 100);
        say(t, "%c=%d ", key[i], value[i]);
    }
    say(t, "? %c %d\n", key[asked], value[asked]);
}

// "( [ ] { | } )": what is still open after the stroke is closed in order.
static void write_bracket(struct text *t)
{
    static const char open[] = "([{<", shut[] = ")]}>";
    int stack[12], depth = 0;
    for (int i = between(t, 4, 9); i > 0; i--) {
        if (depth > 0 && chance(t, 40)) {
            say(t, "%c ", shut[stack[--depth]]);
        } else {
            stack[depth] = below(t, 4);
            say(t, "%c ", open[stack[depth++]]);
        }
    }
    say(t, "|");
    while (depth > 0) {
        say(t, " %c", shut[stack[--depth]]);
    }
    say(t, "\n");
}

// "oak elm oak ash oak # ash 1 elm 1 oak 3"
static void write_count(struct text *t)
{
    static const char *const trees[] = {"ash", "elm", "oak", "yew"};
    int count[4] = {0};
    for (int i = between(t, 3, 7); i > 0; i--) {
        const int k = below(t, 4);
        count[k]++;
        say(t, "%s ", trees[k]);
    }
    say(t, "#");
    for (int k = 0; k < 4; k++) {
        if (count[k]) say(t, " %s %d", trees[k], count[k]);
    }
    say(t, "\n");
}

// Caesar's shift, by 1 to 3: "shift 2 bad dcf".
static void write_cipher(struct text *t)
{
    char word[6] = "", shifted[6] = "";
    const int n = between(t, 3, 5), by = between(t, 1, 3);
    for (int i = 0; i < n; i++) {
        word[i] = letter(t);
        shifted[i] = (char)('a' + (word[i] - 'a' + by) % 26);
    }
    say(t, "shift %d", by);
    for (int i = 0; i < n; i++) {
        say(t, " %c", word[i]);
    }
    say(t, " >");
    for (int i = 0; i < n; i++) {
        say(t, " %c", shifted[i]);
    }
    say(t, "\n");
}

// "{k, f, a, q} has f yes"
static void write_member(struct text *t)
{
    char item[6];
    const int n = between(t, 2, 5);
    const bool inside = chance(t, 50);
    some_letters(t, item, n + 1);
    say(t, "{");
    for (int i = 0; i < n; i++) {
        say(t, "%s%c", i ? ", " : "", item[i]);
    }
    say(t, "} has %c %s\n", item[inside ? below(t, n) : n], inside ? "yes" : "no");
}

// "3 km = 3000 m", "240 min = 4 h"
static void write_unit(struct text *t)
{
    static const struct {
        const char *large, *small;
        int factor;
    } units[] = {{"km", "m", 1000}, {"m", "cm", 100},  {"h", "min", 60}, {"min", "s", 60},
                 {"kg", "g", 1000}, {"t", "kg", 1000}, {"day", "h", 24}, {"dozen", "pieces", 12}};
    const int k = below(t, 8), n = between(t, 1, 20), small = n * units[k].factor;
    if (chance(t, 50)) {
        say(t, "%d %s = %d %s\n", n, units[k].large, small, units[k].small);
    } else {
        say(t, "%d %s = %d %s\n", small, units[k].small, n, units[k].large);
    }
}

// "3, 7, 11, 15, 19;"
static void write_progression(struct text *t)
{
    const int first = below(t, 50), step = between(t, 1, 12);
    for (int i = 0; i < 6; i++) {
        say(t, "%d%s", first + i * step, i < 5 ? ", " : ";\n");
    }
}

const struct kind kind_copies = {"copies", "signs copied or turned round", write_copy};
const struct kind kind_lookups = {"lookups", "keys, values and a question", write_lookup};
const struct kind kind_brackets = {"brackets", "brackets that are closed", write_bracket};
const struct kind kind_counts = {"counts", "words counted", write_count};
const struct kind kind_ciphers = {"ciphers", "letters shifted, as Caesar did", write_cipher};
const struct kind kind_members = {"members", "is it in the set?", write_member};
const struct kind kind_units = {"units", "quantities in another unit", write_unit};
const struct kind kind_progressions = {"progressions", "arithmetic progressions",
                                       write_progression};
