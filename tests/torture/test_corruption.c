// tests/torture/test_corruption.c - checkpoints of a run that were damaged on the disk in random ways: each damage is
// found and named (the file, and the tensor where it lies in one); a resume says what it skips, goes on from the
// newest good one and ends with the bytes of an undisturbed run. The seed is fixed: a trial comes again by its number.
#include "damage.h"
#include "form.h"

#include "base/log.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHECKPOINTS = 4, EVERY = 2, STEPS = CHECKPOINTS * EVERY, SEED = 20 };

// A run of a bias and then condensers with gates of their own, moments in 8-bit codes: every file that a checkpoint can
// have but a scoring's.
static int found, resumed; // trials that held

static struct setting {
    struct toy toy;
    struct stage stage[2];
    char straight[1024]; // the undisturbed run
    struct folder good[CHECKPOINTS];
    struct trainer *trainer; // open, to load into
} all;

static void read_folder(struct folder *f, const char *out, int64_t step)
{
    struct dir_names names;
    struct error err = {0};
    f->step = step;
    snprintf(f->path, sizeof f->path, "%s/checkpoint-%d", out, (int)step);
    check_ok(dir_list(&names, f->path, &err), &err);
    assert_true(names.count <= FILES_AT_MOST);
    for (int64_t i = 0; i < names.count; i++) {
        struct content *c = &f->file[f->n++];
        snprintf(c->name, sizeof c->name, "%s", names.name[i]);
        check_ok(file_read(&c->bytes, &c->size, toy_path(f->path, c->name), 1 << 30, &err), &err);
    }
    dir_names_free(&names);
}

static void open_run(void)
{
    struct error err = {0};
    struct toy *t = &all.toy;
    toy_open(t);
    struct model_setup *s = &t->stage.setup;
    s->routing = routing_find("condenser", &err);
    s->routing_options = (struct routing_options){.aux_coef = -1,
                                                  .z_coef = -1,
                                                  .bias_rate = 0.01,
                                                  .phase2_rate = 0.003,
                                                  .condenser_count = "2",
                                                  .condenser_gate = CONDENSER_SIGMOID};
    s->storage.states = STATES_8BIT;
    t->stage.options.max_steps = EVERY + 1;
    all.stage[0] = all.stage[1] = t->stage;
    all.stage[1].options.max_steps = STEPS - EVERY - 1;
    all.stage[1].phase = 1;
    t->run.stage = all.stage;
    t->run.n_stages = 2;
    t->run.save_every = EVERY;
    t->run.keep_last = CHECKPOINTS;
}

static int make_checkpoints(void **unused)
{
    (void)unused;
    struct error err = {0};
    open_run();
    check_ok(toy_run(&all.toy, &err), &err);
    snprintf(all.straight, sizeof all.straight, "%s", all.toy.out);
    for (int i = 0; i < CHECKPOINTS; i++) {
        read_folder(&all.good[i], all.straight, (i + 1) * EVERY);
    }
    all.trainer = trainer_open(&all.toy.run, &err);
    check_ok(all.trainer && trainer_enter_stage(all.trainer, 0, &err), &err);
    return 0;
}

static int forget_checkpoints(void **unused)
{
    (void)unused;
    for (int i = 0; i < CHECKPOINTS; i++) {
        for (int k = 0; k < all.good[i].n; k++) {
            mem_free(all.good[i].file[k].bytes);
        }
    }
    trainer_close(all.trainer);
    toy_close(&all.toy);
    return 0;
}

// ---- what must be said

// Of bytes that changed in place, the tensors that they lie in: one of them must be named, or the header.
static bool names_tensor(const struct change *c, const char *said)
{
    const size_t dot = strlen(c->now.name) - strlen(".safetensors");
    if (!c->was || !c->now.bytes || c->was->size != c->now.size || dot > 200 ||
        strcmp(c->now.name + dot, ".safetensors") != 0) {
        return true;
    }
    if (strstr(said, "the file: checksum")) return true; // a small one that is summed as a whole
    size_t first = 0, last = c->was->size - 1;
    while (c->was->bytes[first] == c->now.bytes[first]) {
        first++;
    }
    while (c->was->bytes[last] == c->now.bytes[last]) {
        last--;
    }
    struct safetensors st = {.path = c->now.name};
    struct error err = {0};
    check_ok(safetensors_parse(&st, c->was->bytes, c->was->size, &err), &err);
    bool named = first < st.header_size && strstr(said, "header");
    for (int64_t i = 0; i < st.count && !named; i++) {
        const struct st_entry *e = &st.entry[i];
        const bool touched = e->begin < e->end && first < st.header_size + e->end &&
                             last >= st.header_size + e->begin;
        named = touched && strstr(said, e->name);
    }
    safetensors_close(&st);
    return named;
}

static bool names_damage(const struct damage *d, const char *said)
{
    for (int i = 0; i < d->n; i++) {
        if (strstr(said, d->change[i].now.name)) return names_tensor(&d->change[i], said);
    }
    return false;
}

static bool verifies(const struct folder *f, struct error *err)
{
    struct manifest m;
    struct train_state state;
    const struct saved what = trainer_saved(all.trainer);
    if (!run_checkpoint_state(f->path, f->step, &m, &state, err)) return false;
    const bool ok = run_checkpoint_values(f->path, &m, &what, err) &&
                    run_checkpoint_rest(f->path, &m, &what, err);
    manifest_free(&m);
    train_state_free(&state);
    return ok;
}

static void damage_is_found_and_named(void **unused)
{
    (void)unused;
    const int trials = torture_full() ? 10000 : 600;
    struct rng r = {.seed = SEED};
    for (int i = 0; i < trials; i++) {
        struct damage d;
        struct error err = {0};
        const int which = (int)below(&r, CHECKPOINTS);
        const struct folder *f = &all.good[which];
        const char *kind = make_damage(&d, all.good, CHECKPOINTS, which, &r);
        apply(&d, f->path);
        if (verifies(f, &err))
            fail_msg("trial %d: %s in %s/%s is not seen", i, kind, f->path, d.change[0].now.name);
        if (!names_damage(&d, err.msg))
            fail_msg("trial %d: %s: '%s' does not name %s", i, kind, err.msg, d.change[0].now.name);
        undo(&d, f->path);
        free_damage(&d);
    }
    struct error err = {0};
    for (int i = 0; i < CHECKPOINTS; i++) {
        check_ok(verifies(&all.good[i], &err), &err);
    }
    found = trials;
}

// ---- going on

struct heard {
    char lines[16384];
};

static void hear(enum log_level level, const char *line, void *user)
{
    struct heard *h = user;
    (void)level;
    const size_t n = strlen(h->lines);
    snprintf(h->lines + n, sizeof h->lines - n, "%s\n", line);
}

// The run as it was when all checkpoints but the last had been written.
static void copy_run(const char *out)
{
    struct error err = {0};
    check_ok(dir_make(out, &err), &err);
    for (int i = 0; i + 1 < CHECKPOINTS; i++) {
        char dir[4096];
        snprintf(dir, sizeof dir, "%s/checkpoint-%d", out, (int)all.good[i].step);
        check_ok(dir_make(dir, &err), &err);
        for (int k = 0; k < all.good[i].n; k++) {
            write_content(dir, &all.good[i].file[k]);
        }
    }
    struct content metrics = {.name = "metrics.jsonl"};
    check_ok(file_read(&metrics.bytes, &metrics.size, toy_path(all.straight, metrics.name), 1 << 20,
                       &err),
             &err);
    write_content(out, &metrics);
    mem_free(metrics.bytes);
}

static void check_heard(const struct heard *h, const struct damage *d, int newest, int bad)
{
    char text[2200];
    const char *line = h->lines;
    for (int i = 0; i < bad; i++) {
        snprintf(text, sizeof text, "checkpoint-%d", (int)all.good[newest - i].step);
        line = strstr(line, "checkpoint skipped: ");
        if (!line || !strstr(line, text)) fail_msg("no word of %s in: %s", text, h->lines);
        char one[2048];
        snprintf(one, sizeof one, "%.*s", (int)strcspn(line, "\n"), line);
        if (!names_damage(&d[i], one))
            fail_msg("'%s' does not name %s", one, d[i].change[0].now.name);
        line++;
    }
    snprintf(text, sizeof text, "checkpoint-%d\n", (int)all.good[newest - bad].step);
    line = strstr(h->lines, "resumed from ");
    if (!line || !strstr(line, text)) fail_msg("not resumed from %s: %s", text, h->lines);
}

static void resume_goes_on_from_the_newest_good_one(void **unused)
{
    (void)unused;
    const int trials = torture_full() ? 300 : 8, newest = CHECKPOINTS - 2;
    struct rng r = {.seed = SEED + 1};
    struct toy *t = &all.toy;
    struct error err = {0};
    t->run.resume = true;
    for (int i = 0; i < trials; i++) {
        struct damage d[2];
        struct heard heard = {""};
        const int bad = 1 + (int)below(&r, 2);
        other_out(t, "../resumed");
        copy_run(t->out);
        for (int k = 0; k < bad; k++) {
            const struct folder *f = &all.good[newest - k];
            make_damage(&d[k], all.good, CHECKPOINTS, newest - k, &r);
            apply(&d[k], toy_path(t->out, strrchr(f->path, '/') + 1));
        }
        log_set_sink(hear, &heard);
        check_ok(toy_run(t, &err), &err);
        log_set_sink(NULL, NULL);
        check_heard(&heard, d, newest, bad);
        check_same_folder(toy_path(all.straight, "model"), toy_path(t->out, "model"));
        check_same_folder(all.good[CHECKPOINTS - 1].path, toy_path(t->out, "checkpoint-8"));
        check_ok(dir_remove(t->out, &err), &err);
        for (int k = 0; k < bad; k++) {
            free_damage(&d[k]);
        }
    }
    resumed = trials;
}

// A folder under another's name is whole, and yet not what its name says.
static void folders_that_changed_places_are_skipped(void **unused)
{
    (void)unused;
    char two[4096], four[4096], away[4096];
    struct toy *t = &all.toy;
    struct error err = {0};
    struct heard heard = {""};
    other_out(t, "../swapped");
    copy_run(t->out);
    snprintf(two, sizeof two, "%s/checkpoint-2", t->out);
    snprintf(four, sizeof four, "%s/checkpoint-6", t->out);
    snprintf(away, sizeof away, "%s/away", t->out);
    assert_int_equal(rename(two, away) || rename(four, two) || rename(away, four), 0);
    t->run.resume = true;
    log_set_sink(hear, &heard);
    check_ok(toy_run(t, &err), &err);
    log_set_sink(NULL, NULL);
    if (!strstr(heard.lines, "checkpoint-6: holds step 2")) fail_msg("'%s'", heard.lines);
    if (!strstr(heard.lines, "checkpoint-4\n")) fail_msg("'%s'", heard.lines);
    check_same_folder(toy_path(all.straight, "model"), toy_path(t->out, "model"));
}

// The log of a run and the options beside it are no part of its checkpoints: whatever becomes of them, the state is
// the same.
static void a_damaged_log_changes_no_state(void **unused)
{
    (void)unused;
    static const char *const logs[] = {"", "x", "{\"step\":1}\n{\"step\":", "{\"step\":9}\n"};
    struct toy *t = &all.toy;
    struct error err = {0};
    t->run.resume = true;
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        const struct content log = {"metrics.jsonl", (char *)(uintptr_t)logs[i], strlen(logs[i])};
        const struct content run = {"run.json", (char *)(uintptr_t)logs[i], strlen(logs[i])};
        struct heard heard = {""};
        other_out(t, "../logged");
        copy_run(t->out);
        write_content(t->out, &log);
        write_content(t->out, &run);
        log_set_sink(hear, &heard);
        check_ok(toy_run(t, &err), &err);
        log_set_sink(NULL, NULL);
        if (!strstr(heard.lines, "metrics.jsonl: "))
            fail_msg("nothing said of metrics.jsonl: %s", heard.lines);
        check_same_folder(toy_path(all.straight, "model"), toy_path(t->out, "model"));
        check_same_folder(all.good[CHECKPOINTS - 1].path, toy_path(t->out, "checkpoint-8"));
        check_same_file(toy_path(all.straight, "run.json"), toy_path(t->out, "run.json"));
        check_ok(dir_remove(t->out, &err), &err);
    }
}

static void without_a_good_one_nothing_begins(void **unused)
{
    (void)unused;
    struct rng r = {.seed = SEED + 2};
    struct toy *t = &all.toy;
    struct error err = {0};
    struct damage d[CHECKPOINTS];
    other_out(t, "../none");
    copy_run(t->out);
    for (int i = 0; i + 1 < CHECKPOINTS; i++) {
        make_damage(&d[i], all.good, CHECKPOINTS, i, &r);
        apply(&d[i], toy_path(t->out, strrchr(all.good[i].path, '/') + 1));
    }
    t->run.resume = true;
    check_error(toy_run(t, &err), &err, "none of 3 checkpoints verifies");
    assert_true(names_damage(&d[0], err.msg)); // the oldest is the last that was tried
    for (int i = 0; i + 1 < CHECKPOINTS; i++) {
        free_damage(&d[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_found_and_named),
        cmocka_unit_test(folders_that_changed_places_are_skipped),
        cmocka_unit_test(a_damaged_log_changes_no_state),
        cmocka_unit_test(without_a_good_one_nothing_begins),
        cmocka_unit_test(resume_goes_on_from_the_newest_good_one),
    };
    const int failed = cmocka_run_group_tests(tests, make_checkpoints, forget_checkpoints);
    printf("torture: %d damages found and named; %d runs resumed from the newest good checkpoint, "
           "with the bytes of an "
           "undisturbed run\n",
           found, resumed);
    return failed;
}
