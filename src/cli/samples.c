// cli/samples.c - see samples.h.
#include "cli/samples.h"

#include "base/file.h"

enum { ANSWER_TOKENS = 128, CHUNK = 512 };

static bool set_text(json_t *o, const char *key, const int32_t *id, int64_t n,
                     const struct tokenizer *t, struct error *err)
{
    struct buf text = {0};
    bool ok = generate_decode(&text, id, n, t, err);
    if (ok) {
        json_t *v = json_stringn(text.data ? text.data : "", text.size);
        ok = v && json_object_set_new(o, key, v) == 0;
        if (!ok) fail(err, "a sample: no memory, or no UTF-8");
    }
    buf_free(&text);
    return ok;
}

static json_t *sample_json(const struct sequence *s, const struct dataset *d,
                           const struct example *e, const struct tokenizer *t, struct error *err)
{
    json_t *o = json_object();
    const int64_t rest = e->count - s->n_prompt;
    if (set_text(o, "prompt", s->prompt, s->n_prompt, t, err) &&
        set_text(o, "answer", s->out.id, s->out.count, t, err) &&
        set_text(o, "reference", d->id + e->first + s->n_prompt, rest, t, err)) {
        return o;
    }
    json_decref(o);
    return NULL;
}

struct samples {
    const struct job *job;
    const struct dataset *data;
    struct sequence *sequence; // (n)
    const struct example **example;
    int64_t n, longest;
};

// The first examples that have a prompt and an answer.
static bool choose(struct samples *s, int64_t most, struct error *err)
{
    s->sequence = mem_zalloc((size_t)most, sizeof *s->sequence);
    s->example = mem_zalloc((size_t)most, sizeof *s->example);
    if (!s->sequence || !s->example) return fail(err, "no memory for samples");
    for (int64_t i = 0; i < s->data->count && s->n < most; i++) {
        const struct example *e = &s->data->example[i];
        const int64_t prompt = e->prompt_count;
        if (prompt < 1 || prompt >= e->count) continue;
        s->example[s->n] = e;
        s->sequence[s->n++] =
            (struct sequence){.prompt = s->data->id + e->first, .n_prompt = prompt};
        if (prompt > s->longest) s->longest = prompt;
    }
    return s->n > 0 || fail(err, "no example with a prompt and an answer");
}

static bool write_samples(const struct samples *s, const char *out, struct error *err)
{
    char path[4096];
    json_t *all = json_object(), *list = json_array();
    bool ok = true;
    for (int64_t i = 0; ok && i < s->n; i++) {
        json_t *o =
            sample_json(&s->sequence[i], s->data, s->example[i], s->job->text.tokenizer, err);
        ok = o && (json_array_append_new(list, o) == 0 || fail(err, "a sample: no memory"));
    }
    json_object_set_new(
        all, "from",
        json_string(s->data == &s->job->validation ? "the validation data" : "the training data"));
    json_object_set_new(all, "samples", list);
    ok = ok && path_join(path, sizeof path, out, "samples.json", err) &&
         json_write_file(path, all, err);
    json_decref(all);
    return ok;
}

static bool answer(struct samples *s, struct options *o, struct error *err)
{
    struct model m = {0};
    struct model_setup setup;
    struct tokens stop;
    if (!stop_ids_open(&stop, &s->job->text, err)) return false;
    const struct generate_options g = {
        .max_new_tokens = ANSWER_TOKENS, .sampling = {.top_p = 1}, .stop = &stop};
    bool ok = setup_model(&setup, o, false, err);
    if (ok) {
        setup.max_tokens = s->longest + s->n > CHUNK ? CHUNK : s->longest + s->n;
        setup.cache_rows = generate_cache_rows(s->sequence, s->n, &g);
        ok = model_open(&m, &setup, err) && model_allocate(&m, err) &&
             generate(&m, s->sequence, s->n, &g, err);
        model_close(&m);
    }
    tokens_free(&stop);
    return ok;
}

bool samples_write(const struct job *j, const struct options *o, const char *exported,
                   struct error *err)
{
    struct options fresh = {
        .command = COMMAND_GENERATE}; // what the folder says, not what the run was told
    struct samples s = {.job = j, .data = j->validation.count ? &j->validation : &j->data};
    if (!j->text.tokenizer) return fail(err, "samples: the model has no tokenizer.json");
    options_defaults(&fresh, COMMAND_GENERATE);
    const bool adapter = j->run.stage[j->run.n_stages - 1].setup.tuning->format && !j->run.merge;
    fresh.config.model = adapter ? o->config.model : exported;
    fresh.config.adapter = adapter ? exported : NULL;
    fresh.config.dtype = o->config.dtype;
    fresh.config.products = o->config.products;
    fresh.config.threads = o->config.threads;
    const bool ok = choose(&s, o->config.report_samples, err) && answer(&s, &fresh, err) &&
                    write_samples(&s, j->run.out, err);
    for (int64_t i = 0; i < s.n; i++) {
        tokens_free(&s.sequence[i].out);
    }
    mem_free(s.sequence);
    mem_free(s.example);
    options_close(&fresh);
    return ok;
}
