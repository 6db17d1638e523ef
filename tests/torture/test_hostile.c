// tests/torture/test_hostile.c - hand-made broken files, given to the program itself: each is refused with status 1
// or 2, in one line that names the file and the fault, within a second and 300 MB. What it must say stands beside
// each in the tables (hostile_*.h), so that a wrong message fails. And a model's folder of links, as the cache of
// Hugging Face has it, works.
#include "form.h"
#include "hostile_state.h"

// ---- what all cases begin with

static const char tokenizer_text[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<eos>\",\"special\":true,"
    "\"normalized\":false,"
    "\"lstrip\":false,\"rstrip\":false,\"single_word\":false}],\"normalizer\":null,\"pre_"
    "tokenizer\":{\"type\":\"Split\","
    "\"pattern\":{\"Regex\":\"\\\\s\"},\"behavior\":\"Isolated\",\"invert\":false},\"decoder\":"
    "null,\"model\":{\"type\":\"BPE\","
    "\"vocab\":{\"<eos>\":0,\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\" "
    "\":6,\"ab\":7,\"\\n\":8},\"merges\":[\"a b\"]}}";
static const char three_examples[] =
    "{\"text\": \"abc de\"}\n{\"prompt\": \"ab\", \"completion\": \"cde abc\"}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
    "\"content\": \"bc\"}]}\n";
static const char one_chat[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                               "{\"role\": \"assistant\", \"content\": \"bc\"}]}\n";

static void must_run(const char *command)
{
    const struct outcome o = run_program(command, false);
    if (o.status != 0) fail_msg("%s: status %d: %s", command, o.status, o.said);
}

// Two shards of the tensors of m.
static void make_sharded(void)
{
    struct error err = {0};
    struct safetensors st = {.path = "m/model.safetensors"};
    struct buf index = {0};
    struct st_named *all[2];
    int64_t n[2] = {0, 0};
    check_ok(dir_make("q", &err) && file_copy("q/config.json", "m/config.json", &err) &&
                 file_copy("q/tokenizer.json", "m/tokenizer.json", &err) &&
                 file_copy("q/tokenizer_config.json", "m/tokenizer_config.json", &err) &&
                 safetensors_open(&st, st.path, &err),
             &err);
    all[0] = mem_zalloc((size_t)st.count, sizeof *all[0]),
    all[1] = mem_zalloc((size_t)st.count, sizeof *all[0]);
    assert_true(buf_puts(&index, "{\"metadata\": {}, \"weight_map\": {"));
    for (int64_t i = 0; i < st.count; i++) {
        const int k = i >= st.count / 2;
        all[k][n[k]++] = (struct st_named){st.entry[i].name, st.entry[i].tensor};
        assert_true(buf_printf(&index, "%s\"%s\": \"%s.safetensors\"", i ? ", " : "",
                               st.entry[i].name, k ? "two" : "one"));
    }
    assert_true(buf_puts(&index, "}}"));
    check_ok(safetensors_write("q/one.safetensors", all[0], n[0], NULL, &err) &&
                 safetensors_write("q/two.safetensors", all[1], n[1], NULL, &err),
             &err);
    put(index_of_q, index.data);
    mem_free(all[0]);
    mem_free(all[1]);
    buf_free(&index);
    safetensors_close(&st);
}

static void rename_to(const char *to, const char *from)
{
    if (rename(from, to) != 0) fail_msg("%s: %s", from, strerror(errno));
}

static int make_good(void **unused)
{
    (void)unused;
    struct error err = {0};
    const char *dir = test_dir();
    if (chmod(dir, 0755) != 0 || chdir(dir) != 0) return -1;
    toy_model("m", NULL, 0);
    put("m/tokenizer.json", tokenizer_text);
    put("m/tokenizer_config.json", "{\"chat_template\":\"{% for m in messages %}{{ m.content }}{% "
                                   "endfor %}\",\"eos_token\":\"<eos>\"}");
    put("d.jsonl", three_examples);
    put("chat.jsonl", one_chat);
    put("text", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab abc\n");
    put("batch.json", "{\"input_ids\":[[1,2]],\"labels\":[[1,2]]}");
    put("esft.json", "{\"experts\":{\"0\":[1],\"1\":[2]}}");
    put("forced.json", "{\"forced_experts_records\":{\"model.layers.0.mlp\":{\"forced_expert_"
                       "indices\":[0, 1],\"num_forced_experts\": 2,\"total_experts\": 6},"
                       "\"model.layers.1.mlp\":{\"forced_expert_indices\":[2, 3]}}}");
    put("run.yaml", "model: m\ndata: [d.jsonl]\nout: o\nmax_steps: 1\n");
    put("r.yaml",
        "model: m\ndata: [d.jsonl]\nout: r\nmax_steps: 4\nsave_every: 2\nrouting: bias\n");
    make_sharded();
    must_run("train --model m --data d.jsonl --out x --tuning lora --lora-rank 4 --lora-alpha 8 "
             "--max-steps 1 --quiet");
    rename_to("a", "x/adapter");
    must_run("train --config r.yaml --quiet");
    check_ok(dir_remove("r/checkpoint-2", &err) &&
                 file_copy("bias.json", "r/checkpoint-4/moe_bias_states.json", &err),
             &err);
    must_run("train --model m --data d.jsonl --out y --tuning smt --smt-block 4 --smt-warmup-steps "
             "1 --smt-blocks 3 --max-steps 1 --quiet");
    rename_to("smt.json", "y/smt_selection.json");
    must_run(inspect), must_run(sharded), must_run(scored), must_run(tokenized), must_run(chat),
        must_run(adapted), must_run(biased);
    return dir_remove("x", &err) && dir_remove("y", &err) && dir_remove("merged", &err) ? 0 : -1;
}

// ---- one case

static double most_cpu, most_wall, most_megabytes;
static int refused;

static void remember(const struct outcome *o)
{
    most_cpu = o->cpu > most_cpu ? o->cpu : most_cpu;
    most_wall = o->wall > most_wall ? o->wall : most_wall;
    most_megabytes = o->megabytes > most_megabytes ? o->megabytes : most_megabytes;
    refused++;
}

// What is wrong with how it was refused; NULL: nothing.
static const char *verdict(const struct attack *a, const struct outcome *o)
{
    const char *line = error_line(o->said, a->command);
    if (o->signal) return o->signal == SIGALRM ? "hangs" : "ended by a signal";
    if (o->status == 0) return "not refused";
    if (o->status != 1 && o->status != 2) return "another status than 1 or 2";
    if (!line) return "not one line of error";
    if (!strstr(line, a->file)) return "does not name the file";
    if (!a->words || !strstr(line, a->words)) return "does not name the fault";
    if (o->cpu * 1000 > MOST_MILLISECONDS) return "takes too long";
    if (o->megabytes > MOST_MEGABYTES) return "takes too much memory";
    return NULL;
}

static bool try_one(const struct attack *a)
{
    struct error err = {0};
    struct stat st;
    const bool there = lstat(a->target, &st) == 0;
    if (there) rename_to(kept, a->target);
    a->make(a->target, a->arg);
    const struct outcome o = run_program(a->command, a->make == locked);
    const char *wrong = verdict(a, &o);
    remember(&o);
    fflush(stdout);
    if (wrong || getenv("VERBOSE"))
        printf("%s: %s (%s): status %d, signal %d, %.2f s, %.0f MB, '%s' expected of %s: %s\n",
               wrong ? "FAILED" : "ok", a->name, wrong ? wrong : "", o.status, o.signal, o.cpu,
               o.megabytes, a->words, a->file, o.said);
    check_ok(dir_remove(a->target, &err) && (!there || rename(kept, a->target) == 0) &&
                 dir_remove("o", &err) && dir_remove("merged", &err) && dir_remove("dump", &err),
             &err);
    return !wrong;
}

static bool is_due(const struct attack *a)
{
    return torture_full() || (a->make != bomb && a->make != header_bomb);
}

static void try_all(const struct attack *a, size_t n)
{
    int failed = 0;
    for (size_t i = 0; i < n; i++) {
        failed += is_due(&a[i]) && !try_one(&a[i]);
    }
    if (failed) fail_msg("%d of %zu", failed, n);
}

#define TABLE(name)                                                                                \
    static void name##_are_refused(void **unused)                                                  \
    {                                                                                              \
        (void)unused;                                                                              \
        try_all(on_##name, sizeof on_##name / sizeof *on_##name);                                  \
    }
TABLE(safetensors)
TABLE(shards)
TABLE(config)
TABLE(tokenizer)
TABLE(template)
TABLE(examples)
TABLE(options)
TABLE(adapters)
TABLE(states)
TABLE(checkpoints)

// ---- what looks odd and is right

static const struct odd {
    const char *name;
    void (*make)(const char *target, const char *arg);
    const char *target, *arg, *command, *same,
        *said; // same: what it prints is that command's; said: in a warning
} odd[] = {
    {"tensors that are not aligned", edit_header, "m/model.safetensors", "{\"=>{ \"", scored,
     scored, NULL},
    {"a tensor of rank 0 and one of no elements", tensors, "m/model.safetensors",
     "{" ONE("a", "F32", "[]", "[0,4]") "," ONE("b", "F32", "[3,0]", "[4,4]") "}|4", inspect, NULL,
     NULL},
    {"types that the engine does not compute with", tensors, "m/model.safetensors",
     "{" ONE("a", "F8_E4M3", "[4]", "[0,4]") "}|4", inspect, NULL, NULL},
    {"a byte order mark and DOS line ends", put, "d.jsonl",
     "\xef\xbb\xbf{\"text\": \"ab\"}\r\n{\"text\": \"c\"}\r\n", scored, NULL, NULL},
    {"NaN in a weight: seen when it is used, not before", poison, "m/model.safetensors",
     "lm_head.weight=7fc00000", inspect, inspect, NULL},
    {"NaN in a weight: the loss is warned of", poison, "m/model.safetensors",
     "lm_head.weight=7fc00000", scored, NULL, "the loss is not a finite number"},
    {"a field that nobody knows", edit, "m/config.json",
     "\"vocab_size\"=>\"magic\": 1, \"vocab_size\"", inspect, inspect, "magic is not read"},
};

static void odd_files_work(void **unused)
{
    (void)unused;
    size_t n;
    struct error err = {0};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        const struct odd *a = &odd[i];
        if (a->same) must_run(a->same);
        char *before = text_of("stdout", &n);
        rename_to(kept, a->target);
        a->make(a->target, a->arg);
        const struct outcome o = run_program(a->command, false);
        char *after = text_of("stdout", &n);
        if (o.status != 0) fail_msg("%s: refused: %s", a->name, o.said);
        if (a->same) assert_string_equal(before, after);
        if (a->said && !strstr(o.said, a->said))
            fail_msg("%s: '%s' does not say '%s'", a->name, o.said, a->said);
        check_ok(dir_remove(a->target, &err), &err);
        rename_to(a->target, kept);
        mem_free(before);
        mem_free(after);
    }
}

// ---- a folder of links

static void check_regular(const char *dir)
{
    struct dir_names names;
    struct error err = {0};
    struct stat st;
    check_ok(dir_list(&names, dir, &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        const char *path = toy_path(dir, names.name[i]);
        assert_int_equal(lstat(path, &st), 0);
        if (!S_ISREG(st.st_mode)) fail_msg("%s is no file of its own", path);
    }
    assert_true(names.count >= 4);
    dir_names_free(&names);
}

// hub/snapshots/REVISION/NAME -> ../../blobs/HASH, as the cache of Hugging Face has it.
static void a_folder_of_links_works(void **unused)
{
    (void)unused;
    struct dir_names names;
    struct error err = {0};
    char blob[256], to[512];
    static const char snapshot[] = "hub/snapshots/0123456789abcdef";
    check_ok(dir_make("hub/blobs", &err) && dir_make(snapshot, &err) && dir_list(&names, "m", &err),
             &err);
    for (int64_t i = 0; i < names.count; i++) {
        snprintf(blob, sizeof blob, "hub/blobs/%08x",
                 (unsigned)crc32c(0, names.name[i], strlen(names.name[i])));
        snprintf(to, sizeof to, "../../%s", blob + 4);
        check_ok(file_copy(blob, toy_path("m", names.name[i]), &err), &err);
        link_to(toy_path(snapshot, names.name[i]), to);
    }
    must_run("inspect --model hub/snapshots/0123456789abcdef");
    must_run("train --model hub/snapshots/0123456789abcdef --data d.jsonl --out o --max-steps 2 "
             "--quiet");
    must_run("merge --model hub/snapshots/0123456789abcdef --adapter a --out merged --quiet");
    check_regular("o/model");
    check_regular("merged");
    check_same_file("m/config.json", "o/model/config.json");
    check_same_file("m/tokenizer.json", "merged/tokenizer.json");
    must_run("inspect --model merged");
    for (int64_t i = 0; i < names.count; i++) { // the cache is as it was
        struct stat st;
        assert_int_equal(lstat(toy_path(snapshot, names.name[i]), &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        check_same_file(toy_path("m", names.name[i]), toy_path(snapshot, names.name[i]));
    }
    dir_names_free(&names);
    check_ok(dir_remove("o", &err) && dir_remove("merged", &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_are_refused), cmocka_unit_test(shards_are_refused),
        cmocka_unit_test(config_are_refused),      cmocka_unit_test(tokenizer_are_refused),
        cmocka_unit_test(template_are_refused),    cmocka_unit_test(examples_are_refused),
        cmocka_unit_test(options_are_refused),     cmocka_unit_test(adapters_are_refused),
        cmocka_unit_test(odd_files_work),          cmocka_unit_test(a_folder_of_links_works),
        cmocka_unit_test(states_are_refused),      cmocka_unit_test(checkpoints_are_refused),
    };
    const int failed = cmocka_run_group_tests(tests, make_good, NULL);
    printf("torture: %d broken files refused, each named, in %.2f s of CPU time and %.0f MB at "
           "most (%.2f s on the clock)\n",
           refused, most_cpu, most_megabytes, most_wall);
    return failed;
}
