// demo/generate.c - writes the text of a catalogue to standard output, as JSON lines (or raw). A line depends
// on kind, seed and line number only.
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    const char *name;
    const struct kind *kind; // NULL: mix, or a task
    const struct task *task;
    int64_t count;
    int64_t seed;
    bool held_out, raw;
};

static int wrong_usage(const char *what)
{
    fprintf(stderr, "generate: %s\n", what);
    fprintf(stderr, "usage: generate --kind KIND --count N --seed S [--held-out] [--raw]\n"
                    "       generate --list\n");
    for (int i = 0; i < catalogue.n_tasks; i++) {
        fprintf(stderr, "  %-10s %s\n", catalogue.task[i].name, catalogue.task[i].help);
    }
    fprintf(stderr, "  mix        documents of the kinds below, the i-th with weight 1/i\n");
    for (int i = 0; i < catalogue.n_kinds; i++) {
        fprintf(stderr, "  %-10s %s\n", catalogue.kind[i]->name, catalogue.kind[i]->help);
    }
    return 2;
}

static bool read_number(int64_t *out, const char *text)
{
    char *end = NULL;
    errno = 0;
    *out = text ? strtoll(text, &end, 10) : -1;
    return end && end != text && !*end && *out >= 0 && errno == 0;
}

// NULL, or what is wrong.
static const char *read_request(struct request *r, int argc, char **argv)
{
    r->count = r->seed = -1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--held-out") == 0) {
            r->held_out = true;
        } else if (strcmp(argv[i], "--raw") == 0) {
            r->raw = true;
        } else if (strcmp(argv[i], "--kind") == 0) {
            r->name = argv[++i];
        } else if (strcmp(argv[i], "--count") == 0) {
            if (!read_number(&r->count, argv[++i])) return "--count: a whole number expected";
        } else if (strcmp(argv[i], "--seed") == 0) {
            if (!read_number(&r->seed, argv[++i])) return "--seed: a whole number expected";
        } else {
            return "unknown option";
        }
    }
    if (!r->name || r->count < 0 || r->seed < 0) return "--kind, --count and --seed are needed";

    for (int i = 0; i < catalogue.n_tasks; i++) {
        if (strcmp(catalogue.task[i].name, r->name) == 0) r->task = &catalogue.task[i];
    }
    for (int i = 0; i < catalogue.n_kinds; i++) {
        if (strcmp(catalogue.kind[i]->name, r->name) == 0) r->kind = catalogue.kind[i];
    }
    if (!r->task && !r->kind && strcmp(r->name, "mix") != 0) return "no such kind";
    return NULL;
}

static void print_json(const char *name, const char *text)
{
    printf("\"%s\": \"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if (*text == '\n') {
            fputs("\\n", stdout);
        } else {
            putchar(*text);
        }
    }
    putchar('"');
}

// Kind i with weight 1 / (i + 1), in integers: 27720 is divisible by 1 to 12, and large enough beyond.
static const struct kind *random_kind(struct text *t)
{
    enum { COMMON = 27720 };
    int total = 0;
    for (int i = 0; i < catalogue.n_kinds; i++) {
        total += COMMON / (i + 1);
    }
    int rest = below(t, total), i = 0;
    while (rest >= COMMON / (i + 1)) {
        rest -= COMMON / (i + 1);
        i++;
    }
    return catalogue.kind[i];
}

static void print_document(const struct request *r, struct text *t)
{
    const struct kind *kind = r->kind ? r->kind : random_kind(t);
    write_document(t, kind, (size_t)between(t, 200, 500));
    if (r->raw) {
        printf("%s\n\n", t->buf.data);
        return;
    }
    putchar('{');
    print_json("text", t->buf.data);
    puts("}");
}

static void print_task(const struct request *r, struct text *t)
{
    struct text answer = {.rng = t->rng};
    r->task->write(t, &answer, r->held_out);
    putchar('{');
    print_json("question", t->buf.data);
    fputs(", ", stdout);
    print_json("answer", answer.buf.data);
    puts("}");
    buf_free(&answer.buf);
}

// The kinds, the most frequent first, and the share of documents that each has in `mix`.
static int print_list(void)
{
    double total = 0;
    for (int i = 0; i < catalogue.n_kinds; i++) {
        total += 1.0 / (i + 1);
    }
    for (int i = 0; i < catalogue.n_kinds; i++) {
        printf("%s %.4f\n", catalogue.kind[i]->name, 1.0 / (i + 1) / total);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) return print_list();
    struct request r = {0};
    const char *wrong = read_request(&r, argc, argv);
    if (wrong) return wrong_usage(wrong);

    // A stream for each line, so that a line does not depend on those before it.
    for (int64_t i = 0; i < r.count; i++) {
        struct text t = {.rng = {.seed = (uint64_t)r.seed, .stream = (uint64_t)i}};
        if (r.task) {
            print_task(&r, &t);
        } else {
            print_document(&r, &t);
        }
        buf_free(&t.buf);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "generate: standard output: %s\n", strerror(errno));
        return 1;
    }
    return 0;
}
