// tests/fuzz/fuzz_marks.c - the files of a model's folder that name its special tokens and hold its chat template. The
// first byte of an input says which: 0 tokenizer_config.json, 1 special_tokens_map.json, 2 config.json (ids), 3
// chat_template.jinja.
#include "folder.h"
#include "io/model_template.h"
#include "io/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                    "config.json"};
static struct tokenizer *tokenizer;

static void close_tokenizer(void)
{
    tokenizer_close(tokenizer);
}

static void open_tokenizer(void)
{
    static const char json[] =
        "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,\"normalized\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"single_word\":false}],"
        "\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"BPE\","
        "\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2},\"merges\":[]}}";
    struct error err = {0};
    tokenizer = tokenizer_parse(json, sizeof json - 1, "json", &err);
    if (!tokenizer) abort();
    atexit(close_tokenizer);
}

static void open_template(void)
{
    struct error err = {0};
    bool there = false;
    struct model_template *t = model_template_open(folder, tokenizer, &err);
    assert(t || (*err.msg && !strchr(err.msg, '\n')));
    if (t) assert(model_template_exists(&there, folder, &err) && there);
    model_template_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd[3], jinja, before;
    char path[sizeof folder + 64];
    struct error err = {0};
    struct special_tokens s;
    if (!*folder) {
        folder_make();
        open_tokenizer();
        for (int i = 0; i < 3; i++) {
            fd[i] = folder_file(names[i], "{}", 2);
        }
        jinja = folder_file("template", "", 0);
    }
    if (!size) return 0;
    const int kind = folder_kind(*data, 4);
    if (kind == 3) {
        snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
        char target[64];
        snprintf(target, sizeof target, "/proc/self/fd/%d", jinja);
        folder_put(jinja, data + 1, size - 1);
        if (symlink(target, path) != 0) abort();
        open_template();
        unlink(path);
        return 0;
    }
    folder_put(fd[before], "{}", 2);
    before = kind;
    folder_put(fd[before], data + 1, size - 1);
    if (special_tokens_read(&s, folder, tokenizer, &err)) {
        assert(!*s.bos || tokenizer_id(tokenizer, s.bos) >= 0);
        assert(!*s.eos || tokenizer_id(tokenizer, s.eos) >= 0);
    } else {
        assert(*err.msg && !strchr(err.msg, '\n'));
    }
    open_template();
    return 0;
}
