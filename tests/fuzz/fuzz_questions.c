// tests/fuzz/fuzz_questions.c - data files of `eval`. The first byte of an input says which: 0 questions with answers, 1
// multiple choice by likelihood, 2 outputs that were stored earlier.
#include "eval/answers.h"
#include "eval/loglik.h"
#include "folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tokenizer *tokenizer; // every text has ids in it

static void close_tokenizer(void)
{
    tokenizer_close(tokenizer);
}

static void open_tokenizer(void)
{
    static const char json[] =
        "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"BPE\","
        "\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";
    struct error err;
    tokenizer = tokenizer_parse(json, sizeof json - 1, "json", &err);
    if (!tokenizer) abort();
    atexit(close_tokenizer);
}

static void ask(const char *path, unsigned kinds)
{
    struct error err = {0};
    struct questions q;
    const struct question_options o = {
        .files = &path, .n_files = 1, .kinds = kinds, .tokenizer = tokenizer, .max_length = 400};
    if (!questions_open(&q, &o, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return;
    }
    int64_t ids = 0;
    for (int64_t i = 0; i < q.count; i++) {
        assert(kinds >> q.question[i].kind & 1U);
        assert(q.question[i].n_id > 0 && q.question[i].id == q.ids.id + ids);
        ids += q.question[i].n_id;
    }
    assert(q.count > 0 && ids == q.ids.count);
    questions_close(&q);
}

static void choose(const char *path)
{
    enum { POSITIONS = 32 };
    struct error err = {0};
    struct loglik_data d;
    const struct loglik_options o = {
        .files = &path, .n_files = 1, .tokenizer = tokenizer, .bos = 0, .max_positions = POSITIONS};
    if (!loglik_open(&d, &o, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return;
    }
    for (int64_t i = 0; i < d.count; i++) {
        const struct loglik_item *x = &d.item[i];
        assert(x->gold >= 0 && x->gold < x->n_choices);
        for (int64_t k = 0; k < x->n_choices; k++) {
            const struct loglik_choice *c = &x->choice[k];
            assert(c->context > 0 && c->context < c->n && c->n <= POSITIONS + 1);
            assert(c->first + c->n <= d.ids.count);
        }
    }
    assert(d.count > 0 && d.longest <= POSITIONS);
    loglik_close(&d);
}

static void compare(const char *path)
{
    struct error err = {0};
    struct answers_score score;
    struct question two[] = {{.reference = "12", .kind = ANSWER_NUMBER},
                             {.reference = "true", .kind = ANSWER_TEXT}};
    const struct questions q = {.question = two, .count = 2};
    if (!answers_stored(&score, path, &q, &(struct answers_options){0}, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return;
    }
    assert(score.count == 2 && score.right + score.unparsed <= 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd;
    static char path[sizeof folder + 64];
    if (!*folder) {
        folder_make();
        fd = folder_file("data.jsonl", "", 0);
        snprintf(path, sizeof path, "%s/data.jsonl", folder);
        open_tokenizer();
    }
    if (!size) return 0;
    const int kind = folder_kind(*data, 3);
    folder_put(fd, data + 1, size - 1);
    if (kind == 0) {
        ask(path, 1U << ANSWER_NUMBER | 1U << ANSWER_LETTER);
    } else if (kind == 1) {
        choose(path);
    } else {
        compare(path);
    }
    return 0;
}
