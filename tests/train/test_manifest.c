// tests/train/test_manifest.c - the manifest reads back, and no byte of it can change unseen.
#include "support.h"

#include "train/manifest.h"

static void fill_manifest(struct manifest *m)
{
    *m = (struct manifest){.step = 1234};
    struct manifest_file *f = manifest_add(m, "values.safetensors");
    f->size = 1234567890123;
    f->crc = 0x0000abcd;
    manifest_add_tensor(f, "model.layers.0.mlp.gate.weight")->crc = 0xffffffff;
    manifest_add_tensor(f, "quote\"d \xc3\xa9")->crc = 0;
    f = manifest_add(m, "state.json");
    f->size = 0;
    f->crc = 0x12345678;
}

static void reads_back(void **unused)
{
    (void)unused;
    struct manifest m, again;
    struct buf text = {0};
    struct error err = {0};
    fill_manifest(&m);
    assert_true(manifest_text(&m, &text));
    check_ok(manifest_parse(&again, text.data, text.size, "manifest.json", &err), &err);
    assert_int_equal(again.step, 1234);
    assert_int_equal(again.n_files, 2);
    const struct manifest_file *f = manifest_find(&again, "values.safetensors");
    assert_int_equal(f->size, 1234567890123);
    assert_int_equal(f->crc, 0xabcd);
    assert_int_equal(f->n_tensors, 2);
    assert_string_equal(f->tensor[1].name, "quote\"d \xc3\xa9");
    assert_true(f->tensor[0].crc == 0xffffffffU);
    assert_int_equal(manifest_find(&again, "state.json")->crc, 0x12345678);
    manifest_free(&again);
    manifest_free(&m);
    buf_free(&text);
}

static void any_changed_byte_is_seen(void **unused)
{
    (void)unused;
    struct manifest m, again;
    struct buf text = {0};
    fill_manifest(&m);
    assert_true(manifest_text(&m, &text));
    for (size_t i = 0; i < text.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct error err = {0};
            text.data[i] = (char)((unsigned char)text.data[i] ^ (1U << bit));
            check_error(manifest_parse(&again, text.data, text.size, "manifest.json", &err), &err,
                        "manifest.json");
            text.data[i] = (char)((unsigned char)text.data[i] ^ (1U << bit));
        }
    }
    for (size_t n = 0; n < text.size; n++) {
        struct error err = {0};
        check_error(manifest_parse(&again, text.data, n, "manifest.json", &err), &err,
                    "manifest.json");
    }
    manifest_free(&m);
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back),
        cmocka_unit_test(any_changed_byte_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
