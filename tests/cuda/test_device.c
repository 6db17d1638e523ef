// tests/cuda/test_device.c - opening the device, what it refuses, and what happens when it fails in the middle of a
// run. Over the emulated device alone: a real one cannot be made to lack a driver.
#include "../cli/pairs.h"
#include "device.h"

#include "cli/bench_child.h"

#include <sys/wait.h>
#include <unistd.h>

#ifdef EMULATED
enum { GIB_BYTES = 1 << 30 };

static void refuses(const char *needle)
{
    struct error err = {""};
    check_error(cuda_open(&err) != NULL, &err, needle);
    assert_null(strchr(err.msg, '\n'));
}

// Before anything opened it.
static void what_is_not_there_is_named(void **state)
{
    (void)state;
    emulate_set_device(0, 90, GIB_BYTES, 0);
    refuses("no NVIDIA driver found");
    emulate_set_device(1, 90, GIB_BYTES, 12040);
    refuses("supports CUDA 12.4, at least 13.0 expected");
    emulate_set_device(0, 90, GIB_BYTES, 13000);
    refuses("no NVIDIA GPU found");
    emulate_set_device(1, 75, GIB_BYTES, 13000);
    refuses("compute capability 7.5, at least 8.0 expected");
    emulate_set_device(1, 100, GIB_BYTES, 13000);
    refuses("compute capability 10.0; this build has code for 8.0, 9.0");
}

// What check() says after `run`, in a process of its own: a device that failed once stays so.
static void fails_with(void (*run)(void), const char *needle, const char *other)
{
    struct error err = {""};
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    if (!pid) {
        emulate_set_device(1, 86, GIB_BYTES, 13000);
        if (device_open()) run();
        device->check(&err);
        _exit(write(ends[1], &err, sizeof err) != sizeof err);
    }
    assert_int_equal(read(ends[0], &err, sizeof err), sizeof err);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    check_error(false, &err, needle);
    check_error(false, &err, other);
    assert_null(strchr(err.msg, '\n'));
    close(ends[0]);
    close(ends[1]);
}

static struct tensor zeros(enum dtype t, int64_t rows, int64_t cols)
{
    struct tensor x = tensor_2d(NULL, t, rows, cols);
    x.data = device->allocate(tensor_bytes(x));
    return x;
}

static void refused_launch(void)
{
    const struct tensor x = zeros(DTYPE_F32, 2, 3);
    emulate_refuse_at(0);
    device->fill(x, 1);
    device->zero(x); // what comes after it does not hide it
}

static void lost_in_a_kernel(void)
{
    const struct tensor x = zeros(DTYPE_F32, 2, 3);
    emulate_fail_at(0);
    device->scale(x, 2);
}

static void too_much_shared_memory(void)
{
    const struct tensor x = zeros(DTYPE_BF16, 4, 256), span = zeros(DTYPE_I32, 4, 2);
    device->attention_forward(x, tensor_absent(), x, x, x, span, 256, 1);
}

static void a_launch_is_named(void **state)
{
    (void)state;
    fails_with(refused_launch, "emulated: fill: elementwise.cu:",
               "launch of fill failed: too many resources requested for launch");
    fails_with(lost_in_a_kernel, "emulated: scale: elementwise.cu:",
               "unspecified launch failure; maybe of a kernel before it");
    fails_with(too_much_shared_memory, "attention_forward: attention.cu:",
               "needs 129 KB of shared memory for a block; the device has 99 KB");
}

static int64_t launches_at[3],
    waits_at[3]; // of the last run, when each step is over and not yet saved

static void stepped(void *user, const struct train_step *s)
{
    (void)user;
    launches_at[s->step - 1] = emulate_launches();
    waits_at[s->step - 1] = emulate_waits();
}

static bool train(const char *out, const char *more, struct error *err)
{
    struct job job;
    struct options o;
    struct train_result r;
    char line[1024];
    snprintf(
        line, sizeof line,
        "--model base --data base/data.jsonl --out %s --dtype f32 --batch-tokens 60 --max-steps 3 "
        "--lr 1e-3 --save-every 1 --threads 1 --device cuda %s",
        out, more);
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, err), err);
    const struct train_listener listener = {.step = stepped};
    bool ok = job_open(&job, &o, out, &listener, err);
    if (ok) {
        ok = trainer_run(job.trainer, &r, err);
        job_close(&job);
    }
    options_close(&o);
    return ok;
}

// As nothing else has run on the device before it.
static void bench_says_what_the_device_held(void **state)
{
    (void)state;
    struct options o;
    struct bench_result r;
    struct error err = {""};
    const int64_t scratch = (int64_t)512 << 20;
    emulate_set_device(1, 90, GIB_BYTES, 13000);
    const char *line =
        "--config base/config.json --tokens 40 --dtype f32 --device cuda --threads 1";
    check_ok(pairs_options(&o, COMMAND_BENCH, line, &err), &err);
    const struct bench_job job = {BENCH_TRAINING, &o, "base", "topk", "full", true};
    bench_measure(&r, &job);
    check_ok(r.ok, &r.err);
    assert_true(r.device_peak <= r.device_plan);
    assert_true(r.device_peak > r.device_plan - scratch && r.device_plan > scratch);
    options_close(&o);
}

static void too_little_memory_is_said_before_the_load(void **state)
{
    (void)state;
    struct error err = {""};
    emulate_set_device(1, 90, (size_t)600 << 20, 13000);
    assert_true(device_open());
    check_ok(train("fits", "", &err), &err);
    emulate_set_device(1, 90, (size_t)512 << 20, 13000);
    const int64_t launches = emulate_launches();
    check_error(train("none", "", &err), &err, "device cuda: the model needs");
    assert_non_null(strstr(err.msg, "weights"));
    assert_int_equal(emulate_launches(), launches);
    emulate_set_device(1, 90, (size_t)8 << 30, 13000);
}

// Memory has grown by then. The norm, the loss, and what metrics.jsonl gathers: never a micro-batch.
static void a_step_waits_as_often_whatever_it_holds(void **state)
{
    static const char *const routing[] = {"topk", "aux", "bias", "densemixer"};
    (void)state;
    struct error err = {""};
    for (int i = 0; i < 4; i++) {
        int64_t waits[2];
        for (int many = 0; many < 2; many++) {
            char more[128];
            snprintf(more, sizeof more, "--routing %s --accumulate %d --save-every 0 --overwrite",
                     routing[i], many ? 3 : 1);
            check_ok(train("waits", more, &err), &err);
            waits[many] = waits_at[2] - waits_at[1];
        }
        assert_int_equal(waits[0], waits[1]);
        assert_in_range(waits[0], 1,
                        i ? 12 : 3); // a bias and its telemetry lie apart in each layer
    }
}

// The run ends with one line, and goes on from its newest checkpoint, on a CPU here.
static void a_lost_device_keeps_the_last_checkpoint(void **state)
{
    (void)state;
    struct error err = {""};
    const int64_t before = emulate_launches();
    check_ok(train("straight", "", &err), &err);
    emulate_fail_at(launches_at[1] + 2 - before); // what step 2 left is looked at, to be saved
    assert_false(train("lost", "", &err));
    assert_non_null(strstr(err.msg, "emulated: "));
    assert_non_null(strstr(err.msg, "failed: unspecified launch failure"));
    assert_null(strchr(err.msg, '\n'));
    assert_true(file_exists("lost/checkpoint-1"));
    assert_false(file_exists("lost/checkpoint-2") || file_exists("lost/checkpoint-3"));
    check_ok(train("lost", "--resume --device cpu", &err), &err);
    assert_true(file_exists("lost/model"));
}

int main(void)
{
    struct toy t;
    cpu_configure(1, CPU_PRODUCTS_F32);
    toy_open(&t);
    pairs_write_data(&t);
    assert_int_equal(chdir(toy_path(t.base, "..")), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_there_is_named),
        cmocka_unit_test(a_launch_is_named),
        cmocka_unit_test(bench_says_what_the_device_held),
        cmocka_unit_test(too_little_memory_is_said_before_the_load),
        cmocka_unit_test(a_step_waits_as_often_whatever_it_holds),
        cmocka_unit_test(a_lost_device_keeps_the_last_checkpoint),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    toy_close(&t);
    return failed;
}
#else
int main(void)
{
    printf("skipped: only an emulated device can lack what is asked for here\n");
    return SKIP;
}
#endif
