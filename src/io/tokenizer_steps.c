// io/tokenizer_steps.c - reads "normalizer", "pre_tokenizer" and "decoder" of tokenizer.json into flat
// lists of simple steps. A type that is not implemented is refused by name.
#include "io/json.h"
#include "io/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

static struct step *add_step(struct steps *s, enum step_kind kind, const char *where,
                             struct error *err)
{
    if (s->count == TOKENIZER_MAX_STEPS) {
        fail(err, "%s: more than %d steps", where, TOKENIZER_MAX_STEPS);
        return NULL;
    }
    struct step *step = &s->step[s->count++];
    *step = (struct step){.kind = kind, .behavior = ISOLATED};
    return step;
}

void steps_close(struct steps *s)
{
    for (int i = 0; i < s->count; i++) {
        pcre2_code_free(s->step[i].regex);
        mem_free(s->step[i].text);
    }
    s->count = 0;
}

static bool copy_text(char **out, const char *text, struct error *err)
{
    *out = mem_strdup(text);
    return *out || no_memory(err);
}

static bool get_type(const char **type, json_t *value, const char *where, struct error *err)
{
    if (!json_is_object(value)) return fail(err, "%s: no object", where);
    return json_get_text(value, "type", true, type, where, err);
}

// {"String": "..."} or {"Regex": "..."}
bool pattern_parse(pcre2_code **regex, json_t *value, const char *where, struct error *err)
{
    const json_t *pattern = json_object_get(value, "pattern");
    const char *text = NULL, *expression = NULL;
    if (!json_is_object(pattern)) return fail(err, "%s: pattern is no object", where);
    if (!json_get_text(pattern, "String", false, &text, where, err) ||
        !json_get_text(pattern, "Regex", false, &expression, where, err)) {
        return false;
    }
    if (!text == !expression) return fail(err, "%s: pattern is neither String nor Regex", where);
    *regex = regex_open(text ? text : expression, text != NULL, where, err);
    return *regex != NULL;
}

static bool parse_replace(struct steps *s, json_t *value, const char *where, struct error *err)
{
    const char *content = NULL;
    if (!json_get_text(value, "content", true, &content, where, err)) return false;
    struct step *step = add_step(s, STEP_REPLACE, where, err);
    return step && pattern_parse(&step->regex, value, where, err) &&
           copy_text(&step->text, content, err);
}

// Calls `parse` for each element of value[key]; the path in `where` grows by its index.
static bool parse_sequence(void *out, json_t *value, const char *key, int depth,
                           bool (*parse)(void *, json_t *, int, const char *, struct error *),
                           const char *where, struct error *err)
{
    json_t *list = json_object_get(value, key);
    if (!json_is_array(list)) return fail(err, "%s: %s is no array", where, key);
    if (depth == TOKENIZER_MAX_NESTING) return fail(err, "%s: nested too deeply", where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char place[512];
        snprintf(place, sizeof place, "%s[%zu]", where, i);
        if (!parse(out, json_array_get(list, i), depth + 1, place, err)) return false;
    }
    return true;
}

static bool parse_normalizer(void *out, json_t *value, int depth, const char *where,
                             struct error *err)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"}; // as enum normal_form
    struct steps *s = out;
    const char *type = NULL, *text = NULL;
    if (!get_type(&type, value, where, err)) return false;
    for (int i = 0; i < 4; i++) {
        if (strcmp(type, forms[i]) != 0) continue;
        struct step *step = add_step(s, STEP_NORMAL, where, err);
        if (step) step->form = (enum normal_form)i;
        return step != NULL;
    }
    if (strcmp(type, "Sequence") == 0) {
        return parse_sequence(s, value, "normalizers", depth, parse_normalizer, where, err);
    }
    if (strcmp(type, "Replace") == 0) return parse_replace(s, value, where, err);
    if (strcmp(type, "Prepend") == 0) {
        if (!json_get_text(value, "prepend", true, &text, where, err)) return false;
        struct step *step = add_step(s, STEP_PREPEND, where, err);
        return step && copy_text(&step->text, text, err);
    }
    return fail(err, "%s: normalizer \"%.40s\" is not implemented", where, type);
}

bool normalizer_parse(struct steps *s, json_t *value, const char *where, struct error *err)
{
    char place[512];
    snprintf(place, sizeof place, "%s: normalizer", where);
    return !value || json_is_null(value) || parse_normalizer(s, value, 0, place, err);
}

static bool add_prefix(struct steps *s, const char *text, bool first, const char *where,
                       struct error *err)
{
    struct step *step = add_step(s, STEP_PREFIX, where, err);
    if (step) step->first = first;
    return step && copy_text(&step->text, text, err);
}

// The pattern of GPT-2, which ByteLevel brings along.
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static bool parse_byte_level(struct steps *s, json_t *value, const char *where, struct error *err)
{
    bool prefix = true, use_regex = true;
    if (!json_get_bool(value, "add_prefix_space", true, &prefix, where, err) ||
        !json_get_bool(value, "use_regex", false, &use_regex, where, err)) {
        return false;
    }
    if (prefix && !add_prefix(s, " ", false, where, err)) return false;
    if (!use_regex) return true;
    struct step *step = add_step(s, STEP_REGEX, where, err);
    if (step) step->regex = regex_open(gpt2, false, where, err);
    return step && step->regex;
}

static bool one_character(const char *text)
{
    size_t at = 0;
    if (!*text) return false;
    utf8_next(text, &at);
    return text[at] == 0;
}

// Shared by the pre-tokenizer and the decoder of that name.
static bool metaspace_options(const char **mark, const char **scheme, bool *split, json_t *value,
                              const char *where, struct error *err)
{
    bool prefix = true;
    *mark = "";
    *scheme = "always";
    if (!json_get_text(value, "replacement", true, mark, where, err) ||
        !json_get_text(value, "prepend_scheme", false, scheme, where, err) ||
        !json_get_bool(value, "split", false, split, where, err) ||
        !json_get_bool(value, "add_prefix_space", false, &prefix, where, err)) {
        return false;
    }
    if (!one_character(*mark)) return fail(err, "%s: replacement is not one character", where);
    if (!prefix) *scheme = "never";
    if (strcmp(*scheme, "always") == 0 || strcmp(*scheme, "first") == 0) return true;
    if (strcmp(*scheme, "never") == 0) return true;
    return fail(err, "%s: prepend_scheme \"%.40s\" is not implemented", where, *scheme);
}

static bool parse_metaspace(struct steps *s, json_t *value, const char *where, struct error *err)
{
    const char *mark, *scheme;
    bool split = true;
    if (!metaspace_options(&mark, &scheme, &split, value, where, err)) return false;
    struct step *step = add_step(s, STEP_REPLACE, where, err);
    if (!step || !(step->regex = regex_open(" ", true, where, err)) ||
        !copy_text(&step->text, mark, err)) {
        return false;
    }
    if (strcmp(scheme, "never") != 0 &&
        !add_prefix(s, mark, strcmp(scheme, "first") == 0, where, err)) {
        return false;
    }
    if (!split) return true;
    step = add_step(s, STEP_REGEX, where, err);
    if (!step) return false;
    step->behavior = MERGED_WITH_NEXT;
    step->regex = regex_open(mark, true, where, err);
    return step->regex != NULL;
}

static bool parse_split(struct steps *s, json_t *value, const char *where, struct error *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"}; // as enum behavior
    const char *behavior = "";
    struct step *step = add_step(s, STEP_REGEX, where, err);
    if (!step || !json_get_text(value, "behavior", true, &behavior, where, err) ||
        !json_get_bool(value, "invert", true, &step->invert, where, err)) {
        return false;
    }
    for (int i = 0; i < 5; i++) {
        if (strcmp(behavior, names[i]) != 0) continue;
        step->behavior = (enum behavior)i;
        return pattern_parse(&step->regex, value, where, err);
    }
    return fail(err, "%s: behavior \"%.40s\" is not implemented", where, behavior);
}

struct pre_tokenizer {
    struct steps *steps;
    bool byte_level;
};

static bool parse_pre_tokenizer(void *out, json_t *value, int depth, const char *where,
                                struct error *err)
{
    struct pre_tokenizer *p = out;
    const char *type = NULL;
    if (!get_type(&type, value, where, err)) return false;
    if (strcmp(type, "Sequence") == 0) {
        return parse_sequence(p, value, "pretokenizers", depth, parse_pre_tokenizer, where, err);
    }
    // What follows would see the alphabet of bytes instead of the text.
    if (p->byte_level)
        return fail(err, "%s: \"%.40s\" after ByteLevel is not implemented", where, type);
    if (strcmp(type, "ByteLevel") == 0) {
        p->byte_level = true;
        return parse_byte_level(p->steps, value, where, err);
    }
    if (strcmp(type, "Split") == 0) return parse_split(p->steps, value, where, err);
    if (strcmp(type, "Metaspace") == 0) return parse_metaspace(p->steps, value, where, err);
    const bool digits = strcmp(type, "Digits") == 0, words = strcmp(type, "Whitespace") == 0;
    if (!digits && !words && strcmp(type, "WhitespaceSplit") != 0) {
        return fail(err, "%s: pre_tokenizer \"%.40s\" is not implemented", where, type);
    }
    struct step *step = add_step(p->steps,
                                 digits  ? STEP_NUMBERS
                                 : words ? STEP_WORDS
                                         : STEP_SPACES,
                                 where, err);
    if (!step) return false;
    bool single = false;
    if (digits && !json_get_bool(value, "individual_digits", true, &single, where, err))
        return false;
    step->behavior = !digits ? REMOVED : single ? ISOLATED : CONTIGUOUS;
    step->invert = words; // the words are the matches
    return true;
}

bool pre_tokenizer_parse(struct steps *s, bool *byte_level, json_t *value, const char *where,
                         struct error *err)
{
    char place[512];
    snprintf(place, sizeof place, "%s: pre_tokenizer", where);
    struct pre_tokenizer p = {s, false};
    if (value && !json_is_null(value) && !parse_pre_tokenizer(&p, value, 0, place, err))
        return false;
    *byte_level = p.byte_level;
    return true;
}

static bool parse_strip(struct decoder *d, json_t *value, const char *where, struct error *err)
{
    const char *text = "";
    if (!json_get_text(value, "content", true, &text, where, err) ||
        !json_get_int(value, "start", 0, INT32_MAX, true, &d->start, where, err) ||
        !json_get_int(value, "stop", 0, INT32_MAX, true, &d->stop, where, err)) {
        return false;
    }
    if (!one_character(text)) return fail(err, "%s: content is not one character", where);
    return copy_text(&d->text, text, err);
}

static bool parse_decoder(void *out, json_t *value, int depth, const char *where, struct error *err)
{
    static const char *const names[] = {"ByteLevel", "ByteFallback", "Fuse",
                                        "Replace",   "Strip",        "Metaspace"};
    struct decoders *list = out;
    const char *type = NULL, *text = NULL, *scheme;
    bool split = true;
    if (!get_type(&type, value, where, err)) return false;
    if (strcmp(type, "Sequence") == 0) {
        return parse_sequence(list, value, "decoders", depth, parse_decoder, where, err);
    }
    int kind = 0;
    while (kind < 6 && strcmp(type, names[kind]) != 0) {
        kind++;
    }
    if (kind == 6) return fail(err, "%s: decoder \"%.40s\" is not implemented", where, type);
    if (list->count == TOKENIZER_MAX_STEPS) {
        return fail(err, "%s: more than %d steps", where, TOKENIZER_MAX_STEPS);
    }
    struct decoder *d = &list->step[list->count++];
    *d = (struct decoder){.kind = (enum decoder_kind)kind};
    switch (d->kind) {
    case DECODE_REPLACE:
        return json_get_text(value, "content", true, &text, where, err) &&
               pattern_parse(&d->regex, value, where, err) && copy_text(&d->text, text, err);
    case DECODE_STRIP:
        return parse_strip(d, value, where, err);
    case DECODE_METASPACE:
        if (!metaspace_options(&text, &scheme, &split, value, where, err)) return false;
        d->drop_first = strcmp(scheme, "never") != 0;
        return copy_text(&d->text, text, err);
    default:
        return true;
    }
}

bool decoders_parse(struct decoders *d, json_t *value, const char *where, struct error *err)
{
    char place[512];
    snprintf(place, sizeof place, "%s: decoder", where);
    d->given = value && !json_is_null(value);
    return !d->given || parse_decoder(d, value, 0, place, err);
}

void decoders_close(struct decoders *d)
{
    for (int i = 0; i < d->count; i++) {
        pcre2_code_free(d->step[i].regex);
        mem_free(d->step[i].text);
    }
    d->count = 0;
}
