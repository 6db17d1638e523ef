// io/template.c - the named chat templates. Each writes a conversation as segments through a pen; the
// strings are those of the public definitions named above each. Knows no tokenizer.
#include "io/template.h"

#include "io/model_template.h"

#include <assert.h>
#include <string.h>

void segments_clear(struct segments *s)
{
    for (int64_t i = 0; i < s->count; i++) {
        mem_free(s->segment[i].text);
    }
    s->count = 0;
}

void segments_free(struct segments *s)
{
    segments_clear(s);
    mem_free(s->segment);
    *s = (struct segments){0};
}

int64_t segments_last_answer(const struct segments *s)
{
    int64_t i = s->count;
    while (i > 0 && !s->segment[i - 1].answer) {
        i--;
    }
    if (!i) return s->count;
    const int64_t message = s->segment[i - 1].message;
    while (i > 0 && s->segment[i - 1].answer && s->segment[i - 1].message == message) {
        i--;
    }
    return i;
}

// Writes one conversation. A failure is remembered until the template is through, so that templates
// read as text.
struct pen {
    struct segments *out;
    const struct special_tokens *tokens;
    int64_t message; // the one being written; -1: none yet
    bool masked;     // it is
    bool no_memory, no_eos;
};

static void put(struct pen *p, const char *text, bool special, bool answer)
{
    if (!*text || p->no_memory) return;
    struct segments *s = p->out;
    struct segment *grown = array_grow(s->segment, s->count, &s->capacity, sizeof *grown);
    if (grown) s->segment = grown;
    char *copy = grown ? mem_strdup(text) : NULL;
    if (!copy) {
        p->no_memory = true;
        return;
    }
    s->segment[s->count++] = (struct segment){.text = copy,
                                              .special = special,
                                              .answer = answer,
                                              .learn = answer && !p->masked,
                                              .message = p->message};
}

static void put_text(struct pen *p, const char *text)
{
    put(p, text, false, false);
}

static void put_mark(struct pen *p, const char *text)
{
    put(p, text, true, false);
}

// An assistant's words; `close` is the token that ends them.
static void put_answer(struct pen *p, const char *text, const char *close)
{
    put(p, text, false, true);
    put(p, close, true, true);
}

static void put_answer_eos(struct pen *p, const char *text)
{
    if (!*p->tokens->eos) p->no_eos = true;
    put_answer(p, text, p->tokens->eos);
}

// What a user says where the template has no place of its own for an instruction's input.
static void put_content(struct pen *p, const struct message *m)
{
    put_text(p, m->content);
    if (m->input && *m->input) {
        put_text(p, "\n");
        put_text(p, m->input);
    }
}

static void pen_turn(struct pen *p, const struct message *m, int64_t i)
{
    p->message = i;
    p->masked = m[i].mask == 1;
}

static bool pen_done(const struct pen *p, const char *template, struct error *err)
{
    if (p->no_memory) return fail(err, "template %s: out of memory", template);
    if (p->no_eos) {
        return fail(err,
                    "template %s: an answer must end in eos and the model has none; expected "
                    "eos_token in tokenizer_config.json or eos_token_id in config.json",
                    template);
    }
    return true;
}

static bool is_role(const struct message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

// Our own: the turns one after another, a line end after each that is not an answer.
static bool plain_render(struct segments *out, const struct message *m, int64_t n,
                         const struct special_tokens *s, bool generate, struct error *err)
{
    (void)generate; // a prompt is ready as it is
    struct pen p = {.out = out, .tokens = s, .message = -1};
    if (s->add_bos) put_mark(&p, s->bos);
    for (int64_t i = 0; i < n; i++) {
        pen_turn(&p, m, i);
        if (is_role(&m[i], "assistant")) {
            put_answer_eos(&p, m[i].content);
            continue;
        }
        put_content(&p, &m[i]);
        if (!m[i].verbatim) put_text(&p, "\n");
    }
    return pen_done(&p, "plain", err);
}

// The two prompts of Stanford Alpaca (train.py, PROMPT_DICT). A system message takes the place of the
// preamble. Later turns, which Alpaca does not have, follow after an empty line.
static bool alpaca_render(struct segments *out, const struct message *m, int64_t n,
                          const struct special_tokens *s, bool generate, struct error *err)
{
    static const char with_input[] =
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n";
    static const char without[] =
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n";
    struct pen p = {.out = out, .tokens = s, .message = -1};
    if (s->add_bos) put_mark(&p, s->bos);
    for (int64_t i = 0; i < n; i++) {
        const bool input = m[i].input && *m[i].input;
        pen_turn(&p, m, i);
        if (i == 0 && !is_role(m, "system")) put_text(&p, input ? with_input : without);
        if (i > 0 && is_role(&m[i - 1], "assistant")) put_text(&p, "\n\n");
        if (is_role(&m[i], "assistant")) {
            put_text(&p, "### Response:");
            put_answer_eos(&p, m[i].content);
            continue;
        }
        if (is_role(&m[i], "user")) put_text(&p, "### Instruction:\n");
        put_text(&p, m[i].content);
        if (input) put_text(&p, "\n\n### Input:\n");
        if (input) put_text(&p, m[i].input);
        put_text(&p, "\n\n");
    }
    if (generate) put_text(&p, "### Response:");
    return pen_done(&p, "alpaca", err);
}

// ChatML as Qwen writes it, without a default system prompt. The line end after <|im_end|> is the
// template's, not the answer's.
static bool chatml_render(struct segments *out, const struct message *m, int64_t n,
                          const struct special_tokens *s, bool generate, struct error *err)
{
    struct pen p = {.out = out, .tokens = s, .message = -1};
    for (int64_t i = 0; i < n; i++) {
        pen_turn(&p, m, i);
        put_mark(&p, "<|im_start|>");
        put_text(&p, m[i].role);
        put_text(&p, "\n");
        if (is_role(&m[i], "assistant")) {
            put_answer(&p, m[i].content, "<|im_end|>");
        } else {
            put_content(&p, &m[i]);
            put_mark(&p, "<|im_end|>");
        }
        put_text(&p, "\n");
    }
    if (generate) {
        put_mark(&p, "<|im_start|>");
        put_text(&p, "assistant\n");
    }
    return pen_done(&p, "chatml", err);
}

static void tulu_header(struct pen *p, const char *role)
{
    const bool user = strcmp(role, "user") == 0, system = strcmp(role, "system") == 0;
    put_mark(p, user ? "<|user|>" : system ? "<|system|>" : "<|assistant|>");
    put_text(p, "\n");
}

// Tulu (Wang et al. 2023) as OLMoE-1B-7B-Instruct's tokenizer_config.json has it.
static bool tulu_render(struct segments *out, const struct message *m, int64_t n,
                        const struct special_tokens *s, bool generate, struct error *err)
{
    struct pen p = {.out = out, .tokens = s, .message = -1};
    put_mark(&p, s->bos);
    for (int64_t i = 0; i < n; i++) {
        pen_turn(&p, m, i);
        tulu_header(&p, m[i].role);
        if (is_role(&m[i], "assistant")) {
            put_answer_eos(&p, m[i].content);
            if (i + 1 < n) put_text(&p, "\n");
            continue;
        }
        put_content(&p, &m[i]);
        put_text(&p, "\n");
    }
    if (generate) tulu_header(&p, "assistant");
    return pen_done(&p, "tulu", err);
}

// DeepSeek-LLM, -V2 and -V2-Lite: words for marks. The space before an answer is the answer's, so that
// a prompt ends in "Assistant:", as a prompt for generation does.
static void deepseek_words(struct pen *p, const struct message *m, int64_t n, bool generate)
{
    put_mark(p, p->tokens->bos);
    for (int64_t i = 0; i < n; i++) {
        pen_turn(p, m, i);
        if (is_role(&m[i], "assistant")) {
            put_text(p, "Assistant:");
            put(p, " ", false, true);
            put_answer_eos(p, m[i].content);
            continue;
        }
        if (is_role(&m[i], "user")) put_text(p, "User: ");
        put_content(p, &m[i]);
        put_text(p, "\n\n");
    }
    if (generate) put_text(p, "Assistant:");
}

// DeepSeek since V2.5: tokens for marks, all system messages in front.
static void deepseek_tokens(struct pen *p, const struct message *m, int64_t n, bool generate)
{
    bool any = false;
    put_mark(p, p->tokens->bos);
    for (int64_t i = 0; i < n; i++) {
        pen_turn(p, m, i);
        if (!is_role(&m[i], "system")) continue;
        if (any) put_text(p, "\n\n");
        put_text(p, m[i].content);
        any = true;
    }
    for (int64_t i = 0; i < n; i++) {
        pen_turn(p, m, i);
        if (is_role(&m[i], "user")) {
            put_mark(p, "<｜User｜>");
            put_content(p, &m[i]);
        } else if (is_role(&m[i], "assistant")) {
            put_mark(p, "<｜Assistant｜>");
            put_answer_eos(p, m[i].content);
        }
    }
    if (generate) put_mark(p, "<｜Assistant｜>");
}

static bool deepseek_render(struct segments *out, const struct message *m, int64_t n,
                            const struct special_tokens *s, bool generate, struct error *err)
{
    struct pen p = {.out = out, .tokens = s, .message = -1};
    if (s->deepseek_marks) {
        deepseek_tokens(&p, m, n, generate);
    } else {
        deepseek_words(&p, m, n, generate);
    }
    return pen_done(&p, "deepseek", err);
}

// Nothing between the turns.
static bool raw_render(struct segments *out, const struct message *m, int64_t n,
                       const struct special_tokens *s, bool generate, struct error *err)
{
    (void)generate;
    struct pen p = {.out = out, .tokens = s, .message = -1};
    if (s->add_bos) put_mark(&p, s->bos);
    for (int64_t i = 0; i < n; i++) {
        pen_turn(&p, m, i);
        if (is_role(&m[i], "assistant")) {
            put_answer_eos(&p, m[i].content);
        } else {
            put_content(&p, &m[i]);
        }
    }
    return pen_done(&p, "raw", err);
}

static bool own_render(struct segments *out, const struct message *m, int64_t n,
                       const struct special_tokens *s, bool generate, struct error *err)
{
    if (s->own) return model_template_render(s->own, out, m, n, generate, err);
    return fail(err, "template model: the model's folder has no chat_template in "
                     "tokenizer_config.json and no chat_template.jinja");
}

static const struct chat_template plain = {
    "plain",
    "the texts alone, a line end after a prompt (none after `prompt`), eos after an answer", false,
    plain_render};
static const struct chat_template alpaca = {"alpaca", "Stanford Alpaca's two prompts", false,
                                            alpaca_render};
static const struct chat_template chatml = {"chatml", "<|im_start|>role ... <|im_end|>, as Qwen",
                                            false, chatml_render};
static const struct chat_template tulu = {
    "tulu", "<|user|> ... <|assistant|> ..., as OLMoE-Instruct", false, tulu_render};
static const struct chat_template deepseek = {
    "deepseek", "User: ... Assistant: ..., or <｜User｜> where the tokenizer has it", false,
    deepseek_render};
static const struct chat_template raw = {
    "raw", "the texts alone, nothing between them; generate: the prompt as it is", false,
    raw_render};
static const struct chat_template own = {
    "model", "the model's own: chat_template in tokenizer_config.json, or chat_template.jinja",
    true, own_render};

const struct chat_template *const chat_templates[] = {&plain,    &alpaca, &chatml, &tulu,
                                                      &deepseek, &raw,    &own,    NULL};

const struct chat_template *chat_template_find(const char *name, struct error *err)
{
    struct buf names = {0};
    for (int64_t i = 0; chat_templates[i]; i++) {
        if (strcmp(chat_templates[i]->name, name) == 0) {
            buf_free(&names);
            return chat_templates[i];
        }
        buf_printf(&names, "%s%s", i ? ", " : "", chat_templates[i]->name);
    }
    fail(err, "template: found '%.64s', expected one of %s", name, names.data ? names.data : "");
    buf_free(&names);
    return NULL;
}
