// cli/cmd_bench.c - how fast a step is, beside the best matrix rate of the machine. Every measurement is
// made in a child process; this one only watches their memory and never computes, so that a child of
// it starts clean.
#include "base/file.h"
#include "base/mem.h"
#include "cli/bench_child.h"
#include "cli/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 2, SAMPLE_MS = 5 };

struct combination {
    const char *routing, *tuning;
    bool telemetry;
    double seconds[ROUNDS * BENCH_STEPS], forward_flops, load_seconds;
    int64_t peak; // bytes
    int64_t device_peak, device_plan;
};

struct bench {
    struct options *o;
    struct output *io;
    char folder[4096], made[4200]; // the temporary folder and its model
    const char *model;
    struct combination *of;
    int64_t count;
    double gflops;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    stopped = number;
}

// RssAnon + VmSwap of a process, in bytes; 0 when it is gone.
static int64_t private_bytes(pid_t pid)
{
    char path[64], line[256];
    int64_t total = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "RssAnon:", 8) != 0 && strncmp(line, "VmSwap:", 7) != 0) continue;
        total += strtoll(strchr(line, ':') + 1, NULL, 10) * 1024;
    }
    fclose(f);
    return total;
}

static void write_all(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n) {
        const ssize_t put = write(fd, p, n);
        if (put <= 0) return;
        p += put;
        n -= (size_t)put;
    }
}

static pid_t start_child(int *fd, const struct bench_job *job, struct error *err)
{
    int ends[2];
    if (pipe(ends) != 0) {
        fail(err, "cannot make a pipe: %s", strerror(errno));
        return -1;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        struct bench_result result;
        prctl(PR_SET_PDEATHSIG, SIGKILL); // nothing is left behind
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        close(ends[0]);
        bench_measure(&result, job);
        write_all(ends[1], &result, sizeof result);
        _exit(0);
    }
    close(ends[1]);
    *fd = ends[0];
    if (pid > 0) return pid;
    close(ends[0]);
    fail(err, "cannot start a process: %s", strerror(errno));
    return -1;
}

// Reads the child's result while its memory is watched.
static bool watch_child(struct bench_result *result, int64_t *peak, pid_t pid, int fd)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const int ready = poll(&p, 1, SAMPLE_MS);
        const int64_t bytes = private_bytes(pid);
        if (bytes > *peak) *peak = bytes;
        if (stopped) return false;
        if (ready <= 0) continue;
        const ssize_t got = read(fd, (char *)result + n, sizeof *result - n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return n == sizeof *result;
        n += (size_t)got;
    }
}

static bool run_child(struct bench_result *result, int64_t *peak, const struct bench_job *job,
                      struct error *err)
{
    int fd, status = 0;
    const pid_t pid = start_child(&fd, job, err);
    if (pid < 0) return false;
    const bool whole = watch_child(result, peak, pid, fd);
    if (!whole) kill(pid, SIGKILL);
    close(fd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (stopped) return fail(err, "stopped by a signal");
    if (whole && result->ok) return true;
    if (whole) return fail(err, "%s", result->err.msg);
    return fail(err, "the measuring process ended by signal %d; out of memory?",
                WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *x, int n)
{
    double sorted[ROUNDS * BENCH_STEPS];
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static bool report(const struct bench *b, const struct combination *c, struct error *err)
{
    const double seconds = median(c->seconds, ROUNDS * BENCH_STEPS);
    const double rate = (double)b->o->config.tokens / seconds;
    const double share = 3 * c->forward_flops / seconds / (b->gflops * 1e9);
    char bytes[32];
    fprintf(
        b->io->people,
        "%-12s %-6s%s %8.3f s a step, %8.1f tokens/s, %5.3f of the best product (%.0f GFLOP/s), "
        "%s private",
        c->routing, c->tuning, c->telemetry ? "" : " (no telemetry)", seconds, rate, share,
        b->gflops, format_bytes(bytes, (uint64_t)c->peak));
    if (c->device_plan) {
        fprintf(b->io->people, ", %s", format_bytes(bytes, (uint64_t)c->device_peak));
        fprintf(b->io->people, " on the device, plan %s",
                format_bytes(bytes, (uint64_t)c->device_plan));
    }
    fputc('\n', b->io->people);
    if (!b->io->json) return true;
    json_t *j = json_object();
    json_object_set_new(j, "routing", json_string(c->routing));
    json_object_set_new(j, "tuning", json_string(c->tuning));
    json_object_set_new(j, "telemetry", json_boolean(c->telemetry));
    json_object_set_new(j, "tokens_per_second", json_real(rate));
    json_object_set_new(j, "step_seconds", json_real(seconds));
    json_object_set_new(j, "model_gflops", json_real(3e-9 * c->forward_flops / seconds));
    json_object_set_new(j, "best_matmul_gflops", json_real(b->gflops));
    json_object_set_new(j, "share_of_best", json_real(share));
    json_object_set_new(j, "load_seconds", json_real(c->load_seconds));
    json_object_set_new(j, "peak_private_bytes", json_integer(c->peak));
    if (c->device_plan) {
        json_object_set_new(j, "peak_device_bytes", json_integer(c->device_peak));
        json_object_set_new(j, "plan_device_bytes", json_integer(c->device_plan));
    }
    return output_json(b->io, j, err);
}

static bool list_combinations(struct bench *b, struct error *err)
{
    const struct texts *r = &b->o->config.routings, *t = &b->o->config.tunings;
    const int telemetry = b->o->config.telemetry;
    b->of = mem_zalloc((size_t)(r->count * t->count), 2 * sizeof *b->of);
    if (!b->of) return fail(err, "no memory for the combinations");
    for (int64_t i = 0; i < r->count; i++) {
        for (int64_t j = 0; j < t->count; j++) {
            const struct combination c = {.routing = r->item[i], .tuning = t->item[j]};
            if (telemetry != TELEMETRY_OFF) {
                b->of[b->count] = c;
                b->of[b->count++].telemetry = true;
            }
            if (telemetry != TELEMETRY_ON) b->of[b->count++] = c;
        }
    }
    return true;
}

static bool make_model(struct bench *b, struct error *err)
{
    const char *base = getenv("TMPDIR");
    b->model = b->o->config.model ? b->o->config.model : b->made;
    if (b->o->config.model) return true;
    snprintf(b->folder, sizeof b->folder, "%s/moetune-bench-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(b->folder)) {
        fail(err, "%s: cannot create: %s", b->folder, strerror(errno));
        b->folder[0] = 0;
        return false;
    }
    struct bench_result result;
    int64_t unused = 0;
    const struct bench_job job = {.task = BENCH_INIT, .options = b->o, .model = b->model};
    return path_join(b->made, sizeof b->made, b->folder, "model", err) &&
           run_child(&result, &unused, &job, err);
}

static bool measure(struct bench *b, struct error *err)
{
    struct bench_result result;
    int64_t unused = 0;
    const struct bench_job products = {.task = BENCH_PRODUCTS, .options = b->o};
    if (!run_child(&result, &unused, &products, err)) return false;
    b->gflops = result.gflops;
    for (int round = 0; round < ROUNDS; round++) {
        for (int64_t i = 0; i < b->count; i++) {
            struct combination *c = &b->of[i];
            const struct bench_job job = {BENCH_TRAINING, b->o,      b->model,
                                          c->routing,     c->tuning, c->telemetry};
            if (!b->io->quiet) {
                fprintf(b->io->status, "round %d of %d: %s, %s%s\n", round + 1, ROUNDS, c->routing,
                        c->tuning, c->telemetry ? "" : ", no telemetry");
            }
            if (!run_child(&result, &c->peak, &job, err)) {
                return fail_in(err, "%s, %s", c->routing, c->tuning);
            }
            memcpy(c->seconds + round * BENCH_STEPS, result.seconds, sizeof result.seconds);
            c->forward_flops = result.forward_flops;
            c->load_seconds = result.load_seconds;
            if (result.device_peak > c->device_peak) c->device_peak = result.device_peak;
            c->device_plan = result.device_plan;
        }
    }
    return true;
}

enum status command_bench(struct options *o, struct output *io, struct error *err)
{
    struct bench b = {.o = o, .io = io};
    if (!o->config.config == !o->config.model) {
        fail(err, "bench needs --config or --model, one of them");
        return STATUS_USAGE;
    }
    const struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    fflush(NULL); // a child must not write again what waits in a buffer
    bool ok = list_combinations(&b, err) && make_model(&b, err) && measure(&b, err);
    for (int64_t i = 0; ok && i < b.count; i++) {
        ok = report(&b, &b.of[i], err);
    }
    if (*b.folder) dir_remove(b.folder, NULL);
    mem_free(b.of);
    if (ok) return STATUS_DONE;
    return stopped ? STATUS_STOPPED : STATUS_FAILED;
}
