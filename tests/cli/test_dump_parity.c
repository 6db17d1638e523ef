// test_dump_parity.c - the commands that compute, through their options: what `dump` writes against what
// transformers computed, and the loss of `eval` on the same documents.
#include "parity.h"

#include "base/file.h"
#include "base/mem.h"
#include "cli/batch_file.h"
#include "cli/commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void write_text(const char *path, const char *text)
{
    struct error err = {""};
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

// Runs a command; what it prints as JSON comes back in *json where that is wanted.
static enum status run(enum command c, char *const *argv, int argc, json_t **json,
                       struct error *err)
{
    struct options o;
    char *text = NULL;
    size_t size = 0;
    check_ok(options_parse(&o, c, argc, argv, err), err);
    FILE *result = open_memstream(&text, &size), *people = fopen("/dev/null", "w");
    struct output io = {
        .result = result, .people = people, .status = people, .json = o.config.json, .quiet = true};
    const enum status status = commands[c].run(&o, &io, err);
    fclose(result);
    fclose(people);
    if (json) *json = json_loadb(text, size, 0, NULL);
    free(text);
    options_close(&o);
    return status;
}

static json_t *row_of(const int32_t *x, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer(x[i]));
    }
    return list;
}

// The packed batch as one row, its documents as segments.
static void write_batch(const char *path, const struct batch *b)
{
    json_t *root = json_object(), *labels = json_array(), *segments = json_array();
    int segment = 0;
    for (int64_t i = 0; i < b->n; i++) {
        segment += i && b->position[i] == 0;
        json_array_append_new(segments, json_integer(segment));
        json_array_append_new(labels, json_integer(i ? b->target[i - 1] : -100));
    }
    json_object_set_new(root, "input_ids", json_pack("[o]", row_of(b->id, b->n)));
    json_object_set_new(root, "labels", json_pack("[o]", labels));
    json_object_set_new(root, "segment_ids", json_pack("[o]", segments));
    char *text = json_dumps(root, 0);
    write_text(path, text);
    free(text);
    json_decref(root);
}

static void check_tensor(const struct safetensors *got, const struct parity *p, const char *name,
                         double limit)
{
    const struct st_entry *e = safetensors_find(got, name);
    if (!e) fail_msg("%s: dump wrote no %s", p->name, name);
    check_close(name, e->tensor, fixture_get(&p->reference, name), limit);
}

static void check_dump(const struct parity *p, const char *path)
{
    struct safetensors got = {.path = path};
    struct error err = {""};
    check_ok(safetensors_open(&got, path, &err), &err);
    check_tensor(&got, p, "logits", 1e-5);
    check_tensor(&got, p, "loss", 1e-5);
    assert_int_equal(safetensors_find(&got, "loss")->rank, 0);
    assert_int_equal(safetensors_find(&got, "logits")->rank, 3);
    int gradients = 0, routes = 0;
    for (int64_t i = 0; i < got.count; i++) {
        const char *name = got.entry[i].name;
        const bool gradient = !strncmp(name, "grad.", 5);
        if (!fixture_has(&p->reference, name)) continue; // v4's own names: see test_parity
        gradients += gradient;
        routes += !strncmp(name, "routes.", 7);
        check_tensor(&got, p, name, gradient ? 1e-4 : 1e-5);
    }
    assert_true(gradients > 10 && (routes > 0) != parity_dense(p));
    safetensors_close(&got);
}

static void dump_is_what_transformers_computes(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        struct error err = {""};
        char batch[1100], out[1100], dir[1100];
        parity_open(&p, parity_cases[i].name);
        const char *folder = test_dir();
        snprintf(batch, sizeof batch, "%s/batch.json", folder);
        snprintf(out, sizeof out, "%s/dump.safetensors", folder);
        snprintf(dir, sizeof dir, "%s/parity/%s/%s", FIXTURES, p.name, parity_cases[i].layout);
        write_batch(batch, &p.batch[0]);
        char *argv[] = {"--model", dir, "--batch", batch, "--out", out, "--gradients"};
        const enum status status = run(COMMAND_DUMP, argv, 7, NULL, &err);
        check_ok(status == STATUS_DONE, &err);
        check_dump(&p, out);
        parity_close(&p);
    }
}

static void write_documents(const char *path, const struct batch *b)
{
    struct buf text = {0};
    for (int64_t first = 0, i = 1; i <= b->n; i++) {
        if (i < b->n && b->position[i]) continue;
        json_t *line = json_object(), *labels = json_array();
        json_object_set_new(line, "input_ids", row_of(b->id + first, i - first));
        for (int64_t t = first; t < i; t++) {
            json_array_append_new(labels, json_integer(t > first ? b->target[t - 1] : -100));
        }
        json_object_set_new(line, "labels", labels);
        char *json = json_dumps(line, 0);
        buf_printf(&text, "%s\n", json);
        free(json);
        json_decref(line);
        first = i;
    }
    write_text(path, text.data);
    buf_free(&text);
}

static void eval_loss_is_the_mean_over_targets(void **state)
{
    (void)state;
    struct parity p;
    struct error err = {""};
    char data[1100], dir[1100];
    json_t *line = NULL;
    parity_open(&p, parity_cases[0].name);
    snprintf(data, sizeof data, "%s/data.jsonl", test_dir());
    snprintf(dir, sizeof dir, "%s/parity/%s/%s", FIXTURES, p.name, parity_cases[0].layout);
    write_documents(data, &p.batch[0]);
    char *argv[] = {"--model", dir, "--data", data, "--dtype", "f32", "--json"};
    check_ok(run(COMMAND_EVAL, argv, 7, &line, &err) == STATUS_DONE, &err);
    const double want = (double)*data_f32(fixture_get(&p.reference, "loss"));
    const double got = json_real_value(json_object_get(line, "loss"));
    assert_true(fabs(got - want) < 1e-5 * want);
    assert_int_equal(json_integer_value(json_object_get(line, "tokens")), p.batch[0].supervised);
    json_decref(line);
    parity_close(&p);
}

static void check_batch_error(const char *text, const char *needle)
{
    struct batch_file b;
    struct error err = {""};
    check_error(batch_file_parse(&b, text, strlen(text), "b.json", 10, &err), &err, needle);
}

static void bad_batches_are_named(void **state)
{
    (void)state;
    check_batch_error("[]", "expected an object");
    check_batch_error("{\"labels\": [[1]]}", "no input_ids");
    check_batch_error("{\"input_ids\": [[1]]}", "no labels");
    check_batch_error("{\"input_ids\": [], \"labels\": []}", "0 rows");
    check_batch_error("{\"input_ids\": [[]], \"labels\": [[]]}", "row 0 of input_ids");
    check_batch_error("{\"input_ids\": [[1, 2], [1]], \"labels\": [[1, 2], [1, 2]]}",
                      "row 1 of input_ids: expected a list of 2");
    check_batch_error("{\"input_ids\": [[1, 2]], \"labels\": [[1]]}", "row 0 of labels");
    check_batch_error("{\"input_ids\": [[1, 10]], \"labels\": [[1, 1]]}",
                      "row 0, column 1 of input_ids: expected a whole number from 0 to 9");
    check_batch_error("{\"input_ids\": [[1, -100]], \"labels\": [[1, 1]]}",
                      "column 1 of input_ids");
    check_batch_error("{\"input_ids\": [[1, 2]], \"labels\": [[1, -1]]}", "column 1 of labels");
    check_batch_error("{\"input_ids\": [[1, 2]], \"labels\": [[99, 1]]}", "column 0 of labels");
    check_batch_error("{\"input_ids\": [[1, 1.5]], \"labels\": [[1, 1]]}", "column 1 of input_ids");
    check_batch_error("{\"input_ids\": [[1, 2]], \"labels\": [[1, -100]]}",
                      "no label carries loss");
    check_batch_error("{\"input_ids\": [[1, 2]], \"labels\": [[1, 2]], \"segment_ids\": [[0]]}",
                      "row 0 of segment_ids");
}

static void segments_are_documents(void **state)
{
    (void)state;
    struct batch_file b;
    struct error err = {""};
    const char *text =
        "{\"input_ids\": [[1, 2, 3], [4, 5, 6]], \"labels\": [[1, 2, 3], [-100, 5, 6]],"
        " \"segment_ids\": [[0, 0, 1], [1, 1, 1]]}";
    check_ok(batch_file_parse(&b, text, strlen(text), "b.json", 10, &err), &err);
    const int32_t position[] = {0, 1, 0, 0, 1, 2}, target[] = {2, 3, -100, 5, 6, -100};
    const int32_t first[] = {0, 0, 2, 3, 3, 3};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(b.batch.position[i], position[i]);
        assert_int_equal(b.batch.target[i], target[i]); // the label decides, not the segment
        assert_int_equal(b.batch.span[2 * i], first[i]);
        assert_int_equal(b.batch.span[2 * i + 1], i);
    }
    assert_int_equal(b.batch.supervised, 4);
    batch_file_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dump_is_what_transformers_computes),
        cmocka_unit_test(eval_loss_is_the_mean_over_targets),
        cmocka_unit_test(bad_batches_are_named),
        cmocka_unit_test(segments_are_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
