// cli/cmd_generate.c - a prompt goes in, text comes out, as it comes on a terminal.
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/setup.h"

#include <string.h>

struct speaker {
    struct output *io;
    const struct tokenizer *tokenizer;
    struct tokens ids; // so far
    size_t shown;      // bytes of their text that are on the terminal
};

// Shows what is certain: a token may end within a character, which the next one completes.
static void show(struct speaker *s, bool last)
{
    struct buf text = {0};
    if (generate_decode(&text, s->ids.id, s->ids.count, s->tokenizer, NULL)) {
        size_t end = text.size;
        while (!last && end > s->shown && text.size - end < 4 && (text.data[end - 1] & 0x80)) {
            end--; // a character under way, or U+FFFD in its place
        }
        if (end > s->shown) output_safe(s->io->result, text.data + s->shown, end - s->shown);
        if (end > s->shown) s->shown = end;
        fflush(s->io->result);
    }
    buf_free(&text);
}

static bool speak(void *user, int64_t sequence, int32_t id)
{
    struct speaker *s = user;
    (void)sequence;
    if (!tokens_add(&s->ids, id)) return false;
    if (!s->io->json) show(s, false);
    return !ferror(s->io->result);
}

static bool encode_prompt(struct tokens *out, const struct options *o, const struct text_setup *t,
                          struct error *err)
{
    const char *prompt = o->config.prompt;
    if (t->chat) {
        const struct message turn = {.role = "user", .content = prompt};
        return chat_encode(t->chat, &turn, 1, &t->special, t->tokenizer, out, err);
    }
    if (t->special.add_bos && !tokens_add(out, tokenizer_id(t->tokenizer, t->special.bos))) {
        return fail(err, "no memory");
    }
    return tokenizer_encode(t->tokenizer, prompt, strlen(prompt), true, out, err) ||
           fail_in(err, "--prompt");
}

static json_t *ids_json(const int32_t *id, int64_t n)
{
    json_t *array = json_array();
    for (int64_t i = 0; array && i < n; i++) {
        json_array_append_new(array, json_integer(id[i]));
    }
    return array;
}

static bool print_json(struct output *io, const struct sequence *s, const struct tokenizer *t,
                       struct error *err)
{
    struct buf text = {0};
    if (!generate_decode(&text, s->out.id, s->out.count, t, err)) return false;
    json_t *line = json_object();
    json_object_set_new(line, "prompt_ids", ids_json(s->prompt, s->n_prompt));
    json_object_set_new(line, "ids", ids_json(s->out.id, s->out.count));
    json_object_set_new(line, "text", json_stringn(text.data, text.size));
    json_object_set_new(line, "finish", json_string(s->stop >= 0 ? "stop" : "length"));
    if (s->stop >= 0) json_object_set_new(line, "stop_id", json_integer(s->stop));
    buf_free(&text);
    return output_json(io, line, err);
}

static bool run(struct model *m, struct sequence *s, const struct options *o,
                const struct text_setup *t, struct output *io, struct error *err)
{
    struct tokens stop;
    struct speaker speaker = {.io = io, .tokenizer = t->tokenizer};
    if (!stop_ids_open(&stop, t, err)) return false;
    const struct generate_options g = {
        .max_new_tokens = o->config.max_new_tokens,
        .sampling = {o->config.temperature, o->config.top_k, o->config.top_p,
                     (uint64_t)o->config.seed},
        .beams = o->config.beams,
        .stop = &stop,
        .token = speak,
        .user = &speaker,
    };
    bool ok = generate(m, s, 1, &g, err);
    if (ok && io->json) {
        ok = print_json(io, s, t->tokenizer, err);
    } else if (ok) {
        show(&speaker, true);
        fputc('\n', io->result);
    }
    tokens_free(&speaker.ids);
    tokens_free(&stop);
    return ok;
}

static bool open_and_run(struct options *o, const struct text_setup *t, struct output *io,
                         struct error *err)
{
    struct tokens prompt = {0};
    struct model m;
    struct model_setup setup;
    bool ok = setup_model(&setup, o, false, err) && encode_prompt(&prompt, o, t, err);
    if (ok) {
        struct sequence s = {.prompt = prompt.id, .n_prompt = prompt.count};
        if (o->config.max_new_tokens > t->config.max_positions) {
            o->config.max_new_tokens = t->config.max_positions;
        }
        const int64_t beams = o->config.beams;
        setup.max_tokens = prompt.count > 512 ? 512 : prompt.count + beams;
        setup.cache_rows = (prompt.count + o->config.max_new_tokens) * beams;
        ok = model_open(&m, &setup, err);
        ok = ok && model_allocate(&m, err) && run(&m, &s, o, t, io, err);
        model_close(&m);
        tokens_free(&s.out);
    }
    tokens_free(&prompt);
    return ok;
}

enum status command_generate(struct options *o, struct output *io, struct error *err)
{
    struct text_setup t;
    if (o->config.beams > 1 && o->config.temperature > 0) {
        fail(err, "--beams %d searches for the likeliest text, --temperature %g draws: one of them",
             (int)o->config.beams, o->config.temperature);
        return STATUS_USAGE;
    }
    if (!text_open(&t, o, err)) return STATUS_FAILED;
    bool ok = t.tokenizer || fail(err, "%s: no tokenizer.json", o->config.model);
    ok = ok && open_and_run(o, &t, io, err);
    text_close(&t);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
