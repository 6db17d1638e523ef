// lib/moetune.c - libmoetune, as include/moetune.h describes it: the same resolved options and the same jobs as the
// command line's, without its streams, signals and exit status.
#include "moetune.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/job.h"
#include "cli/setup.h"
#include "eval/score.h"
#include "io/json.h"
#include "lib/settings.h"

#include <locale.h>
#include <math.h>
#include <string.h>

struct moetune {
    struct settings settings;
    bool merged; // what is saved is a whole model
    bool going;  // the step callback wants to go on
    locale_t plain;
    bool (*step)(void *user, const struct moetune_step *step);
    void *step_user;
    void (*progress)(void *user, int64_t done, int64_t of);
    void *progress_user;
    char folder[4096];
    struct moetune_result result;
    struct moetune_loss loss;
};

// The caller's locale must not change how numbers are read and written; per thread, so nobody else notices.
static locale_t enter(const struct moetune *m)
{
    json_begin();
    return uselocale(m->plain);
}

static bool leave(locale_t before, bool ok, struct moetune_error *out, const struct error *err)
{
    uselocale(before);
    if (!ok && out) snprintf(out->message, sizeof out->message, "%s", err->msg);
    return ok;
}

const char *moetune_version(void)
{
    return MOETUNE_VERSION;
}

static void (*log_callback)(void *user, enum moetune_level level, const char *line);
static void *log_user;

static void log_line(enum log_level level, const char *line, void *user)
{
    (void)user;
    log_callback(log_user, level == LOG_WARNING ? MOETUNE_WARNING : MOETUNE_INFO, line);
}

void moetune_on_log(void (*log)(void *user, enum moetune_level level, const char *line), void *user)
{
    log_callback = log;
    log_user = user;
    log_set_sink(log ? log_line : NULL, NULL);
}

void moetune_on_step(struct moetune *m, bool (*step)(void *user, const struct moetune_step *step),
                     void *user)
{
    m->step = step;
    m->step_user = user;
}

void moetune_on_progress(struct moetune *m, void (*progress)(void *user, int64_t done, int64_t of),
                         void *user)
{
    m->progress = progress;
    m->progress_user = user;
}

// The model as it stands, computing only, with the options of `o`; max_tokens at a time.
static bool open_model(struct model *model, struct options *o, int64_t max_tokens,
                       struct error *err)
{
    struct model_setup setup;
    if (setup_check(o, err) != STATUS_DONE || !setup_model(&setup, o, false, err)) return false;
    setup.max_tokens = max_tokens;
    return model_open(model, &setup, err);
}

static bool check_model(const struct moetune *m, struct error *err)
{
    struct options o;
    struct model model = {0};
    options_defaults(&o, COMMAND_MERGE);
    const bool ok = settings_apply(&m->settings, &o, NULL, err) && open_model(&model, &o, 1, err);
    model_close(&model);
    options_close(&o);
    return ok;
}

struct moetune *moetune_open(const char *folder, struct moetune_error *err)
{
    struct error why = {"no memory for a model"};
    struct moetune *m = mem_zalloc(1, sizeof *m);
    bool ok = m && (m->plain = newlocale(LC_ALL_MASK, "C", NULL));
    if (ok) {
        const locale_t before = enter(m);
        ok = settings_put(&m->settings, "model", folder, false, &why) && check_model(m, &why);
        leave(before, ok, err, &why);
    } else {
        leave(uselocale(NULL), false, err, &why);
    }
    if (ok) return m;
    moetune_close(m);
    return NULL;
}

void moetune_close(struct moetune *m)
{
    if (!m) return;
    settings_free(&m->settings);
    if (m->plain) freelocale(m->plain);
    mem_free(m);
}

static bool put(struct moetune *m, const char *name, const char *value, bool more,
                struct error *err)
{
    if (!strcmp(name, "model")) return fail(err, "--model is set by moetune_open");
    if (!strcmp(name, "config")) return fail(err, "--config: expected moetune_read");
    const bool known = option_find(COMMAND_TRAIN, name) != NULL;
    if (!value && known) {
        settings_clear(&m->settings, name);
    } else if (!settings_put(&m->settings, name, value ? value : "", more, err)) {
        return false;
    }
    if (!strcmp(name, "adapter")) m->merged = false;
    return true;
}

bool moetune_set(struct moetune *m, const char *name, const char *value, struct moetune_error *err)
{
    struct error why = {""};
    const locale_t before = enter(m);
    return leave(before, put(m, name, value, false, &why), err, &why);
}

bool moetune_add(struct moetune *m, const char *name, const char *value, struct moetune_error *err)
{
    struct error why = {""};
    const locale_t before = enter(m);
    return leave(before, put(m, name, value, true, &why), err, &why);
}

bool moetune_read(struct moetune *m, const char *file, struct moetune_error *err)
{
    struct error why = {""};
    const locale_t before = enter(m);
    return leave(before, settings_read(&m->settings, file, "model", &why), err, &why);
}

static void stepped(void *user, const struct train_step *s)
{
    struct moetune *m = user;
    const struct moetune_step step = {
        .step = s->step,
        .steps = s->steps,
        .tokens = s->tokens,
        .skipped = s->skipped,
        .loss = s->loss,
        .eval_loss = s->eval_loss,
        .lr = s->lr,
        .grad_norm = s->grad_norm,
        .tokens_per_second = s->tokens_per_second,
        .seconds = s->seconds,
    };
    if (m->step && !m->step(m->step_user, &step)) m->going = false;
}

static bool must_stop(void *user)
{
    return !((const struct moetune *)user)->going;
}

static void counted(void *user, int64_t done, int64_t of)
{
    const struct moetune *m = user;
    if (m->progress) m->progress(m->progress_user, done, of);
}

static bool scored(void *user, int64_t done, int64_t of)
{
    counted(user, done, of);
    return true;
}

// What was learnt takes the place of what was there.
static bool become_result(struct moetune *m, const struct train_result *r, bool adapter,
                          struct error *err)
{
    snprintf(m->folder, sizeof m->folder, "%s", r->exported);
    m->result = (struct moetune_result){
        .stopped = r->outcome == TRAIN_STOPPED,
        .early = r->early,
        .step = r->step,
        .steps = r->steps,
        .skipped = r->skipped,
        .loss = r->loss,
        .eval_loss = r->eval_loss,
        .best_loss = r->best_loss,
        .best_step = r->best_step,
        .folder = m->folder,
    };
    if (m->result.stopped) return true;
    settings_clear_group(&m->settings, GROUP_ROUTING);
    if (!adapter) settings_clear(&m->settings, "adapter");
    return settings_put(&m->settings, adapter ? "adapter" : "model", m->folder, false, err);
}

static bool train(struct moetune *m, struct options *o, struct error *err)
{
    struct job j;
    struct train_result r;
    const struct train_listener listener = {.user = m, .step = stepped, .evaluating = counted};
    const struct run_config *c = &o->config;
    if (m->merged) return fail(err, "the model is merged: save it, and open what was saved");
    if (!settings_apply(&m->settings, o, NULL, err) || !options_complete(o, err)) return false;
    if (setup_check(o, err) != STATUS_DONE) return false;
    if (c->resume && c->overwrite) {
        return fail(err, "--resume and --overwrite exclude each other");
    }
    if (!run_folder_check(c->out, c->resume, c->overwrite, err)) return false;
    if (!job_open(&j, o, c->out, &listener, err)) return false;
    m->going = true;
    j.run.stop = must_stop;
    j.run.stop_user = m;
    bool ok = trainer_run(j.trainer, &r, err);
    const bool adapter = trainer_makes_adapter(j.trainer);
    job_close(&j);
    return ok && become_result(m, &r, adapter, err);
}

const struct moetune_result *moetune_train(struct moetune *m, struct moetune_error *err)
{
    struct error why = {""};
    struct options o;
    const locale_t before = enter(m);
    options_defaults(&o, COMMAND_TRAIN);
    const bool ok = train(m, &o, &why);
    options_close(&o);
    return leave(before, ok, err, &why) ? &m->result : NULL;
}

static bool score_with(struct moetune *m, struct model *model, struct options *o,
                       const struct dataset *d, struct error *err)
{
    struct loss_score s;
    const struct score_listener listener = {m, scored};
    const int64_t most = o->config.train.batch_tokens;
    if (!open_model(model, o, d->n_tokens < most ? d->n_tokens : most, err)) return false;
    if (!model_allocate(model, err) || !score_loss(&s, model, d, &listener, err)) return false;
    mem_free(s.usage);
    m->loss = (struct moetune_loss){
        .loss = s.loss, .learnt = s.supervised, .tokens = s.tokens, .examples = s.examples};
    return true;
}

static bool score(struct moetune *m, const char *file, struct options *o, struct error *err)
{
    struct text_setup text;
    struct dataset data = {0};
    struct model model = {0};
    if (!settings_apply(&m->settings, o, "data", err) || !options_set(o, "data", file, err)) {
        return false;
    }
    if (!options_complete(o, err) || !text_open(&text, o, err)) return false;
    const bool ok = data_open(&data, o, &text, &o->config.data, false, err) &&
                    score_with(m, &model, o, &data, err);
    model_close(&model);
    dataset_close(&data);
    text_close(&text);
    return ok;
}

const struct moetune_loss *moetune_score(struct moetune *m, const char *file,
                                         struct moetune_error *err)
{
    struct error why = {""};
    struct options o;
    const locale_t before = enter(m);
    options_defaults(&o, COMMAND_EVAL);
    const bool ok = score(m, file, &o, &why);
    options_close(&o);
    return leave(before, ok, err, &why) ? &m->loss : NULL;
}

bool moetune_merge(struct moetune *m, struct moetune_error *err)
{
    struct error why = {""};
    const locale_t before = enter(m);
    const bool ok = settings_get(&m->settings, "adapter") || fail(&why, "there is no adapter");
    m->merged = m->merged || ok;
    return leave(before, ok, err, &why);
}

static bool is_free(const char *folder, struct error *err)
{
    struct dir_names names = {0};
    if (!file_exists(folder)) return true;
    if (!dir_list(&names, folder, err)) return false;
    const bool ok = !names.count;
    dir_names_free(&names);
    return ok || fail(err, "%s: found files in it, expected a new or an empty folder", folder);
}

// Made beside and renamed, so that nobody finds half of it.
static bool write_folder(const struct model *model, bool adapter, const char *folder,
                         struct error *err)
{
    char temporary[4096];
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') {
        n--;
    }
    if (n + sizeof ".tmp" > sizeof temporary) return fail(err, "%s: path too long", folder);
    snprintf(temporary, sizeof temporary, "%.*s.tmp", (int)n, folder);
    if (!is_free(temporary, err)) return false;
    const bool ok = (adapter ? model_save_adapter : model_export)(model, temporary, err) &&
                    dir_commit(folder, temporary, err);
    if (!ok) dir_remove(temporary, NULL);
    return ok;
}

static bool save(const struct moetune *m, const char *folder, struct options *o, struct error *err)
{
    struct model model = {0};
    const bool adapter = settings_get(&m->settings, "adapter") && !m->merged;
    const bool ok = is_free(folder, err) && settings_apply(&m->settings, o, "out", err) &&
                    open_model(&model, o, 1, err) && model_allocate(&model, err) &&
                    write_folder(&model, adapter, folder, err);
    model_close(&model);
    return ok;
}

bool moetune_save(struct moetune *m, const char *folder, struct moetune_error *err)
{
    struct error why = {""};
    struct options o;
    const locale_t before = enter(m);
    options_defaults(&o, COMMAND_MERGE);
    const bool ok = save(m, folder, &o, &why);
    options_close(&o);
    return leave(before, ok, err, &why);
}
