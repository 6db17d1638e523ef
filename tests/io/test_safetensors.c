// Files written by the Python package and by torch are read value for value; what we write is read back;
// every rule of the format that can be broken is broken once, and the error names it.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static double ramp(int64_t i)
{
    return (double)i * 0.375 - 2.0;
}

static void check_shape(const struct st_entry *e, int rank, const int64_t *shape)
{
    assert_non_null(e);
    assert_int_equal(e->rank, rank);
    for (int i = 0; i < rank; i++) {
        assert_int_equal(e->shape[i], shape[i]);
    }
}

static void reads_every_dtype_of_numpy(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "io/numpy.safetensors");
    assert_int_equal(f.st.count, 17);

    const double *f64 = fixture_get(&f, "f64").data;
    const float *f32 = fixture_get(&f, "f32").data;
    const uint16_t *f16 = fixture_get(&f, "f16").data;
    for (int i = 0; i < 6; i++) {
        assert_true(f64[i] == ramp(i));
        assert_true((double)f32[i] == ramp(i));
        if (i < 5) assert_true((double)f32_from_f16(f16[i]) == ramp(i));
    }
    check_shape(safetensors_find(&f.st, "f64"), 2, (int64_t[]){2, 3});
    check_shape(safetensors_find(&f.st, "f32"), 2, (int64_t[]){3, 2});

    const int64_t *i64 = fixture_get(&f, "i64").data;
    assert_true(i64[0] == INT64_MIN && i64[1] == -1 && i64[2] == 0 && i64[3] == INT64_MAX);
    const int32_t *i32 = fixture_get(&f, "i32").data;
    assert_true(i32[0] == INT32_MIN && i32[1] == INT32_MAX);
    const uint8_t *u8 = fixture_get(&f, "u8").data;
    assert_true(u8[0] == 255 && u8[1] == 7 && u8[2] == 1);
    fixture_close(&f);
}

static void keeps_dtypes_it_cannot_compute_with(void **state)
{
    (void)state;
    static const struct {
        const char *name, *dtype;
        size_t bytes;
    } want[] = {{"i16", "I16", 6}, {"i8", "I8", 3},   {"u64", "U64", 16},
                {"u32", "U32", 8}, {"u16", "U16", 4}, {"bool", "BOOL", 3}};
    struct fixture f;
    fixture_open(&f, "io/numpy.safetensors");
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct st_entry *e = safetensors_find(&f.st, want[i].name);
        assert_non_null(e);
        assert_false(e->known);
        assert_string_equal(e->dtype_name, want[i].dtype);
        assert_int_equal(tensor_bytes(e->tensor), want[i].bytes);
    }
    const uint8_t *truth = safetensors_find(&f.st, "bool")->tensor.data;
    assert_true(truth[0] == 1 && truth[1] == 0 && truth[2] == 1);
    assert_false(safetensors_find(&f.st, "rank6")->known); // F32, yet more sizes than a tensor has
    fixture_close(&f);
}

static void reads_odd_shapes_and_names(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "io/numpy.safetensors");
    const struct st_entry *scalar = safetensors_find(&f.st, "scalar");
    check_shape(scalar, 0, NULL);
    assert_int_equal(tensor_count(scalar->tensor), 1);
    assert_true(*data_f32(scalar->tensor) == 2.5f);

    const struct st_entry *empty = safetensors_find(&f.st, "empty");
    check_shape(empty, 2, (int64_t[]){0, 7});
    assert_true(empty->known);
    assert_int_equal(tensor_count(empty->tensor), 0);

    const struct st_entry *rank4 = safetensors_find(&f.st, "rank4");
    check_shape(rank4, 4, (int64_t[]){2, 3, 2, 2});
    assert_true((double)data_f32(rank4->tensor)[23] == ramp(23));

    assert_true(fixture_has(&f, "n\u00e4me \"quoted\" \\ \u4e2d \U0001f600"));
    assert_false(fixture_has(&f, "f3"));
    assert_false(fixture_has(&f, "f322"));
    assert_string_equal(f.st.metadata, "{\"ke\u00fd \\\"q\\\"\":\"value\\nwith a line\"}");
    fixture_close(&f);

    fixture_open(&f, "io/matrix.safetensors");
    const struct tensor m = fixture_get(&f, "matrix");
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 5; j++) {
            assert_true(row_f32(m, i)[j] == (float)(10 * i + j));
        }
    }
    assert_null(f.st.metadata);
    fixture_close(&f);
}

static void reads_types_of_torch(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "io/torch.safetensors");
    const struct tensor t = fixture_get(&f, "bf16");
    assert_int_equal(t.dtype, DTYPE_BF16);
    for (int i = 0; i < 9; i++) {
        const uint16_t want = bf16_from_f32((float)(i - 4) / 3);
        assert_int_equal(((const uint16_t *)t.data)[i], want);
    }
    assert_false(safetensors_find(&f.st, "c64")->known);
    assert_string_equal(safetensors_find(&f.st, "f8_e4m3")->dtype_name, "F8_E4M3");
    fixture_close(&f);
}

static void reads_back_what_it_writes(void **state)
{
    (void)state;
    char path[2048];
    snprintf(path, sizeof path, "%s/out.safetensors", test_dir());
    float a[6] = {1, 2, 3, 4, 5, 6};
    uint8_t b[3] = {7, 8, 9};
    int64_t c[1] = {-5};
    const struct st_named t[] = {
        {"b", tensor_1d(b, DTYPE_U8, 3)}, // first, so that what follows is not aligned
        {"a \"x\" \\ \n\x01 \u00e4", tensor_2d(a, DTYPE_F32, 2, 3)},
        {"c", tensor_make(c, DTYPE_I64, 0, NULL)},
        {"none", tensor_2d(NULL, DTYPE_F32, 0, 4)},
    };
    struct error err;
    check_ok(safetensors_write(path, t, 4, "{\"format\":\"pt\"}", &err), &err);

    struct safetensors st;
    check_ok(safetensors_open(&st, path, &err), &err);
    assert_int_equal(st.count, 4);
    assert_int_equal(st.header_size % 8, 0);
    assert_string_equal(st.metadata, "{\"format\":\"pt\"}");
    const struct st_entry *ea = safetensors_find(&st, t[1].name);
    check_shape(ea, 2, (int64_t[]){2, 3});
    assert_int_equal(ea->begin, 3);
    assert_int_equal((uintptr_t)ea->tensor.data % 4, 0); // a copy, aligned
    assert_memory_equal(ea->tensor.data, a, sizeof a);
    assert_memory_equal(safetensors_find(&st, "b")->tensor.data, b, sizeof b);
    assert_memory_equal(safetensors_find(&st, "c")->tensor.data, c, sizeof c);
    check_shape(safetensors_find(&st, "none"), 2, (int64_t[]){0, 4});
    safetensors_close(&st);
    safetensors_close(&st); // twice is safe
}

// A file of the given header, of `data_size` bytes of data after it.
static bool parse(const char *header, size_t header_length, size_t data_size, struct error *err)
{
    const size_t size = 8 + header_length + data_size;
    unsigned char *bytes = malloc(size);
    assert_non_null(bytes);
    memset(bytes, 0, size);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)((uint64_t)header_length >> (8 * i));
    }
    memcpy(bytes + 8, header, header_length);
    struct safetensors st = {.path = "file"};
    const bool ok = safetensors_parse(&st, bytes, size, err);
    safetensors_close(&st);
    free(bytes);
    return ok;
}

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void accepts_what_the_format_allows(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
    } good[] = {
        {"{}", 0},
        {"{}   ", 0},
        {"{ \"a\" :\n{ \"shape\" : [ 2 , 2 ] , \"data_offsets\":[0,4],\t\"dtype\":\"U8\"} }", 4},
        {"{\"a\":" T("F32", "[]", "[0,4]") "}", 4},
        {"{\"a\":" T("F32", "[0]", "[0,0]") ",\"b\":" T("U8", "[1]", "[0,1]") "}", 1},
        {"{\"b\":" T("U8", "[1]", "[1,2]") ",\"a\":" T("I8", "[1]", "[0,1]") "}", 2},
        {"{\"__metadata__\":{}}", 0},
        {"{\"a\":" T("F4", "[4]", "[0,2]") "}", 2},
        {"{\"\\u00e9\\ud83d\\ude00\\n\":" T("U8", "[1]", "[0,1]") "}", 1},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct error err = {0};
        check_ok(parse(good[i].header, strlen(good[i].header), good[i].data, &err), &err);
    }
}

static const struct {
    const char *header;
    size_t data;
    const char *error;
} bad[] = {
    {"", 0, "'{'"},
    {" {}", 0, "'{'"},
    {"[]", 0, "'{'"},
    {"{", 0, "name of a tensor"},
    {"{}x", 0, "nothing but spaces"},
    {"{\"a\"", 0, "':'"},
    {"{\"a", 0, "end of a string"},
    {"{\"a\":", 0, "'{'"},
    {"{\"a\":null}", 0, "'{'"},
    {"{\"a\":{}}", 0, "a key"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets before"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 1, "each once"},
    {"{\"a\":{\"dtype\":\"U8\",\"extra\":1}}", 1, "each once"},
    {"{\"a\":" T("U8", "[1]", "[0,1]") ",}", 1, "name of a tensor"},
    {"{\"a\":" T("U8", "[1]", "[0,1]") "\"b\":1}", 1, "',' or '}'"},
    {"{\"a\":" T("X9", "[1]", "[0,1]") "}", 1, "X9"},
    {"{\"a\":" T("F32F32F32F32F32F32", "[1]", "[0,1]") "}", 1, "dtype of the format"},
    {"{\"a\":" T("U8", "[-1]", "[0,1]") "}", 1, "integer from 0"},
    {"{\"a\":" T("U8", "[1.0]", "[0,1]") "}", 1, "',' or ']'"},
    {"{\"a\":" T("U8", "[01]", "[0,1]") "}", 1, "integer from 0"},
    {"{\"a\":" T("U8", "[1e0]", "[0,1]") "}", 1, "',' or ']'"},
    {"{\"a\":" T("U8", "[\"1\"]", "[0,1]") "}", 1, "integer from 0"},
    {"{\"a\":" T("U8", "[1,]", "[0,1]") "}", 1, "integer from 0"},
    {"{\"a\":" T("U8", "[9223372036854775808]", "[0,1]") "}", 1, "9223372036854775807"},
    {"{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "at most 8 sizes"},
    {"{\"a\":" T("U8", "[1]", "[0]") "}", 1, "two data_offsets"},
    {"{\"a\":" T("U8", "[1]", "[0,1,2]") "}", 1, "two data_offsets"},
    {"{\"a\":" T("U8", "[1]", "[1,0]") "}", 1, "not the lower"},
    {"{\"a\":" T("U8", "[2]", "[0,1]") "}", 1, "span 1 bytes"},
    {"{\"a\":" T("F32", "[1]", "[0,1]") "}", 1, "need 4"},
    {"{\"a\":" T("F4", "[3]", "[0,1]") "}", 1, "span 1 bytes"},
    // 2^62 * 4 and 2^61 * 64 bits overflow; so does 2^62 * 2^62 * 0
    {"{\"a\":" T("U8", "[4611686018427387904,4]", "[0,0]") "}", 0, "more than"},
    {"{\"a\":" T("F64", "[2305843009213693952]", "[0,0]") "}", 0, "more than"},
    {"{\"a\":" T("U8", "[4611686018427387904,4611686018427387904,0]", "[0,0]") "}", 0, "more than"},
    {"{\"a\":" T("U8", "[1]", "[1,2]") "}", 2, "begins at byte 1"}, // a gap at the start
    {"{\"a\":" T("U8", "[1]", "[0,1]") ",\"b\":" T("U8", "[1]", "[2,3]") "}", 3, "byte 2"},
    {"{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[1,3]") "}", 3, "byte 1"},
    {"{\"a\":" T("U8", "[1]", "[0,1]") ",\"b\":" T("U8", "[1]", "[0,1]") "}", 1, "byte 0"},
    {"{\"a\":" T("U8", "[1]", "[0,1]") "}", 2, "fill 1 bytes, the file has 2"},
    {"{\"a\":" T("U8", "[3]", "[0,3]") "}", 2, "fill 3 bytes, the file has 2"},
    {"{\"a\":" T("U8", "[1]", "[0,1]") ",\"a\":" T("U8", "[1]", "[1,2]") "}", 2, "twice"},
    {"{\"a\":" T("U8", "[1]", "[0,1]") ",\"\\u0061\":" T("U8", "[1]", "[1,2]") "}", 2, "twice"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "a string"},
    {"{\"__metadata__\":null}", 0, "'{'"},
    {"{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0, "duplicate"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ once"},
    {"{\"\\x\":1}", 0, "valid escape"},
    {"{\"\\u12g4\":1}", 0, "hexadecimal"},
    {"{\"\\u0000\":1}", 0, "NUL"},
    {"{\"\\ud800\":1}", 0, "low half"},
    {"{\"\\ud800\\u0041\":1}", 0, "low half"},
    {"{\"\\udc00\":1}", 0, "high surrogate"},
    {"{\"a\nb\":1}", 0, "UTF-8"},
    {"{\"\xff\":1}", 0, "UTF-8"},
    {"{\"\xc0\x80\":1}", 0, "UTF-8"},         // overlong
    {"{\"\xe0\x9f\xbf\":1}", 0, "UTF-8"},     // overlong
    {"{\"\xf0\x8f\xbf\xbf\":1}", 0, "UTF-8"}, // overlong
    {"{\"\xed\xa0\x80\":1}", 0, "UTF-8"},     // a surrogate
    {"{\"\xf4\x90\x80\x80\":1}", 0, "UTF-8"}, // above 10FFFF
    {"{\"\xe4\xb8\":1}", 0, "UTF-8"},         // cut short
};

static void refuses_what_breaks_the_format(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        check_error(parse(bad[i].header, strlen(bad[i].header), bad[i].data, &err), &err,
                    bad[i].error);
    }
}

static void refuses_lengths_that_do_not_fit(void **state)
{
    (void)state;
    struct error err;
    static const unsigned char huge[10] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    static const unsigned char beyond[10] = {3, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    struct safetensors st = {.path = "file"};
    for (size_t n = 0; n < 8; n++) {
        check_error(safetensors_parse(&st, beyond, n, &err), &err, "too short");
    }
    check_error(safetensors_parse(&st, beyond, 10, &err), &err, "header of 3 bytes");
    check_error(safetensors_parse(&st, huge, 10, &err), &err, "18446744073709551615");

    // One byte over the format's limit, though the file has that much.
    const size_t n = 100000001;
    char *spaces = malloc(n);
    assert_non_null(spaces);
    memset(spaces, ' ', n);
    spaces[0] = '{', spaces[1] = '}';
    check_error(parse(spaces, n, 0, &err), &err, "100000000");
    check_ok(parse(spaces, n - 1, 0, &err), &err);
    free(spaces);
}

static void truncated_files_never_parse(void **state)
{
    (void)state;
    struct file_map m;
    struct error err;
    check_ok(file_map_open(&m, FIXTURES "/io/numpy.safetensors", &err), &err);
    for (size_t n = 0; n < m.size; n++) {
        unsigned char *cut = malloc(n ? n : 1); // of the exact size, so that a read past it is seen
        assert_non_null(cut);
        memcpy(cut, m.data, n);
        struct safetensors st = {.path = "cut"};
        assert_false(safetensors_parse(&st, cut, n, &err));
        safetensors_close(&st);
        free(cut);
    }
    file_map_close(&m);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    const char *dir = test_dir();
    char path[2048];
    struct error err;
    struct safetensors st;
    check_error(safetensors_open(&st, "/dev/zero", &err), &err, "not a regular file");
    check_error(safetensors_open(&st, dir, &err), &err, "not a regular file");
    snprintf(path, sizeof path, "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_error(safetensors_open(&st, path, &err), &err, "not a regular file");
    snprintf(path, sizeof path, "%s/missing", dir);
    check_error(safetensors_open(&st, path, &err), &err, "missing");
    snprintf(path, sizeof path, "%s/empty", dir);
    check_ok(file_write(path, "", 0, &err), &err);
    check_error(safetensors_open(&st, path, &err), &err, "0 bytes is too short");
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    struct error err;
    struct safetensors st;
    int64_t n = 1;
    for (bool ok = false; !ok; n++) {
        mem_fail_at(n, true);
        ok = safetensors_open(&st, FIXTURES "/io/numpy.safetensors", &err);
        mem_fail_at(0, false);
        if (!ok) assert_non_null(strstr(err.msg, "memory"));
    }
    assert_true(n > 17); // at least one for each name
    safetensors_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_dtype_of_numpy),
        cmocka_unit_test(keeps_dtypes_it_cannot_compute_with),
        cmocka_unit_test(reads_odd_shapes_and_names),
        cmocka_unit_test(reads_types_of_torch),
        cmocka_unit_test(reads_back_what_it_writes),
        cmocka_unit_test(accepts_what_the_format_allows),
        cmocka_unit_test(refuses_what_breaks_the_format),
        cmocka_unit_test(refuses_lengths_that_do_not_fit),
        cmocka_unit_test(truncated_files_never_parse),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
