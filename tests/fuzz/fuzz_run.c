// tests/fuzz/fuzz_run.c - the JSON files of a run's folder, as `report` reads them, and the page of them. The first byte
// of an input says which: 0 run.json, 1 plan.json, 2 result.json, 3 changes.json, 4 samples.json, 5 eval.json.
#include "eval/report.h"
#include "folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"run.json",     "plan.json",    "result.json",
                                    "changes.json", "samples.json", "eval.json"};
static const char steps[] =
    "{\"step\":1,\"stage\":0,\"loss\":2.5,\"lr\":0.1,\"grad_norm\":1,\"tokens\":8,\"seconds\":1}\n"
    "{\"step\":2,\"stage\":0,\"loss\":2.0,\"lr\":0.1,\"grad_norm\":1,\"tokens\":16,\"seconds\":2}"
    "\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd[6], before;
    struct error err = {0};
    struct buf page = {0};
    struct run_data r = {0};
    if (!*folder) {
        folder_make();
        folder_file("metrics.jsonl", steps, sizeof steps - 1);
        for (int i = 0; i < 6; i++) {
            fd[i] = folder_file(names[i], "{}", 2);
        }
    }
    if (!size) return 0;
    folder_put(fd[before], "{}", 2);
    before = folder_kind(*data, 6);
    folder_put(fd[before], data + 1, size - 1);
    if (!run_data_read(&r, folder, &err)) abort();
    if (report_page(&page, &r, REPORT_FILE, &err)) {
        assert(!memmem(page.data, page.size, "<script", 7));
    } else {
        assert(*err.msg);
    }
    buf_free(&page);
    run_data_free(&r);
    return 0;
}
