// Who gives the wrong folder reads which it is, and where what is wanted may lie.
#include "support.h"

#include "base/file.h"
#include "io/folders.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static void refused(const char *name, enum folder_kind wanted, const char *words)
{
    struct error err;
    check_error(folder_check(in_top(name), wanted, &err), &err, words);
    check_error(folder_check(in_top(name), wanted, &err), &err, in_top(name));
}

static void taken(const char *name, enum folder_kind wanted)
{
    struct error err;
    check_ok(folder_check(in_top(name), wanted, &err), &err);
}

static void what_is_not_a_model(void **state)
{
    (void)state;
    struct error err;
    snprintf(top, sizeof top, "%s", test_dir());
    refused("missing", FOLDER_MODEL, "missing: no such folder");
    put("file");
    refused("file", FOLDER_MODEL, "file: a file, where a folder is needed");
    refused("file/below", FOLDER_MODEL, "below: Not a directory");
    check_ok(dir_make(in_top("empty"), &err), &err);
    refused("empty", FOLDER_MODEL, "empty: an empty folder");
    put("weights/model.safetensors");
    refused("weights", FOLDER_MODEL, "weights: no config.json, so not the folder of a model");
    put("demo/model/config.json");
    refused("demo", FOLDER_MODEL, "demo: no config.json; there is one in ");
    refused("demo", FOLDER_MODEL, "demo/model");
    taken("demo/model", FOLDER_MODEL);
    check_ok(dir_make(in_top("models--o--n/snapshots"), &err), &err);
    refused("models--o--n", FOLDER_MODEL, "models--o--n/snapshots/REVISION");
    assert_int_equal(symlink("nowhere", in_top("weights/config.json")), 0);
    taken("weights", FOLDER_MODEL); // opened, a link to nothing says so itself
}

static void folders_of_runs(void **state)
{
    (void)state;
    struct error err;
    snprintf(top, sizeof top, "%s", test_dir());
    put("run/run.json");
    refused("run", FOLDER_MODEL, "run: the folder of a run that has left no model yet");
    put("run/checkpoint-2/manifest.json");
    put("run/checkpoint-2/state.json");
    refused("run/checkpoint-2", FOLDER_MODEL,
            "checkpoint-2: a checkpoint, from which train --resume");
    refused("run/checkpoint-2", FOLDER_ADAPTER, "checkpoint-2: a checkpoint");
    put("run/adapter/adapter_config.json");
    refused("run", FOLDER_MODEL, "it left an adapter, ");
    refused("run", FOLDER_ADAPTER, "run/adapter, for the model that it was trained on");
    refused("run/adapter", FOLDER_MODEL, "adapter: an adapter, which needs its base: --model BASE");
    taken("run/adapter", FOLDER_ADAPTER);
    put("run/model/config.json");
    refused("run", FOLDER_MODEL, "the folder of a run; its model is ");
    check_ok(dir_make(in_top("run/model"), &err), &err);
    refused("run/model", FOLDER_ADAPTER, "model: a model, not an adapter");
    static const char *const files[] = {"a/smt_config.json", "b/expert_cfg.json"};
    for (int i = 0; i < 2; i++) {
        put(files[i]);
        refused(i ? "b" : "a", FOLDER_MODEL, "an adapter, which needs its base");
        taken(i ? "b" : "a", FOLDER_ADAPTER);
    }
    put("c/readme");
    refused("c", FOLDER_ADAPTER, "c: no file of an adapter, such as adapter_config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_a_model),
        cmocka_unit_test(folders_of_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
