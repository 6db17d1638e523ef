// tests/fuzz/fuzz_checkpoint.c - the two files of a checkpoint that are parsed as text. An input is
// parsed as it is, and again as a manifest whose own checksum is right, to get behind that guard.
#include "base/crc32c.h"
#include "train/manifest.h"
#include "train/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_manifest(const char *text, size_t size)
{
    struct manifest m;
    struct error err = {0};
    if (!manifest_parse(&m, text, size, "manifest.json", &err)) {
        if (!*err.msg) abort();
        return;
    }
    struct buf again = {0}; // what parses is written as the same text
    if (!manifest_text(&m, &again)) abort();
    struct manifest n;
    if (!manifest_parse(&n, again.data, again.size, "manifest.json", &err)) abort();
    if (n.n_files != m.n_files || n.step != m.step) abort();
    manifest_free(&n);
    manifest_free(&m);
    buf_free(&again);
}

static int append_to_buf(const char *bytes, size_t n, void *out)
{
    return buf_append(out, bytes, n) ? 0 : -1;
}

static void dump(const json_t *root, struct buf *out)
{
    const size_t flags = JSON_INDENT(1) | JSON_SORT_KEYS;
    if (json_dump_callback(root, append_to_buf, out, flags) == 0) buf_puts(out, "\n");
}

static void parse_guarded(const char *text, size_t size)
{
    struct error err = {0};
    json_t *root = json_parse(text, size, "input", &err);
    if (json_is_object(root)) {
        struct buf bare = {0}, whole = {0};
        char crc[9];
        json_object_del(root, "crc32c");
        dump(root, &bare);
        snprintf(crc, sizeof crc, "%08" PRIx32, crc32c(0, bare.data, bare.size));
        json_object_set_new(root, "crc32c", json_string(crc));
        dump(root, &whole);
        if (whole.data) parse_manifest(whole.data, whole.size);
        buf_free(&bare);
        buf_free(&whole);
    }
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct train_state state;
    parse_manifest((const char *)data, size);
    parse_guarded((const char *)data, size);
    if (train_state_parse(&state, (const char *)data, size, "state.json", &err)) {
        train_state_free(&state);
    }
    return 0;
}
