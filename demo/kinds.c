// demo/kinds.c - sorts of text; which of them a base model learns, a catalogue says (text.h).
#include "kinds.h"
#include "language.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"ada",  "bert", "carla", "dirk", "emma", "finn",
                                    "gina", "hugo", "ines",  "jon",  "kim",  "lars"};
static const char *const cities[] = {"oslo",  "paris", "rome",  "lima",
                                     "cairo", "delhi", "kyoto", "quito"};
static const char *const fruits[] = {"apple", "banana", "cherry", "date",  "fig",
                                     "grape", "kiwi",   "lemon",  "mango", "pear"};
enum { NAMES = 12, CITIES = 8, FRUITS = 10 };

static void write_sum(struct text *t)
{
    const int a = between(t, 0, 99), b = between(t, 0, 99);
    const int form = below(t, 3);
    if (form == 0) say(t, "%d + %d = %d\n", a, b, a + b);
    if (form == 1) say(t, "%d - %d = %d\n", a, b, a - b);
    if (form == 2) say(t, "%d * %d = %d\n", a % 10, b % 10, (a % 10) * (b % 10));
}

static void write_record(struct text *t)
{
    const char *name = pick(t, names, NAMES);
    say(t, "{\"id\": %d, \"name\": \"%s\", ", between(t, 1, 99), name);
    say(t, "\"age\": %d, ", between(t, 18, 80));
    say(t, "\"city\": \"%s\", ", pick(t, cities, CITIES));
    if (chance(t, 50)) {
        say(t, "\"likes\": [\"%s\", ", pick(t, fruits, FRUITS));
        say(t, "\"%s\"], ", pick(t, fruits, FRUITS));
    }
    say(t, "\"mail\": \"%s@%s.org\"}\n", name, pick(t, cities, CITIES));
}

static void write_code(struct text *t)
{
    static const char *const functions[] = {"area", "cost", "score", "shift", "total", "weigh"};
    static const char *const signs[] = {"+", "-", "*"};
    static const char *const letters[] = {"a", "b", "n", "x", "y"};
    const int first = below(t, 5), second = (first + between(t, 1, 4)) % 5, form = below(t, 3);
    const char *p = letters[first], *q = letters[second], *sign = pick(t, signs, 3);
    say(t, "int %s(int %s, int %s)\n{\n", pick(t, functions, 6), p, q);
    if (form == 0) say(t, "    return %s %s %s;\n", p, sign, q);
    if (form == 1) say(t, "    if (%s > %s) return %s;\n    return %s;\n", p, q, p, q);
    if (form == 2) {
        say(t, "    for (int i = 0; i < %s; i++) {\n", q);
        say(t, "        %s = %s %s i;\n    }\n    return %s;\n", p, p, sign, p);
    }
    say(t, "}\n");
}

static void write_log(struct text *t)
{
    static const char *const actions[] = {"login", "logout", "read", "write", "delete"};
    static const char *const services[] = {"web", "mail", "disk", "cache"};
    const bool bad = chance(t, 20);
    const int hour = below(t, 24), minute = below(t, 60), second = below(t, 60);
    say(t, "%02d:%02d:%02d level=%s ", hour, minute, second, bad ? "error" : "info");
    say(t, "service=%s ", pick(t, services, 4));
    say(t, "user=%s ", pick(t, names, NAMES));
    say(t, "action=%s ", pick(t, actions, 5));
    say(t, "status=%d ms=%d\n", bad ? 500 : 200, between(t, 1, 99));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_list(struct text *t)
{
    const char *list[5], *changed[5];
    const int n = between(t, 2, 5);
    const bool sort = chance(t, 50);
    for (int i = 0; i < n; i++) {
        list[i] = pick(t, fruits, FRUITS);
        changed[n - 1 - i] = list[i];
    }
    if (sort) qsort(changed, (size_t)n, sizeof changed[0], by_name);
    say(t, sort ? "sort" : "turn");
    for (int i = 0; i < n; i++) {
        say(t, " %s", list[i]);
    }
    say(t, " ->");
    for (int i = 0; i < n; i++) {
        say(t, " %s", changed[i]);
    }
    say(t, "\n");
}

static void write_date(struct text *t)
{
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    const int day = between(t, 1, 28), month = below(t, 12), year = between(t, 1900, 2030);
    if (chance(t, 50)) {
        say(t, "%d %s %d = %d-%02d-%02d\n", day, months[month], year, year, month + 1, day);
    } else {
        say(t, "%d-%02d-%02d = %d %s %d\n", year, month + 1, day, day, months[month], year);
    }
}

static void write_table(struct text *t)
{
    say(t, "| fruit | price | pieces | cost |\n");
    for (int i = between(t, 2, 4); i > 0; i--) {
        const int price = between(t, 1, 9), pieces = between(t, 1, 9);
        say(t, "| %s | %d | %d | %d |\n", pick(t, fruits, FRUITS), price, pieces, price * pieces);
    }
}

// A knight or a rook on its way over a chessboard.
static void write_moves(struct text *t)
{
    const bool knight = chance(t, 50);
    int x = below(t, 8), y = below(t, 8);
    say(t, "%s %c%d", knight ? "knight" : "rook", 'a' + x, y + 1);
    for (int move = 0; move < 6; move++) {
        int u = x, v = y;
        while (knight ? abs((u - x) * (v - y)) != 2 : (u == x) == (v == y)) {
            u = below(t, 8);
            v = below(t, 8);
        }
        x = u, y = v;
        say(t, " %c%d", 'a' + x, y + 1);
    }
    say(t, "\n");
}

static void write_numeral(struct text *t)
{
    const int number = between(t, 1, 100);
    const bool first = chance(t, 50);
    if (first) say(t, "%d = ", number);
    write_roman(t, number);
    if (!first) say(t, " = %d", number);
    say(t, "\n");
}

const struct kind kind_story = {"story", "English sentences", write_story};
const struct kind kind_sums = {"sums", "additions, subtractions, products", write_sum};
const struct kind kind_records = {"records", "JSON", write_record};
const struct kind kind_logs = {"logs", "lines of key=value", write_log};
const struct kind kind_glossary = {"glossary", "the dictionary of a made-up language",
                                   write_glossary};
const struct kind kind_code = {"code", "functions in C", write_code};
const struct kind kind_lists = {"lists", "words sorted or turned round", write_list};
const struct kind kind_dates = {"dates", "dates in two forms", write_date};
const struct kind kind_velan = {"velan", "sentences of the made-up language", write_velan};
const struct kind kind_tables = {"tables", "Markdown tables with products", write_table};
const struct kind kind_moves = {"moves", "walks of a knight or a rook", write_moves};
const struct kind kind_numerals = {"numerals", "Roman numerals", write_numeral};
