// A folder in shards is opened, found wanting where its index lies, and exported: what is written again is
// the base's byte for byte but for the tensors that changed.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/checkpoint.h"
#include "io/json.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char base[] = FIXTURES "/io/sharded";
static const char index_file[] = "model.safetensors.index.json";

// Paths live until the program ends.
static const char *join(const char *dir, const char *name)
{
    static char *path[1000];
    static int n;
    assert_true(n < 1000);
    assert_true(asprintf(&path[n], "%s/%s", dir, name) > 0);
    return path[n++];
}

static void write_text(const char *dir, const char *name, const char *text)
{
    struct error err;
    check_ok(file_write(join(dir, name), text, strlen(text), &err), &err);
}

// A folder in the test's own with links to every file of the base, as the Hugging Face cache lays it out.
static const char *linked_base(void)
{
    const char *dir = test_dir();
    DIR *d = opendir(base);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        assert_int_equal(symlink(join(base, e->d_name), join(dir, e->d_name)), 0);
    }
    closedir(d);
    return dir;
}

static void opens_shards(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c;
    check_ok(checkpoint_open(&c, base, &err), &err);
    assert_int_equal(c.n_shards, 3);
    assert_string_equal(c.shard[1].file, "model-00002-of-00003.safetensors");
    assert_int_equal(checkpoint_tensors(&c), 6);
    for (int n = 0; n < 6; n++) {
        char name[32];
        snprintf(name, sizeof name, "layer.%d.weight", n);
        const struct st_entry *e = checkpoint_find(&c, name);
        assert_non_null(e);
        assert_ptr_equal(e, checkpoint_at(&c, n));
        assert_true(data_f32(e->tensor)[7] == 7 * 0.375f - 2 + (float)n);
    }
    assert_null(checkpoint_find(&c, "layer.6.weight"));
    assert_null(checkpoint_at(&c, 6));
    checkpoint_close(&c);
    checkpoint_close(&c);
}

static void opens_one_file_and_links(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c;
    const char *dir = linked_base();
    check_ok(checkpoint_open(&c, dir, &err), &err);
    assert_int_equal(checkpoint_tensors(&c), 6);
    checkpoint_close(&c);

    // A single file beside the index is preferred, as transformers does.
    assert_int_equal(symlink(FIXTURES "/io/matrix.safetensors", join(dir, "model.safetensors")), 0);
    check_ok(checkpoint_open(&c, dir, &err), &err);
    assert_int_equal(c.n_shards, 1);
    assert_non_null(checkpoint_find(&c, "matrix"));
    checkpoint_close(&c);
}

static void refuses_a_wrong_index(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "not valid JSON"},
        {"[]", "no weight_map"},
        {"{\"weight_map\":[]}", "no weight_map"},
        {"{\"weight_map\":{\"a\":1}}", "no string"},
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "../x.safetensors"},
        {"{\"weight_map\":{\"a\":\"/x.safetensors\"}}", "same folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "same folder"},
        {"{\"weight_map\":{\"a\":\"\"}}", "same folder"},
        {"{\"weight_map\":{\"a\":\"config.json\"}}", "same folder"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"}}", "x.safetensors: cannot open"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"x.safetensors\"}}", "duplicate"},
        // In the index and not in the shard; in the shard and not in the index; in the other shard.
        {"{\"weight_map\":{\"layer.0.weight\":\"model-00001-of-00003.safetensors\","
         "\"layer.1.weight\":\"model-00001-of-00003.safetensors\","
         "\"layer.9.weight\":\"model-00001-of-00003.safetensors\"}}",
         "layer.9.weight"},
        {"{\"weight_map\":{\"layer.0.weight\":\"model-00001-of-00003.safetensors\"}}",
         "layer.1.weight is in model-00001-of-00003.safetensors, the index has it in no shard"},
        {"{\"weight_map\":{\"layer.0.weight\":\"model-00001-of-00003.safetensors\","
         "\"layer.1.weight\":\"model-00002-of-00003.safetensors\","
         "\"layer.2.weight\":\"model-00002-of-00003.safetensors\","
         "\"layer.3.weight\":\"model-00002-of-00003.safetensors\"}}",
         "the index has it in model-00002"},
    };
    const char *dir = linked_base();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err;
        struct checkpoint c;
        write_text(dir, index_file, bad[i].text);
        check_error(checkpoint_open(&c, dir, &err), &err, bad[i].error);
        checkpoint_close(&c); // safe after a failure
    }
}

static void says_what_is_missing(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c;
    const char *dir = test_dir();
    check_error(checkpoint_open(&c, dir, &err), &err, "neither model.safetensors");
    check_error(checkpoint_open(&c, join(dir, "none"), &err), &err, "no such folder");
    write_text(dir, "pytorch_model.bin", "x");
    check_error(checkpoint_open(&c, dir, &err), &err, "convert it to safetensors");
    assert_int_equal(mkfifo(join(dir, "model.safetensors"), 0600), 0);
    check_error(checkpoint_open(&c, dir, &err), &err, "not a regular file");
}

static void check_same_bytes(const char *a, const char *b)
{
    struct file_map ma, mb;
    struct error err;
    check_ok(file_map_open(&ma, a, &err), &err);
    check_ok(file_map_open(&mb, b, &err), &err);
    assert_int_equal(ma.size, mb.size);
    if (ma.size) assert_memory_equal(ma.data, mb.data, ma.size);
    file_map_close(&ma);
    file_map_close(&mb);
}

static int count_files(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(d);
    return n;
}

static void an_export_is_the_base(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c;
    const char *dir = linked_base();
    write_text(dir, "pytorch_model.bin", "not copied");
    write_text(dir, "pytorch_model.bin.index.json", "not copied");
    write_text(dir, "other.safetensors", "not copied");
    write_text(dir, "chat_template.jinja", "{{ copied }}");
    write_text(dir, "empty.txt", "");
    assert_int_equal(mkdir(join(dir, "original"), 0700), 0);
    assert_int_equal(mkfifo(join(dir, "pipe"), 0600), 0);
    assert_int_equal(symlink("/nonexistent", join(dir, "dangling.json")), 0);

    check_ok(checkpoint_open(&c, dir, &err), &err);
    const char *out = join(dir, "a/b/out");
    check_ok(checkpoint_export(&c, out, NULL, NULL, &err), &err);
    check_ok(checkpoint_export(&c, out, NULL, NULL, &err), &err); // over itself
    static const char *const files[] = {"config.json",
                                        "tokenizer.json",
                                        "README.md",
                                        "chat_template.jinja",
                                        "empty.txt",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    const int n = sizeof files / sizeof *files;
    assert_int_equal(count_files(out), n);
    for (int i = 0; i < n; i++) {
        struct stat st;
        check_same_bytes(join(dir, files[i]), join(out, files[i]));
        assert_int_equal(lstat(join(out, files[i]), &st), 0);
        assert_true(S_ISREG(st.st_mode));
    }
    checkpoint_close(&c);
}

static bool negate_one(void *user, const struct st_entry *e, void *bytes)
{
    if (strcmp(e->name, user) != 0) return false;
    for (int64_t i = 0; i < tensor_count(e->tensor); i++) {
        assert_true(((float *)bytes)[i] == 0);
        ((float *)bytes)[i] = -data_f32(e->tensor)[i];
    }
    return true;
}

static void an_export_changes_what_it_is_told_to(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c, d;
    check_ok(checkpoint_open(&c, base, &err), &err);
    const char *out = join(test_dir(), "out");
    char name[] = "layer.3.weight";
    check_ok(checkpoint_export(&c, out, negate_one, name, &err), &err);
    check_ok(checkpoint_open(&d, out, &err), &err);
    for (int64_t i = 0; i < checkpoint_tensors(&c); i++) {
        const struct st_entry *a = checkpoint_at(&c, i), *b = checkpoint_at(&d, i);
        assert_string_equal(a->name, b->name);
        for (int64_t k = 0; k < tensor_count(a->tensor); k++) {
            const float want = data_f32(a->tensor)[k];
            assert_true(data_f32(b->tensor)[k] == (strcmp(a->name, name) ? want : -want));
        }
    }
    checkpoint_close(&d);
    checkpoint_close(&c);
}

static void an_export_never_harms_a_folder(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c;
    const char *dir = linked_base(), *link = join(dir, "link");
    check_ok(checkpoint_open(&c, dir, &err), &err);
    check_error(checkpoint_export(&c, dir, NULL, NULL, &err), &err, "read from");
    assert_int_equal(symlink(dir, link), 0);
    check_error(checkpoint_export(&c, link, NULL, NULL, &err), &err, "read from");

    const char *out = join(dir, "out");
    assert_int_equal(mkdir(out, 0700), 0);
    write_text(out, "model.safetensors", "another");
    check_error(checkpoint_export(&c, out, NULL, NULL, &err), &err, "holds model.safetensors");
    assert_int_equal(count_files(out), 1);
    write_text(dir, "file", "x");
    check_error(checkpoint_export(&c, join(dir, "file"), NULL, NULL, &err), &err, "file");
    checkpoint_close(&c);
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c;
    const char *out = join(test_dir(), "out");
    bool ok = false;
    for (int64_t n = 1; !ok; n++) {
        mem_fail_at(n, true);
        ok = checkpoint_open(&c, base, &err);
        ok = ok && checkpoint_export(&c, out, negate_one, (char[]){"x"}, &err);
        mem_fail_at(0, false);
        if (!ok) assert_non_null(strstr(err.msg, "memory"));
        checkpoint_close(&c);
    }
    assert_true(file_exists(join(out, "config.json")));
}

static bool is_third(void *user, const char *name)
{
    (void)user;
    return !strcmp(name, "layer.3.weight");
}

static bool is_config(void *user, const char *name)
{
    (void)user;
    return !strcmp(name, "generation_config.json");
}

static bool adds_file(void *user, const char *out, struct error *err)
{
    (void)user;
    return !file_exists(join(out, "config.json")) && file_write(join(out, "own.txt"), "x", 1, err);
}

// A tensor and a file less, a file of the caller's, another config.json; what stays has its bytes.
static void an_export_may_leave_things_out(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint c, again;
    const char *dir = linked_base(), *out = join(dir, "out");
    write_text(dir, "generation_config.json", "{}");
    remove(join(dir, "config.json"));
    write_text(dir, "config.json", "{\"a\": 1}");
    check_ok(checkpoint_open(&c, dir, &err), &err);
    const struct checkpoint_edit edit = {.drops_tensor = is_third,
                                         .drops_file = is_config,
                                         .write = adds_file,
                                         .config = "{\"a\": 2}"};
    check_ok(checkpoint_export_edited(&c, out, &edit, &err), &err);
    check_ok(checkpoint_open(&again, out, &err), &err); // index and shards agree
    assert_int_equal(checkpoint_tensors(&again), checkpoint_tensors(&c) - 1);
    assert_null(checkpoint_find(&again, "layer.3.weight"));
    for (int64_t i = 0; i < checkpoint_tensors(&again); i++) {
        const struct st_entry *e = checkpoint_at(&again, i), *was = checkpoint_find(&c, e->name);
        assert_int_equal(e->end - e->begin, was->end - was->begin);
        assert_memory_equal(e->tensor.data, was->tensor.data, e->end - e->begin);
    }
    assert_int_equal(again.n_shards, c.n_shards);
    assert_false(file_exists(join(out, "generation_config.json")));
    assert_true(file_exists(join(out, "own.txt")));
    char *text;
    size_t size;
    check_ok(file_read(&text, &size, join(out, "config.json"), 100, &err), &err);
    assert_string_equal(text, "{\"a\": 2}");
    mem_free(text);
    const struct st_entry *gone = checkpoint_find(&c, "layer.3.weight");
    json_t *index = json_parse_file(join(out, index_file), 1 << 20, &err);
    const json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    assert_int_equal(json_integer_value(total), 192 - (int64_t)(gone->end - gone->begin));
    json_decref(index);
    checkpoint_close(&again);
    checkpoint_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_shards),
        cmocka_unit_test(opens_one_file_and_links),
        cmocka_unit_test(refuses_a_wrong_index),
        cmocka_unit_test(says_what_is_missing),
        cmocka_unit_test(an_export_is_the_base),
        cmocka_unit_test(an_export_changes_what_it_is_told_to),
        cmocka_unit_test(an_export_never_harms_a_folder),
        cmocka_unit_test(survives_every_failed_allocation),
        cmocka_unit_test(an_export_may_leave_things_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
