// eval/loglik_data.c - see loglik.h: the three forms of data, and how context and choice become ids: the ids of both
// together, of which the context has as many as it has alone. White space at the context's end goes with the choice.
#include "eval/loglik.h"

#include "base/log.h"
#include "base/mem.h"
#include "eval/extract.h"
#include "io/dataset_source.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

struct reader {
    struct loglik_data *d;
    const struct loglik_options *o;
    const char *where;
    struct error *err;
};

static bool no_memory(const struct reader *r)
{
    return fail(r->err, "%s: out of memory", r->where);
}

static bool is_blank(const char *text)
{
    size_t size = strlen(text);
    text_strip(&text, &size);
    return size == 0;
}

static bool need_text(const struct reader *r, const char **out, const json_t *o, const char *key)
{
    if (!json_get_text(o, key, true, out, r->where, r->err)) return false;
    return !is_blank(*out) || fail(r->err, "%s: %s: found nothing, expected text", r->where, key);
}

static void item_free(struct loglik_item *x)
{
    for (int64_t i = 0; i < x->n_choices; i++) {
        mem_free(x->choice[i].text);
    }
    mem_free(x->choice);
    mem_free(x->context);
}

// The choices as they stand in the array.
static bool read_choices(const struct reader *r, struct loglik_item *x, const json_t *list,
                         const char *key)
{
    const size_t n = json_array_size(list); // 0 where it is no array
    if (n < 2) {
        return fail(r->err, "%s: %s: found %zu, expected an array of at least 2 texts", r->where,
                    key, n);
    }
    x->choice = mem_zalloc(n, sizeof *x->choice);
    if (!x->choice) return no_memory(r);
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || is_blank(text)) {
            return fail(r->err, "%s: %s[%zu]: found %s, expected text", r->where, key, i,
                        text ? "nothing" : "no text");
        }
        x->choice[x->n_choices].text = mem_strdup(text);
        if (!x->choice[x->n_choices++].text) return no_memory(r);
    }
    return true;
}

// An index, as a number or in quotes.
static bool read_gold(const struct reader *r, struct loglik_item *x, const json_t *o,
                      const char *key)
{
    const json_t *v = json_object_get(o, key);
    const char *text = json_string_value(v);
    int64_t gold = json_is_integer(v) ? json_integer_value(v) : -1;
    if (text && *text >= '0' && *text <= '9' && !text[1]) gold = *text - '0';
    if (gold < 0 || gold >= x->n_choices) {
        return fail(r->err, "%s: %s: found %s, expected the right choice's index, 0 to %" PRId64,
                    r->where, key, v ? text ? text : "another value" : "nothing", x->n_choices - 1);
    }
    x->gold = gold;
    return true;
}

static bool read_plain(const struct reader *r, struct loglik_item *x, const json_t *o)
{
    const char *context;
    if (!need_text(r, &context, o, "context")) return false;
    x->context = mem_strdup(context);
    if (!x->context) return no_memory(r);
    return read_choices(r, x, json_object_get(o, "choices"), "choices") &&
           read_gold(r, x, o, "gold");
}

// "Question: ...\nAnswer:", and the choice whose label is answerKey.
static bool read_arc(const struct reader *r, struct loglik_item *x, const json_t *o)
{
    const char *question, *key;
    struct buf context = {0};
    const json_t *choices = json_object_get(o, "choices"),
                 *label = json_object_get(choices, "label");
    if (!need_text(r, &question, o, "question") || !need_text(r, &key, o, "answerKey"))
        return false;
    const bool ok = buf_printf(&context, "Question: %s\nAnswer:", question);
    x->context = context.data;
    if (!ok) return no_memory(r);
    if (!read_choices(r, x, json_object_get(choices, "text"), "choices.text")) return false;
    for (x->gold = 0; x->gold < x->n_choices; x->gold++) {
        const char *name = json_string_value(json_array_get(label, (size_t)x->gold));
        if (name && !strcmp(name, key)) return true;
    }
    return fail(r->err, "%s: answerKey: found '%.32s', expected one of choices.label", r->where,
                key);
}

// Appends text without what WikiHow left in it: " [title]" is a full stop, other brackets are dropped, two spaces
// become one.
static bool put_clean(struct buf *out, const char *text)
{
    static const char title[] = " [title]";
    struct buf a = {0}, b = {0};
    size_t size = strlen(text);
    text_strip(&text, &size);
    bool ok = buf_puts(&a, "") && buf_puts(&b, "");
    for (size_t i = 0; ok && i < size;) {
        const bool here =
            size - i >= sizeof title - 1 && !memcmp(text + i, title, sizeof title - 1);
        ok = here ? buf_puts(&a, ". ") : buf_append(&a, text + i, 1);
        i += here ? sizeof title - 1 : 1;
    }
    for (size_t i = 0; ok && i < a.size; i++) {
        const char *end = a.data[i] == '[' ? strchr(a.data + i, ']') : NULL;
        const char *line = end ? strchr(a.data + i, '\n') : NULL;
        if (end && (!line || line > end)) { // a bracket is closed on its line
            i = (size_t)(end - a.data);
        } else {
            ok = buf_append(&b, a.data + i, 1);
        }
    }
    for (size_t i = 0; ok && i < b.size; i++) {
        ok = buf_append(out, b.data + i, 1);
        if (b.data[i] == ' ' && i + 1 < b.size && b.data[i + 1] == ' ') i++;
    }
    buf_free(&a);
    buf_free(&b);
    return ok;
}

// str.capitalize(): the first character in title case, the others in lower case.
static bool put_capitalized(struct buf *out, const char *text)
{
    size_t size = strlen(text);
    utf8proc_uint8_t bytes[4];
    utf8proc_int32_t c;
    bool ok = true;
    for (size_t i = 0; ok && i < size;) {
        const utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(size - i), &c);
        if (n <= 0) return buf_append(out, text + i, size - i);
        const utf8proc_int32_t turned = i ? utf8proc_tolower(c) : utf8proc_totitle(c);
        ok = buf_append(out, bytes, (size_t)utf8proc_encode_char(turned, bytes));
        i += (size_t)n;
    }
    return ok;
}

static bool clean_hellaswag(const struct reader *r, struct loglik_item *x, const char *activity,
                            const char *a, const char *b)
{
    struct buf raw = {0}, context = {0};
    bool ok = buf_printf(&raw, "%s: %s ", activity, a) && put_capitalized(&raw, b) &&
              put_clean(&context, raw.data);
    x->context = context.data;
    buf_free(&raw);
    for (int64_t i = 0; ok && i < x->n_choices; i++) {
        struct buf text = {0};
        ok = buf_puts(&text, "") && put_clean(&text, x->choice[i].text);
        mem_free(x->choice[i].text);
        x->choice[i].text = text.data;
        if (ok && is_blank(text.data)) {
            return fail(r->err, "%s: endings[%" PRId64 "]: found nothing, expected text", r->where,
                        i);
        }
    }
    return ok || no_memory(r);
}

static bool read_hellaswag(const struct reader *r, struct loglik_item *x, const json_t *o)
{
    const char *activity, *a, *b;
    return need_text(r, &activity, o, "activity_label") && need_text(r, &a, o, "ctx_a") &&
           json_get_text(o, "ctx_b", true, &b, r->where, r->err) &&
           read_choices(r, x, json_object_get(o, "endings"), "endings") &&
           read_gold(r, x, o, "label") && clean_hellaswag(r, x, activity, a, b);
}

static bool encode(const struct reader *r, const char *text, size_t size)
{
    const struct loglik_options *o = r->o;
    if (o->bos >= 0 && !tokens_add(&r->d->ids, o->bos)) return no_memory(r);
    return tokenizer_encode(o->tokenizer, text, size, false, &r->d->ids, r->err) ||
           fail_in(r->err, "%s", r->where);
}

// `longest` positions at most: the left of a longer context is cut off.
static bool fit(const struct reader *r, struct loglik_choice *c, int64_t index)
{
    const int64_t cut = c->n - (r->o->max_positions + 1), new = c->n - c->context;
    if (c->context < 1 || new < 1) {
        return fail(r->err, "%s: choice %" PRId64 " adds no token to its context", r->where, index);
    }
    if (new > r->o->max_positions) {
        return fail(r->err,
                    "%s: choice %" PRId64 " has %" PRId64 " tokens, the model %" PRId64
                    " positions",
                    r->where, index, new, r->o->max_positions);
    }
    if (cut > 0) {
        c->first += cut;
        c->context -= cut;
        c->n -= cut;
    }
    if (c->n - 1 > r->d->longest) r->d->longest = c->n - 1;
    return true;
}

static int64_t count_characters(const char *text)
{
    int64_t n = 0;
    for (; *text; text++) {
        n += ((unsigned char)*text & 0xC0U) != 0x80U;
    }
    return n;
}

static bool encode_item(const struct reader *r, struct loglik_item *x)
{
    struct tokens *ids = &r->d->ids;
    struct buf whole = {0};
    const size_t context = text_rstrip(x->context, strlen(x->context));
    const int64_t before = ids->count;
    if (!encode(r, x->context, context)) return false;
    const int64_t n = ids->count - before;
    ids->count = before;
    bool ok = true;
    for (int64_t i = 0; ok && i < x->n_choices; i++) {
        struct loglik_choice *c = &x->choice[i];
        whole.size = 0;
        ok = buf_printf(&whole, "%s %s", x->context, c->text) || no_memory(r);
        c->first = ids->count;
        ok = ok && encode(r, whole.data, whole.size);
        c->context = n;
        c->n = ids->count - c->first;
        c->characters = count_characters(c->text);
        c->bytes = (int64_t)strlen(c->text);
        ok = ok && fit(r, c, i);
    }
    buf_free(&whole);
    return ok;
}

static bool read_item(const struct reader *r, struct loglik_item *x, const json_t *o)
{
    if (!json_is_object(o)) return fail(r->err, "%s: expected an object", r->where);
    if (json_object_get(o, "context")) return read_plain(r, x, o);
    if (json_object_get(o, "answerKey")) return read_arc(r, x, o);
    if (json_object_get(o, "endings")) return read_hellaswag(r, x, o);
    return fail(r->err,
                "%s: expected context, choices and gold, or the fields of ARC (question, choices, "
                "answerKey) or HellaSwag (activity_label, ctx_a, ctx_b, endings, label)",
                r->where);
}

static bool add(const struct reader *r, struct loglik_item x, const char *text, size_t size)
{
    struct loglik_data *d = r->d;
    struct loglik_item *grown = array_grow(d->item, d->count, &d->capacity, sizeof *grown);
    if (!grown) return no_memory(r);
    d->item = grown;
    if (size > EXAMPLE_LIMIT) {
        return fail(r->err, "%s: more than %d bytes, the limit", r->where, EXAMPLE_LIMIT);
    }
    json_t *object = json_parse(text, size, r->where, r->err);
    const int64_t before = d->ids.count;
    const bool ok = object && read_item(r, &x, object) && encode_item(r, &x);
    json_decref(object);
    if (ok) {
        d->item[d->count++] = x;
    } else {
        d->ids.count = before;
        item_free(&x);
    }
    return ok;
}

static bool add_file(struct loglik_data *d, const char *file, const struct loglik_options *o,
                     struct error *err)
{
    struct dataset_source s;
    struct loglik_item x = {.file = file};
    const char *text;
    size_t size;
    char where[4200];
    const struct reader r = {d, o, where, err};
    if (!dataset_source_open(&s, file, err)) return false;
    err->msg[0] = 0;
    bool ok = true;
    while (ok && (!o->limit || d->count < o->limit) &&
           dataset_source_next(&s, &text, &size, &x.line, err)) {
        snprintf(where, sizeof where, "%.4096s:%" PRId64, file, x.line);
        ok = add(&r, x, text, size);
        if (ok || !o->skip_bad) continue;
        if (!d->bad++) log_warning("%s (left out, as all that are bad from here on)", err->msg);
        ok = true;
    }
    dataset_source_close(&s);
    return ok && !err->msg[0];
}

bool loglik_open(struct loglik_data *d, const struct loglik_options *o, struct error *err)
{
    struct error ignored;
    if (!err) err = &ignored;
    *d = (struct loglik_data){0};
    bool ok = true;
    for (int64_t i = 0; ok && i < o->n_files; i++) {
        ok = add_file(d, o->files[i], o, err);
    }
    if (ok && !d->count) {
        ok = fail(err, "%s: no examples, expected JSONL or a JSON array of objects", o->files[0]);
    }
    if (!ok) loglik_close(d);
    return ok;
}

void loglik_close(struct loglik_data *d)
{
    for (int64_t i = 0; i < d->count; i++) {
        item_free(&d->item[i]);
    }
    mem_free(d->item);
    tokens_free(&d->ids);
    *d = (struct loglik_data){0};
}
