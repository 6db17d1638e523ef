// eval/questions.c - see questions.h.
#include "eval/questions.h"

#include "base/log.h"
#include "base/mem.h"
#include "io/dataset_source.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool question_prompt(struct buf *out, const char *instruction)
{
    static const char indent[] = "                ";
    // The space before the line end and the indentation are the released code's.
    return buf_printf(out,
                      "Below is an instruction that describes a task. Write a response that "
                      "appropriately completes the request. \n\n%s### Instruction:\n%s%s\n\n"
                      "%s### Response:\n%s",
                      indent, indent, instruction, indent, indent);
}

static bool prompt_text(struct buf *out, const char *instruction, const struct question_options *o,
                        struct error *err)
{
    if (!o->chat) return question_prompt(out, instruction) || fail(err, "out of memory");
    const struct message turn = {.role = "user", .content = instruction};
    struct segments s = {0};
    bool ok = o->chat->render(&s, &turn, 1, &o->special, true, err);
    for (int64_t i = 0; ok && i < s.count; i++) {
        ok = buf_puts(out, s.segment[i].text) || fail(err, "out of memory");
    }
    segments_free(&s);
    return ok;
}

static bool prompt_ids(struct tokens *out, const char *instruction, const char *prompt,
                       const struct question_options *o, struct error *err)
{
    const struct tokenizer *t = o->tokenizer;
    if (o->chat) {
        const struct message turn = {.role = "user", .content = instruction};
        return chat_encode(o->chat, &turn, 1, &o->special, t, out, err);
    }
    if (o->special.add_bos && !tokens_add(out, tokenizer_id(t, o->special.bos))) {
        return fail(err, "out of memory");
    }
    return tokenizer_encode(t, prompt, strlen(prompt), false, out, err);
}

// The text under a key that the task needs.
static bool need_text(const char **out, const json_t *o, const char *key, const char *where,
                      struct error *err)
{
    if (!json_get_text(o, key, true, out, where, err)) return false;
    const char *text = *out;
    size_t size = strlen(text);
    text_strip(&text, &size);
    return size || fail(err, "%s: %s: found nothing, expected text", where, key);
}

// `answer` as text. A number in JSON is as good as one in quotes.
static bool need_answer(char **out, const json_t *o, const char *where, struct error *err)
{
    const json_t *v = json_object_get(o, "answer");
    const char *text;
    if (json_is_number(v)) {
        char *number = json_text(v, JSON_ENCODE_ANY);
        *out = number ? mem_strdup(number) : NULL;
        mem_free(number);
    } else {
        if (!need_text(&text, o, "answer", where, err)) return false;
        *out = mem_strdup(text);
    }
    return *out || fail(err, "%s: out of memory", where);
}

static const char *kind_names(unsigned kinds)
{
    return kinds >> ANSWER_NUMBER & 1U
               ? "a number, or a letter from A to E"
               : "true or false, a letter from A to E, or solution, answer, ending or option "
                 "with its number";
}

static bool fill(struct questions *q, struct question *x, const json_t *object,
                 const struct question_options *o, const char *where, struct error *err)
{
    const char *instruction;
    struct buf prompt = {0};
    const bool question =
        !json_object_get(object, "instruction") && json_object_get(object, "question");
    if (!need_text(&instruction, object, question ? "question" : "instruction", where, err) ||
        !need_answer((char **)&x->reference, object, where, err)) {
        return false;
    }
    if (!answer_kind_find(&x->kind, o->kinds, x->reference)) {
        return fail(err, "%s: answer: found '%.64s', expected %s", where, x->reference,
                    kind_names(o->kinds));
    }
    const int64_t first = q->ids.count;
    const bool ok = prompt_text(&prompt, instruction, o, err);
    x->prompt = prompt.data;
    if (!ok) return fail_in(err, "%s", where);
    if (!o->tokenizer) return true;
    if (!prompt_ids(&q->ids, instruction, x->prompt, o, err)) return fail_in(err, "%s", where);
    x->n_id = q->ids.count - first;
    if (!o->max_length || x->n_id <= o->max_length) return true;
    q->ids.count = first;
    return fail(err, "%s: a prompt of %" PRId64 " tokens, expected at most %" PRId64, where,
                x->n_id, o->max_length);
}

static void free_texts(struct question *x)
{
    mem_free((char *)x->prompt);
    mem_free((char *)x->reference);
}

static bool add(struct questions *q, const json_t *object, const struct question_options *o,
                struct question x, const char *where, struct error *err)
{
    struct question *grown = array_grow(q->question, q->count, &q->capacity, sizeof *grown);
    if (!grown) return fail(err, "%s: out of memory", where);
    q->question = grown;
    if (!json_is_object(object)) return fail(err, "%s: expected an object", where);
    if (fill(q, &x, object, o, where, err)) {
        q->question[q->count++] = x;
        return true;
    }
    free_texts(&x);
    return false;
}

static bool add_line(struct questions *q, const char *text, size_t size,
                     const struct question_options *o, struct question x, struct error *err)
{
    char where[4200];
    snprintf(where, sizeof where, "%.4096s:%" PRId64, x.file, x.line);
    if (size > EXAMPLE_LIMIT) {
        return fail(err, "%s: more than %d bytes, the limit", where, EXAMPLE_LIMIT);
    }
    json_t *object = json_parse(text, size, where, err);
    const bool ok = object && add(q, object, o, x, where, err);
    json_decref(object);
    return ok;
}

static bool add_file(struct questions *q, const char *file, const struct question_options *o,
                     struct error *err)
{
    struct dataset_source s;
    struct question x = {.file = file};
    const char *text;
    size_t size;
    if (!dataset_source_open(&s, file, err)) return false;
    err->msg[0] = 0;
    bool ok = true;
    while (ok && (!o->limit || q->count < o->limit) &&
           dataset_source_next(&s, &text, &size, &x.line, err)) {
        ok = add_line(q, text, size, o, x, err);
        if (ok || !o->skip_bad) continue;
        if (!q->bad++) log_warning("%s (left out, as all that are bad from here on)", err->msg);
        ok = true;
    }
    dataset_source_close(&s);
    return ok && !err->msg[0];
}

bool questions_open(struct questions *q, const struct question_options *o, struct error *err)
{
    struct error ignored;
    if (!err) err = &ignored;
    *q = (struct questions){.owns_texts = true};
    bool ok = true;
    for (int64_t i = 0; ok && i < o->n_files; i++) {
        ok = add_file(q, o->files[i], o, err);
    }
    if (ok && !q->count) {
        ok = fail(err, "%s: no examples, expected JSONL or a JSON array of objects", o->files[0]);
    }
    const int32_t *id = q->ids.id;
    for (int64_t i = 0; ok && o->tokenizer && i < q->count; i++) {
        q->question[i].id = id;
        id += q->question[i].n_id;
    }
    if (!ok) questions_close(q);
    return ok;
}

bool questions_of_dataset(struct questions *q, const struct dataset *d, struct error *err)
{
    *q = (struct questions){.count = d->count};
    q->question = mem_zalloc((size_t)d->count, sizeof *q->question);
    if (!q->question) return fail(err, "no memory for the questions");
    for (int64_t i = 0; i < d->count; i++) {
        const struct example *e = &d->example[i];
        if (!e->answer) {
            return fail(err,
                        "%s:%" PRId64 ": no answer to compare with; prompts with answers expected",
                        e->file, e->line);
        }
        q->question[i] = (struct question){.id = d->id + e->first,
                                           .n_id = e->prompt_count,
                                           .prompt = e->prompt,
                                           .reference = e->answer,
                                           .file = e->file,
                                           .line = e->line};
    }
    return true;
}

void questions_close(struct questions *q)
{
    for (int64_t i = 0; q->owns_texts && i < q->count; i++) {
        free_texts(&q->question[i]);
    }
    mem_free(q->question);
    tokens_free(&q->ids);
    *q = (struct questions){0};
}
