// Who gives the wrong folder reads which it is, and where what is wanted may lie.
#include "support.h"

#include "base/file.h"
#include "io/folders.h"

#include <stdio.h>
#include <string.h>

static char top[1000];

static const char *in_top(const char *name)
{
    static char path[4][2048];
    static int n;
    n = (n + 1) % 4;
    snprintf(path[n], sizeof path[n], "%s/%s", top, name);
    return path[n];
}

static void put(const char *name)
{
    char parent[2048];
    struct error err;
    path_parent(parent, sizeof parent, in_top(name));
    check_ok(dir_make(parent, &err) && file_write(in_top(name), "{}", 2, &err), &err);
}

enum kind { MODEL, MODEL_NOT_ADAPTER, ADAPTER };

// MODEL_NOT_ADAPTER: a model is wanted, where an adapter lies.
static bool say(const char *name, enum kind wanted, struct error *err)
{
    if (wanted == ADAPTER) return folder_is_no_adapter(in_top(name), err);
    return folder_is_no_model(in_top(name), wanted == MODEL_NOT_ADAPTER, err);
}

static void refused(const char *name, enum kind wanted, const char *words)
{
    struct error err;
    check_error(say(name, wanted, &err), &err, words);
    check_error(say(name, wanted, &err), &err, in_top(name));
}

static void what_is_not_a_model(void **state)
{
    (void)state;
    struct error err;
    snprintf(top, sizeof top, "%s", test_dir());
    refused("missing", MODEL, "missing: no such folder");
    put("file");
    refused("file", MODEL, "file: a file, where a folder is needed");
    refused("file/below", MODEL, "below: Not a directory");
    check_ok(dir_make(in_top("empty"), &err), &err);
    refused("empty", MODEL, "empty: an empty folder");
    put("weights/model.safetensors");
    refused("weights", MODEL, "weights: no config.json, so not the folder of a model");
    put("demo/model/config.json");
    refused("demo", MODEL, "demo: no config.json; there is one in ");
    refused("demo", MODEL, "demo/model");
    check_ok(dir_make(in_top("models--o--n/snapshots"), &err), &err);
    refused("models--o--n", MODEL, "models--o--n/snapshots/REVISION");
}

static void folders_of_runs(void **state)
{
    (void)state;
    struct error err;
    snprintf(top, sizeof top, "%s", test_dir());
    put("run/run.json");
    refused("run", MODEL, "run: the folder of a run that has left no model yet");
    put("run/checkpoint-2/manifest.json");
    put("run/checkpoint-2/state.json");
    refused("run/checkpoint-2", MODEL, "checkpoint-2: a checkpoint, from which train --resume");
    refused("run/checkpoint-2", ADAPTER, "checkpoint-2: a checkpoint");
    put("run/adapter/adapter_config.json");
    refused("run", MODEL, "it left an adapter, ");
    refused("run", ADAPTER, "run/adapter, for the model that it was trained on");
    refused("run/adapter", MODEL_NOT_ADAPTER,
            "adapter: an adapter, which needs its base: --model BASE");
    put("run/model/config.json");
    refused("run", MODEL, "the folder of a run; its model is ");
    check_ok(dir_make(in_top("run/model"), &err), &err);
    refused("run/model", ADAPTER, "model: a model, not an adapter");
    put("c/readme");
    refused("c", ADAPTER, "c: no adapter that is known here");
}

static void names_of_a_model(void **state)
{
    (void)state;
    static const char *const weights[] = {"model.safetensors", "model-00001-of-00002.safetensors",
                                          "model.safetensors.index.json"};
    static const char *const others[] = {"adapter_model.safetensors", "tokenizer.json", "model.bin",
                                         "safetensors", "model"};
    struct error err;
    snprintf(top, sizeof top, "%s", test_dir());
    check_ok(folder_has_no_model(in_top("new"), &err), &err); // not there
    for (int i = 0; i < 3; i++) {
        assert_true(is_weights_file(weights[i]) && is_model_file(weights[i]));
    }
    assert_true(is_model_file("config.json") && !is_weights_file("config.json"));
    for (int i = 0; i < 5; i++) {
        assert_false(is_model_file(others[i]));
        put(others[i]);
    }
    check_ok(folder_has_no_model(top, &err), &err);
    put("model.safetensors");
    check_error(folder_has_no_model(top, &err), &err, "holds a model (model.safetensors)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_a_model),
        cmocka_unit_test(folders_of_runs),
        cmocka_unit_test(names_of_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
