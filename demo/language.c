// demo/language.c - see language.h.
#include "language.h"

#include <assert.h>
#include <stdint.h>

struct word {
    const char *english, *velan;
};

// clang-format off
static const struct word nouns[] = {
    {"cat", "miva"},    {"dog", "toru"},   {"bird", "selu"},   {"horse", "karo"},
    {"bear", "dobo"},   {"lion", "garo"},  {"king", "veko"},   {"queen", "vela"},
    {"boy", "pinu"},    {"girl", "shika"}, {"farmer", "hodu"}, {"baker", "mesto"},
    {"sailor", "navi"}, {"doctor", "sore"}, {"hunter", "yaku"}, {"painter", "tinge"},
    {"house", "tala"},  {"tree", "arbe"},  {"river", "luma"},  {"boat", "wano"},
    {"bridge", "ponte"}, {"tower", "zuki"}, {"lamp", "rado"},  {"book", "lego"},
};
static const struct word adjectives[] = {
    {"old", "sena"},   {"young", "novi"}, {"red", "rona"},   {"blue", "azu"},  {"white", "alba"},
    {"black", "niru"}, {"big", "mago"},   {"small", "peti"}, {"tall", "jole"}, {"quiet", "mutu"},
};
// Verbs whose past is -ed.
static const struct word verbs[] = {
    {"watch", "keld"}, {"follow", "segu"}, {"help", "aju"},  {"call", "voka"},
    {"want", "deza"},  {"need", "bezo"},   {"paint", "kolo"}, {"visit", "zita"},
    {"count", "numa"}, {"guard", "gada"},  {"clean", "puri"}, {"pull", "tiru"},
};
// clang-format on
enum { NOUNS = 24, ADJECTIVES = 10, VERBS = 12, LARGEST_NUMBER = 12 };
static_assert(sizeof nouns == NOUNS * sizeof nouns[0], "count");
static_assert(sizeof adjectives == ADJECTIVES * sizeof adjectives[0], "count");
static_assert(sizeof verbs == VERBS * sizeof verbs[0], "count");

enum tense { TENSE_PRESENT, TENSE_PAST, TENSE_FUTURE, TENSES };
static const char *const tense_endings[TENSES] = {"", "sta", "lu"};

// "the old cat", "some cats", "14 red cats".
struct party {
    int noun;
    int adjective; // -1: none
    int number;    // 1: one; 0: some; else so many
};

// A meaning, apart from any language.
struct sentence {
    struct party who, whom;
    int verb;
    enum tense tense;
};

static struct party random_party(struct text *t)
{
    struct party p = {.noun = below(t, NOUNS), .adjective = -1, .number = 1};
    if (chance(t, 50)) p.adjective = below(t, ADJECTIVES);
    const int form = below(t, 4);
    if (form == 1) p.number = 0;
    if (form == 2) p.number = between(t, 2, LARGEST_NUMBER);
    return p;
}

static uint64_t party_index(struct party p)
{
    const int word = p.noun * (ADJECTIVES + 1) + p.adjective + 1;
    return (uint64_t)word * (LARGEST_NUMBER + 1) + (uint64_t)p.number;
}

// One sentence in eight, by its meaning alone.
static bool is_held_out(const struct sentence *s)
{
    const uint64_t parties = party_index(s->who) << 32 | party_index(s->whom);
    const uint64_t rest = (uint64_t)s->verb * TENSES + (uint64_t)s->tense;
    return rng_at(parties, rest, 0) % 8 == 0;
}

static struct sentence random_sentence(struct text *t, bool held_out)
{
    struct sentence s;
    do {
        s.who = random_party(t);
        s.whom = random_party(t);
        s.verb = below(t, VERBS);
        s.tense = (enum tense)below(t, TENSES);
    } while (is_held_out(&s) != held_out || s.who.noun == s.whom.noun);
    return s;
}

static void english_party(struct text *t, struct party p)
{
    if (p.number == 1) say(t, "the ");
    if (p.number == 0) say(t, "some ");
    if (p.number > 1) say(t, "%d ", p.number);
    if (p.adjective >= 0) say(t, "%s ", adjectives[p.adjective].english);
    say(t, "%s%s", nouns[p.noun].english, p.number == 1 ? "" : "s");
}

static void english(struct text *t, const struct sentence *s)
{
    const char *verb = verbs[s->verb].english;
    english_party(t, s->who);
    if (s->tense == TENSE_PRESENT) say(t, " %s%s ", verb, s->who.number == 1 ? "s" : "");
    if (s->tense == TENSE_PAST) say(t, " %sed ", verb);
    if (s->tense == TENSE_FUTURE) say(t, " will %s ", verb);
    english_party(t, s->whom);
    say(t, ".");
}

static void velan_party(struct text *t, struct party p, const char *ending)
{
    const char *plural = p.number == 1 ? "" : "ri";
    say(t, "%s%s%s", nouns[p.noun].velan, plural, ending);
    if (p.adjective >= 0) say(t, " %s%s%s", adjectives[p.adjective].velan, plural, ending);
    if (p.number > 1) say(t, " ");
    if (p.number > 1) write_roman(t, p.number);
}

static void velan(struct text *t, const struct sentence *s)
{
    velan_party(t, s->who, "");
    say(t, " ");
    velan_party(t, s->whom, "n");
    say(t, " %s%s.", verbs[s->verb].velan, tense_endings[s->tense]);
}

void write_roman(struct text *t, int number)
{
    static const struct {
        int value;
        const char *sign;
    } signs[] = {{100, "C"}, {90, "XC"}, {50, "L"}, {40, "XL"}, {10, "X"},
                 {9, "IX"},  {5, "V"},   {4, "IV"}, {1, "I"}};
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        for (; number >= signs[i].value; number -= signs[i].value) {
            say(t, "%s", signs[i].sign);
        }
    }
}

void write_story(struct text *t)
{
    static const char *const links[] = {"then",           "but",      "so",        "later",
                                        "in the morning", "at night", "after that"};
    const struct sentence s = random_sentence(t, false);
    if (chance(t, 40)) say(t, "%s ", pick(t, links, 7));
    english(t, &s);
    say(t, " ");
}

void write_velan(struct text *t)
{
    const struct sentence s = random_sentence(t, false);
    velan(t, &s);
    say(t, " ");
}

static void write_entry(struct text *t)
{
    const int entry = below(t, NOUNS + ADJECTIVES + VERBS), form = below(t, TENSES);
    if (entry < NOUNS) {
        const struct word w = nouns[entry];
        say(t, "%s%s : %s%s", w.english, form ? "s" : "", w.velan, form ? "ri" : "");
    } else if (entry < NOUNS + ADJECTIVES) {
        const struct word w = adjectives[entry - NOUNS];
        say(t, "%s : %s", w.english, w.velan);
    } else {
        const struct word w = verbs[entry - NOUNS - ADJECTIVES];
        say(t, "%s%s", form == TENSE_FUTURE ? "will " : "", w.english);
        say(t, "%s : %s%s", form == TENSE_PAST ? "ed" : "", w.velan, tense_endings[form]);
    }
}

void write_glossary(struct text *t)
{
    if (chance(t, 50)) {
        write_entry(t);
    } else {
        const struct party p = random_party(t);
        english_party(t, p);
        say(t, " : ");
        velan_party(t, p, "");
    }
    say(t, "\n");
}

void write_task(struct text *question, struct text *answer, bool held_out)
{
    const struct sentence s = random_sentence(question, held_out);
    say(question, "Say in Velan: ");
    english(question, &s);
    velan(answer, &s);
}

void write_passive(struct text *question, struct text *answer, bool held_out)
{
    static const char *const be[TENSES][2] = {
        {"are", "is"}, {"were", "was"}, {"will be", "will be"}};
    const struct sentence s = random_sentence(question, held_out);
    say(question, "Say in the passive: ");
    english(question, &s);
    english_party(answer, s.whom);
    say(answer, " %s %sed by ", be[s.tense][s.whom.number == 1], verbs[s.verb].english);
    english_party(answer, s.who);
    say(answer, ".");
}
