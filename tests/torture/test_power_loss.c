// tests/torture/test_power_loss.c - the power fails after each call of a run that changes the disk: all that was not
// synced is lost, or all of it is there, or any part of it (disk.h). In every state, a folder that has its name is
// whole (checkpoint-N, the result, what a stage leaves); the run that goes on finds the newest checkpoint that was
// saved before, or a newer one, skips none, and ends with the bytes of a run that nobody disturbed. The traces: a run
// from nothing, one that goes on from such a state, and a finished run asked to go on, which writes its result again.
#include "disk.h"

#include "base/append.h"
#include "io/json.h"

enum { STATES_SHORT = 7, SEEN = 1 << 17 };

static void check_text(const char *path, const char *want)
{
    char *text;
    size_t n;
    struct error err = {0};
    check_ok(file_read(&text, &n, path, 1 << 20, &err), &err);
    assert_string_equal(text, want);
    mem_free(text);
}

// The calls of a run, with copies of what they point to.
static struct trace {
    struct call *call;
    int64_t n, capacity;
} trace;

static int64_t cuts, states, distinct;

static void write_down(const struct call *c)
{
    struct call *grown = array_grow(trace.call, trace.n, &trace.capacity, sizeof *grown);
    assert_non_null(grown);
    trace.call = grown;
    struct call *own = &trace.call[trace.n++];
    *own = *c;
    if (c->path) own->path = mem_strdup(c->path);
    if (c->to) own->to = mem_strdup(c->to);
    if (!c->bytes) return;
    void *bytes = mem_alloc(c->n + 1);
    memcpy(bytes, c->bytes, c->n);
    own->bytes = bytes;
}

static void forget_trace(void)
{
    for (int64_t i = 0; i < trace.n; i++) {
        mem_free((void *)trace.call[i].path);
        mem_free((void *)trace.call[i].to);
        mem_free((void *)trace.call[i].bytes);
    }
    mem_free(trace.call);
    trace = (struct trace){0};
}

static void record(const char *options)
{
    forget_trace();
    calls.after = write_down;
    const int status = runs_train(options);
    calls.after = NULL;
    check_run(status);
}

// Of a path .../checkpoint-N; 0: another.
static int64_t checkpoint_of(const char *path)
{
    const char *name = strrchr(path, '/');
    char *end;
    if (!name || strncmp(name, "/checkpoint-", 12) != 0) return 0;
    const int64_t step = strtoll(name + 12, &end, 10);
    return *end ? 0 : step;
}

// The program goes on with something else only when a checkpoint is saved: what it renamed before is promised then.
struct promise {
    int64_t made, renamed;
};

static void follow(struct promise *p, const struct call *c)
{
    const bool waits =
        c->kind == CALL_SYNC || c->kind == CALL_CLOSE || (c->kind == CALL_OPEN && !c->made);
    if (waits) return;
    if (p->renamed > p->made) p->made = p->renamed;
    if (c->kind == CALL_RENAME && checkpoint_of(c->to)) p->renamed = checkpoint_of(c->to);
}

// The states that were tried, with the checkpoint that the run went on from.
static struct {
    uint64_t sum;
    int64_t resumed;
} seen[SEEN];

static int64_t *find_seen(uint64_t sum)
{
    for (uint64_t i = sum % SEEN;; i = (i + 1) % SEEN) {
        if (seen[i].sum == sum) return &seen[i].resumed;
        if (seen[i].sum) continue;
        seen[i].sum = sum;
        seen[i].resumed = -1;
        return &seen[i].resumed;
    }
}

static void check_whole(const char *reference)
{
    struct dir_names names;
    struct error err = {0};
    if (!file_exists(runs_out)) return;
    check_ok(dir_list(&names, runs_out, &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        char a[4096], b[4096];
        check_ok(path_join(a, sizeof a, reference, names.name[i], &err), &err);
        check_ok(path_join(b, sizeof b, runs_out, names.name[i], &err), &err);
        if (runs_is_folder(b) && !strstr(names.name[i], ".tmp")) check_same_tree(a, b);
    }
    dir_names_free(&names);
}

static json_t *read_object(const char *name)
{
    char path[4096];
    struct error err = {0};
    check_ok(path_join(path, sizeof path, runs_out, name, &err), &err);
    json_t *o = file_exists(path) ? json_parse_file(path, 1 << 24, &err) : NULL;
    check_ok(o || !file_exists(path), &err);
    return o;
}

// The options of a run that has saved are there to go on with, and one that says it is done has a result.
static void check_words(const struct run_kind *k, int64_t promised)
{
    char reference[128], result[128];
    json_t *run = read_object("run.json"), *end = read_object("result.json");
    assert_true(run || !promised);
    const char *outcome = json_string_value(json_object_get(end, "outcome"));
    const bool done = outcome && !strcmp(outcome, "done");
    snprintf(reference, sizeof reference, "%s/adapter", k->name);
    snprintf(result, sizeof result, "%s/%s", runs_out,
             file_exists(reference) ? "adapter" : "model");
    assert_true(!done || file_exists(result));
    json_decref(run);
    json_decref(end);
}

static void empty_disk(void)
{
    struct error err = {0};
    check_ok(dir_remove("disk", &err), &err);
    assert_int_equal(mkdirat(AT_FDCWD, "disk", 0777), 0);
}

static void check_state(const struct run_kind *k, const struct disk *d, struct disk_state *s,
                        int64_t promised)
{
    char all[64], resume[1024];
    snprintf(resume, sizeof resume, "%s --resume", k->options);
    empty_disk();
    disk_write_down(d, disk_node_of((struct disk *)d, "disk"), "disk", s);
    states++;
    int64_t *resumed = find_seen(s->sum);
    if (*resumed < 0) {
        distinct++;
        snprintf(all, sizeof all, "%s-all", k->name);
        check_whole(all);
        check_words(k, promised);
        check_run(runs_child(resume));
        if (runs_shared->warnings) fail_msg("%s", runs_shared->warning);
        check_same_tree(k->name, runs_out);
        *resumed = runs_shared->resumed;
    }
    if (*resumed < promised)
        fail_msg("went on from step %d, %d was saved", (int)*resumed, (int)promised);
}

static struct disk_state some(struct rng *r)
{
    static const double shares[] = {0.1, 0.5, 0.9};
    struct disk_state s = {.cut = DISK_SOME, .rng = {.seed = rng_next(r)}};
    s.share = shares[rng_below(r, 3)];
    s.sector = rng_below(r, 2) ? 512 : 4096;
    s.halves = rng_below(r, 4) == 0;
    s.noise = rng_below(r, 2) == 0;
    return s;
}

static void check_cut(const struct run_kind *k, const struct disk *d, int64_t promised,
                      struct rng *r)
{
    struct disk_state lost = {.cut = DISK_LOST}, kept = {.cut = DISK_KEPT};
    cuts++;
    check_state(k, d, &lost, promised);
    check_state(k, d, &kept, promised);
    for (int i = 0; i < (torture_full() ? 4 : 1); i++) {
        struct disk_state s = some(r);
        check_state(k, d, &s, promised);
    }
}

// Cuts after the calls of the trace, from the state that the disk is in; `promised` is on it.
static void check_cuts(const struct run_kind *k, struct disk *d, int64_t promised, int64_t seed,
                       const char *what)
{
    struct promise p = {.made = promised};
    struct rng r = {.seed = (uint64_t)seed};
    const int64_t stride = torture_full() ? 1 : trace.n / STATES_SHORT + 1,
                  first = rng_below(&r, stride);
    for (int64_t i = 0; i < trace.n; i++) {
        snprintf(runs_doing, sizeof runs_doing, "%s, %s, power lost after call %d of %d", k->name,
                 what, (int)i + 1, (int)trace.n);
        follow(&p, &trace.call[i]);
        disk_apply(d, &trace.call[i]);
        if (i % stride == first) check_cut(k, d, p.made, &r);
    }
}

static struct disk *disk_with_what_is_there(void)
{
    struct disk *d = disk_open();
    const int node = disk_new(d, true);
    disk_put(d->node[0].in, "disk", node);
    disk_load(d, node, "disk");
    disk_sync(&d->node[0]);
    return d;
}

// The trace of a run over what is on the disk now, cut everywhere.
static void check_trace(const struct run_kind *k, const char *options, const char *what)
{
    struct disk *d = disk_with_what_is_there();
    record(options);
    check_cuts(k, d, runs_shared->resumed, trace.n, what);
    disk_close(d);
}

// What a cut after this share of the trace leaves of a run that began on an empty disk.
static void cut_at(double share, struct disk_state s)
{
    empty_disk();
    struct disk *d = disk_with_what_is_there();
    for (int64_t i = 0; i < (int64_t)(share * (double)trace.n); i++) {
        disk_apply(d, &trace.call[i]);
    }
    disk_write_down(d, disk_node_of(d, "disk"), "disk", &s);
    disk_close(d);
}

static void check_kind(const struct run_kind *k)
{
    char all[1024], resume[1024], name[64];
    struct rng r = {.seed = 23};
    snprintf(name, sizeof name, "%s-all", k->name);
    snprintf(all, sizeof all, "%s --keep-last 100", k->options);
    snprintf(resume, sizeof resume, "%s --resume", k->options);
    empty_disk();
    runs_straight(name, all);
    runs_straight(k->name, k->options);
    empty_disk();
    check_trace(k, k->options, "from nothing");
    for (int i = 0; i < (torture_full() ? 3 : 1); i++) {
        empty_disk();
        record(k->options);
        cut_at(0.2 + 0.8 * rng_uniform(&r), some(&r));
        check_trace(k, resume, "gone on with");
    }
    empty_disk();
    check_run(runs_child(k->options));
    check_trace(k, resume, "finished");
    printf("%s: %d cuts, %d states, %d of them distinct\n", k->name, (int)cuts, (int)states,
           (int)distinct);
}

// What the parts that runs are made of promise by themselves: what they say is written is there when all else is lost.
static void what_was_synced_stays(void **unused)
{
    (void)unused;
    struct append a = {.fd = -1};
    struct error err = {0};
    struct disk_state lost = {.cut = DISK_LOST};
    runs_open();
    empty_disk();
    struct disk *d = disk_with_what_is_there();
    forget_trace();
    calls.after = write_down;
    check_ok(file_write("disk/file", "bytes", 5, &err), &err);
    check_ok(dir_make("disk/folder/inner", &err), &err);
    check_ok(dir_make("disk/folder/other", &err) &&
                 file_write("disk/folder/other/file", "new", 3, &err),
             &err);
    check_ok(dir_replace("disk/folder/inner", "disk/folder/other", &err), &err);
    check_ok(append_open(&a, "disk/lines", 0, &err) && append_write(&a, "a line\n", 7, &err) &&
                 append_sync(&a, &err) && append_write(&a, "another\n", 8, &err),
             &err);
    append_close(&a);
    calls.after = NULL;
    for (int64_t i = 0; i < trace.n; i++) {
        disk_apply(d, &trace.call[i]);
    }
    empty_disk();
    disk_write_down(d, disk_node_of(d, "disk"), "disk", &lost);
    disk_close(d);
    check_text("disk/file", "bytes");
    check_text("disk/folder/inner/file", "new");
    check_text("disk/lines", "a line\n");
}

static void power_lost_after_every_call(void **unused)
{
    (void)unused;
    runs_open();
    runs_out = "disk/new/run";
    for (int i = 0; i < RUN_KINDS; i++) {
        if (torture_wants(run_kinds[i].name)) check_kind(&run_kinds[i]);
    }
    forget_trace();
    *runs_doing = 0;
    printf("torture: %d power cuts, %d states of the disk (%d distinct) gone on with to the same "
           "bytes\n",
           (int)cuts, (int)states, (int)distinct);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_synced_stays),
        cmocka_unit_test_teardown(power_lost_after_every_call, runs_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
