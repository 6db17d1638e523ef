// io/dataset_sample.c - see dataset_sample.h. The table at the end is the one list of formats.
#include "io/dataset_sample.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void sample_free(struct sample *s)
{
    mem_free(s->message);
    tokens_free(&s->ids);
    buf_free(&s->learn);
    *s = (struct sample){0};
}

static const char *type_name(const json_t *v)
{
    if (!v) return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

// "prompt, id": what an object holds, for messages; at most a few.
static void list_keys(char *out, size_t size, const json_t *object)
{
    enum { SHOWN = 8 };
    int n = 0;
    size_t used = 0;
    const char *key;
    json_t *value;
    *out = 0;
    json_object_foreach((json_t *)object, key, value)
    {
        if (n == SHOWN || used + 48 > size) {
            snprintf(out + used, size - used, ", ...");
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%.32s", n++ ? ", " : "", key);
    }
    if (!n) snprintf(out, size, "nothing");
}

// The text under `key`, which the format of `beside` needs; NULL and err without it.
static const char *need_text(const json_t *o, const char *key, const char *beside,
                             const char *where, struct error *err)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_string(v)) return json_string_value(v);
    if (v) {
        fail(err, "%s: %s: found %s, expected text", where, key, type_name(v));
        return NULL;
    }
    char keys[400];
    list_keys(keys, sizeof keys, o);
    fail(err, "%s: %s: missing beside '%s' (found %s), expected text", where, key, beside, keys);
    return NULL;
}

static bool add_message(struct sample *s, struct message m, const char *where, struct error *err)
{
    struct message *grown = array_grow(s->message, s->count, &s->capacity, sizeof *grown);
    if (!grown) return fail(err, "%s: out of memory", where);
    s->message = grown;
    s->message[s->count++] = m;
    return true;
}

static bool add_pair(struct sample *s, struct message user, const char *answer, const char *where,
                     struct error *err)
{
    user.role = "user";
    return add_message(s, user, where, err) &&
           add_message(s, (struct message){.role = "assistant", .content = answer}, where, err);
}

static bool parse_prompt(struct sample *s, const json_t *o, const char *where, struct error *err)
{
    const char *prompt = need_text(o, "prompt", "completion", where, err);
    const char *answer = prompt ? need_text(o, "completion", "prompt", where, err) : NULL;
    return answer &&
           add_pair(s, (struct message){.content = prompt, .verbatim = true}, answer, where, err);
}

static bool parse_instruction(struct sample *s, const json_t *o, const char *where,
                              struct error *err)
{
    const char *instruction = need_text(o, "instruction", "output", where, err);
    const char *answer = instruction ? need_text(o, "output", "instruction", where, err) : NULL;
    if (!answer) return false;
    const json_t *input = json_object_get(o, "input");
    if (input && !json_is_string(input) && !json_is_null(input)) {
        return fail(err, "%s: input: found %s, expected text", where, type_name(input));
    }
    const struct message user = {.content = instruction, .input = json_string_value(input)};
    return add_pair(s, user, answer, where, err);
}

static bool parse_question(struct sample *s, const json_t *o, const char *where, struct error *err)
{
    const char *question = need_text(o, "question", "answer", where, err);
    const char *answer = question ? need_text(o, "answer", "question", where, err) : NULL;
    return answer && add_pair(s, (struct message){.content = question}, answer, where, err);
}

static bool parse_text(struct sample *s, const json_t *o, const char *where, struct error *err)
{
    s->kind = SAMPLE_TEXT;
    s->text = need_text(o, "text", "text", where, err);
    return s->text != NULL;
}

// What names a turn's speaker in the two formats that have turns.
struct turns {
    const char *list, *role, *content, *roles;
    const char *from[8], *to[8]; // name in the file, role; NULL ends
};
static const struct turns messages_turns = {"messages",
                                            "role",
                                            "content",
                                            "system, user or assistant",
                                            {"system", "user", "assistant"},
                                            {"system", "user", "assistant"}};
static const struct turns conversations_turns = {
    "conversations",
    "from",
    "value",
    "system, human, user, gpt or assistant",
    {"system", "human", "user", "gpt", "assistant"},
    {"system", "user", "user", "assistant", "assistant"}};

static bool parse_mask(int *mask, const json_t *turn, const char *where, struct error *err)
{
    const json_t *v = json_object_get(turn, "mask");
    if (!v || json_is_null(v)) return true;
    const json_int_t value = json_is_boolean(v) ? json_is_true(v) : json_integer_value(v);
    if ((!json_is_integer(v) && !json_is_boolean(v)) || value < 0 || value > 1) {
        return fail(err, "%s: mask: found %s, expected 1 (no loss) or 0", where,
                    json_is_integer(v) ? "another integer" : type_name(v));
    }
    *mask = (int)value;
    return true;
}

// A turn that the model's own template is given as it is.
static bool parse_any_turn(struct sample *s, const json_t *turn, const char *where,
                           struct error *err)
{
    const char *role = need_text(turn, "role", "messages", where, err);
    const char *content = json_string_value(json_object_get(turn, "content"));
    struct message m = {.role = role, .content = content ? content : "", .mask = -1, .json = turn};
    return role && parse_mask(&m.mask, turn, where, err) && add_message(s, m, where, err);
}

static bool parse_turn(struct sample *s, const json_t *turn, const struct turns *f, size_t i,
                       const char *where, struct error *err)
{
    char place[1024];
    snprintf(place, sizeof place, "%s: %s[%zu]", where, f->list, i);
    if (!json_is_object(turn)) {
        return fail(err, "%s: found %s, expected an object", place, type_name(turn));
    }
    if (s->any_turns && f == &messages_turns) return parse_any_turn(s, turn, place, err);
    const char *from = need_text(turn, f->role, f->content, place, err);
    const char *content = from ? need_text(turn, f->content, f->role, place, err) : NULL;
    if (!content) return false;
    struct message m = {.content = content, .mask = -1};
    for (size_t k = 0; f->from[k]; k++) {
        if (strcmp(from, f->from[k]) == 0) m.role = f->to[k];
    }
    if (!m.role) {
        return fail(err, "%s: %s: found '%.32s', expected %s", place, f->role, from, f->roles);
    }
    return parse_mask(&m.mask, turn, place, err) && add_message(s, m, place, err);
}

static bool parse_turns(struct sample *s, const json_t *o, const struct turns *f, const char *where,
                        struct error *err)
{
    const json_t *list = json_object_get(o, f->list);
    if (!json_is_array(list) || !json_array_size(list)) {
        return fail(err, "%s: %s: found %s, expected an array of turns", where, f->list,
                    json_is_array(list) ? "an empty array" : type_name(list));
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!parse_turn(s, json_array_get(list, i), f, i, where, err)) return false;
    }
    if (s->any_turns) s->message[0].conversation = o;
    return true;
}

static bool parse_messages(struct sample *s, const json_t *o, const char *where, struct error *err)
{
    return parse_turns(s, o, &messages_turns, where, err);
}

static bool parse_conversations(struct sample *s, const json_t *o, const char *where,
                                struct error *err)
{
    return parse_turns(s, o, &conversations_turns, where, err);
}

// The array under `key`; NULL and err if there is none or it has not n elements (-1: any).
static const json_t *need_array(const json_t *o, const char *key, int64_t n, const char *where,
                                struct error *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_array(v)) {
        fail(err, "%s: %s: found %s, expected an array of integers", where, key, type_name(v));
        return NULL;
    }
    if (n >= 0 && json_array_size(v) != (size_t)n) {
        fail(err, "%s: %s: found %zu elements, expected %" PRId64 " as in input_ids", where, key,
             json_array_size(v), n);
        return NULL;
    }
    return v;
}

// A label is -100 (ignored) or the id at its place: targets are the ids themselves, shifted later.
static bool parse_label(struct sample *s, const json_t *label, size_t i, const char *where,
                        struct error *err)
{
    const json_int_t value = json_is_integer(label) ? json_integer_value(label) : -1;
    const char learn = value != -100;
    if (learn && value != s->ids.id[i]) {
        return fail(err, "%s: labels[%zu]: found %s %lld, expected -100 or the id %d", where, i,
                    type_name(label), (long long)value, s->ids.id[i]);
    }
    return buf_append(&s->learn, &learn, 1) || fail(err, "%s: out of memory", where);
}

// Padding is not ours: micro-batches are packed, and a pad token would be read as text.
static bool check_unpadded(const json_t *o, int64_t n, const char *where, struct error *err)
{
    const json_t *mask = json_object_get(o, "attention_mask");
    if (!mask || json_is_null(mask)) return true;
    if (!need_array(o, "attention_mask", n, where, err)) return false;
    for (size_t i = 0; i < (size_t)n; i++) {
        if (json_integer_value(json_array_get(mask, i)) != 1) {
            return fail(err, "%s: attention_mask[%zu]: expected 1 (examples without padding)",
                        where, i);
        }
    }
    return true;
}

static bool parse_ids(struct sample *s, const json_t *o, const char *where, struct error *err)
{
    s->kind = SAMPLE_IDS;
    s->ids.count = 0;
    s->learn.size = 0;
    const json_t *ids = need_array(o, "input_ids", -1, where, err);
    if (!ids) return false;
    const size_t n = json_array_size(ids);
    if (!n) return fail(err, "%s: input_ids: found no elements, expected some", where);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(ids, i);
        const json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > INT32_MAX) {
            return fail(err, "%s: input_ids[%zu]: found %s %lld, expected a token id", where, i,
                        type_name(v), (long long)json_integer_value(v));
        }
        if (!tokens_add(&s->ids, (int32_t)id)) return fail(err, "%s: out of memory", where);
    }
    const json_t *labels = need_array(o, "labels", (int64_t)n, where, err);
    for (size_t i = 0; labels && i < n; i++) {
        if (!parse_label(s, json_array_get(labels, i), i, where, err)) return false;
    }
    return labels && check_unpadded(o, (int64_t)n, where, err);
}

// The formats, told apart by a key of their own; the first that fits is taken (`text` and `answer`
// stand beside other formats in many data sets).
static const struct {
    const char *key;
    bool (*parse)(struct sample *s, const json_t *o, const char *where, struct error *err);
} formats[] = {
    {"input_ids", parse_ids},
    {"messages", parse_messages},
    {"conversations", parse_conversations},
    {"instruction", parse_instruction},
    {"prompt", parse_prompt},
    {"completion", parse_prompt},
    {"question", parse_question},
    {"text", parse_text},
};

bool sample_parse(struct sample *s, const json_t *object, const char *where, struct error *err)
{
    if (!json_is_object(object)) {
        return fail(err, "%s: found %s, expected an object", where, type_name(object));
    }
    s->kind = SAMPLE_CHAT;
    s->count = 0;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (json_object_get(object, formats[i].key)) {
            return formats[i].parse(s, object, where, err);
        }
    }
    char keys[400];
    list_keys(keys, sizeof keys, object);
    return fail(err,
                "%s: no format known by its fields: found %s, expected input_ids, messages, "
                "conversations, instruction, prompt, question or text",
                where, keys);
}
