// tests/fuzz/fuzz_report.c - a metrics.jsonl of any bytes, read whole and in two pieces, and the page of it.
#include "eval/report.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(int fd, const uint8_t *data, size_t size)
{
    assert(ftruncate(fd, 0) == 0);
    assert(pwrite(fd, data, size, 0) == (ssize_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct error err;
    struct buf page = {0};
    struct run_data r = {.state = RUN_LOST};
    const int fd = memfd_create("metrics.jsonl", 0);
    if (fd < 0) return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    put(fd, data, size / 2);
    bool ok = run_metrics_read(&r.metrics, path, &err);
    put(fd, data, size);
    ok = ok && run_metrics_read(&r.metrics, path, &err);
    if (ok && report_page(&page, &r, REPORT_FILE, &err)) {
        assert(!memmem(page.data, page.size, "<script", 7));
        buf_free(&page);
        assert(report_csv(&page, &r, &err));
    }
    buf_free(&page);
    run_data_free(&r);
    close(fd);
    return 0;
}
