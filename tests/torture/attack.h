// tests/torture/attack.h - the program itself, run in a child of the test with a fault in one of its calls, and
// what must hold of it afterwards: an exit and no signal, one line that says why, nothing left behind.
#pragma once
#include "toy.h"

#include "form.h"
#include "interpose.h"

#define main moetune_main
#define print_error print_program_error // cmocka has one
int moetune_main(int argc, char **argv);
#include "cli/main.c"
#undef main
#undef print_error

#include "base/log.h"

#include <execinfo.h>
#include <sys/wait.h>
#include <time.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

enum { ATTEMPT_SECONDS = 20, KINDS_KEPT = 1 << 16, KEPT = 64 };

struct attempt {
    int status; // of the program; -1: a signal ended it
    int signal;
    int64_t made;    // calls of the kind that is counted
    enum call hit;   // what failed
    char said[8192]; // on standard error
    char caller[256], leak[512];
};

// What the child leaves for the test, in memory that both see.
static struct {
    int64_t made;
    enum call hit;
    char caller[256], leak[512];
    unsigned char kinds[KINDS_KEPT];
    const void *kept[KEPT]; // allocations of these places last as long as the program
} * report;

static inline void attack_open(void)
{
    report = (void *)syscall(SYS_mmap, NULL, sizeof *report, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(report != MAP_FAILED);
}

// Where an address lies: "library+offset", for addr2line.
static inline void describe_address(char *out, size_t size, const void *p)
{
    Dl_info info = {0};
    if (!p || !dladdr(p, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');
    snprintf(out, size, "%s+0x%lx", slash ? slash + 1 : info.dli_fname,
             (unsigned long)((const char *)p - (const char *)info.dli_fbase));
}

// What libraries keep for as long as the program lives is no leak (OpenMP's teams, oneDNN's kernels), and neither
// is what a run without a fault keeps at these places (a table of products, the time zone).
static inline bool kept_for_life(const void *caller, bool learn)
{
    Dl_info info = {0};
    if (!dladdr(caller, &info) || !info.dli_fname) return false;
    if (strstr(info.dli_fname, "libgomp") || strstr(info.dli_fname, "libdnnl") ||
        strstr(info.dli_fname, "libstdc++")) {
        return true;
    }
    int i = 0;
    while (i < KEPT - 1 && report->kept[i] && report->kept[i] != caller) {
        i++;
    }
    if (learn) report->kept[i] = caller;
    return report->kept[i] == caller;
}

static inline void find_leaks(char *out, size_t size, bool learn)
{
#ifdef __SANITIZE_ADDRESS__
    (void)learn;
    if (__lsan_do_recoverable_leak_check()) snprintf(out, size, "places that ASan names");
#else
    for (int64_t i = 0; i < HELD; i++) {
        if (!held[i].p || held[i].p == &gone || kept_for_life(held[i].caller, learn)) continue;
        const size_t used = strlen(out);
        if (used + 128 > size) break;
        describe_address(out + used, 126, held[i].caller);
        strcat(out, " ");
    }
#endif
}

// A library that ends the program must not run what the test itself does at its end.
static void leave(int status, void *unused)
{
    (void)unused;
    _exit(status);
}

static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, 0};

// With FAULT_TRACE set, where it was.
static void show_crash(int number)
{
    void *at[40];
    backtrace_symbols_fd(at, backtrace(at, 40), STDERR_FILENO);
    signal(number, SIG_DFL);
    raise(number);
}

static inline void child(const char *line, const char *from, int64_t at, bool for_ever)
{
    static char text[4096], out_buffer[BUFSIZ], *argv[128] = {"moetune"};
    int argc = 1;
    const int out = open("stdout", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int err = open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int in = open(from ? from : "/dev/null", O_RDONLY);
    if (out < 0 || err < 0 || in < 0) _exit(90);
    if (dup2(out, 1) < 0 || dup2(err, 2) < 0 || dup2(in, 0) < 0) _exit(91);
    close(out), close(err), close(in);
    clearerr(stdout);
    setvbuf(stdout, out_buffer, _IOFBF, sizeof out_buffer);
    snprintf(text, sizeof text, "%s", line);
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " ")) {
        argv[argc++] = p;
    }
    on_exit(leave, NULL);
    for (int i = 0; crashes[i]; i++) { // cmocka would take them for its own
        signal(crashes[i], getenv("FAULT_TRACE") ? show_crash : SIG_DFL);
    }
    alarm(ATTEMPT_SECONDS); // a hang ends by a signal
    faults.kinds = at ? NULL : report->kinds;
    faults.kinds_at_most = KINDS_KEPT;
    faults.made = 0;
    faults.at = at;
    faults.for_ever = for_ever;
    faults.armed = true;
    const int status = moetune_main(argc, argv);
    faults.armed = false;
    report->made = faults.made;
    report->hit = faults.hit;
    describe_address(report->caller, sizeof report->caller, faults.caller);
    find_leaks(report->leak, sizeof report->leak, at == 0);
    fflush(stderr);
    _exit(status);
}

// Runs `moetune LINE`; its call number `at` fails (0: none does) as `faults` says. `from`: its standard input.
static inline void attempt_from(struct attempt *a, const char *line, const char *from, int64_t at,
                                bool for_ever)
{
    *a = (struct attempt){.status = -1};
    report->made = 0;
    report->hit = CALL_NONE;
    report->leak[0] = report->caller[0] = 0;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) child(line, from, at, for_ever);
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        assert_int_equal(errno, EINTR);
    }
    if (WIFEXITED(status)) a->status = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) a->signal = WTERMSIG(status);
    a->made = report->made;
    a->hit = report->hit;
    memcpy(a->caller, report->caller, sizeof a->caller);
    memcpy(a->leak, report->leak, sizeof a->leak);
    FILE *f = fopen("stderr", "r");
    assert_non_null(f);
    a->said[fread(a->said, 1, sizeof a->said - 1, f)] = 0;
    fclose(f);
}

static inline void attempt(struct attempt *a, const char *line, int64_t at, bool for_ever)
{
    attempt_from(a, line, NULL, at, for_ever);
}

// One line that is no warning, and it is the last. OpenMP ends a program itself where it has no memory for a team
// of threads, with a line of its own after an empty one.
static inline bool one_line_says_why(const char *said)
{
    static const char openmp[] = "\nlibgomp: Out of memory allocating ";
    if (!strncmp(said, openmp, sizeof openmp - 1)) said++;
    static const char warning[] = "moetune: warning: ";
    int64_t errors = 0;
    for (const char *p = said, *end; *p; p = end + 1) {
        if (!(end = strchr(p, '\n'))) return false;
        if (errors || end == p) return false;
        errors += strncmp(p, warning, sizeof warning - 1) != 0;
        if (!end[1]) break;
    }
    return errors == 1;
}

// ---- folders

static inline void copy_folder(const char *to, const char *from)
{
    struct dir_names names;
    struct error err = {0};
    check_ok(dir_make(to, &err), &err);
    check_ok(dir_list(&names, from, &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        char a[2048], b[2048];
        struct stat st;
        check_ok(path_join(a, sizeof a, to, names.name[i], &err) &&
                     path_join(b, sizeof b, from, names.name[i], &err),
                 &err);
        assert_int_equal(lstat(b, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            copy_folder(a, b);
        } else {
            check_ok(file_copy(a, b, &err), &err);
        }
    }
    dir_names_free(&names);
}

static inline void copy_file(const char *to, const char *from)
{
    struct error err = {0};
    check_ok(file_copy(to, from, &err), &err);
}

// Its times aside, which no two runs share.
static inline char *without_times(char *text)
{
    static const char *const times[] = {"\"tokens_per_second\":", "\"seconds\":"};
    for (int i = 0; i < 2; i++) {
        for (char *p = strstr(text, times[i]); p; p = strstr(p + 1, times[i])) {
            char *number = p + strlen(times[i]);
            memmove(number, number + strcspn(number, ",}"),
                    strlen(number + strcspn(number, ",}")) + 1);
        }
    }
    return text;
}

// What says when a run was, and pages for people (which a run warns of and goes without), are not compared.
static inline bool is_compared(const char *name)
{
    static const char *const not [] = {"result.json", "report.html", ".lock",
                                       "run.json",    "plan.json",   NULL};
    for (int i = 0; not [i]; i++) {
        if (!strcmp(not [i], name)) return false;
    }
    return true;
}

static inline bool list_compared(struct dir_names *names, const char *dir, struct error *err)
{
    int64_t kept = 0;
    if (!dir_list(names, dir, err)) return false;
    for (int64_t i = 0; i < names->count; i++) {
        if (is_compared(names->name[i])) {
            names->name[kept++] = names->name[i];
        } else {
            mem_free(names->name[i]);
        }
    }
    names->count = kept;
    return true;
}

static inline bool same_file(const char *a, const char *b)
{
    struct error err;
    char *x, *y;
    size_t n, m;
    if (!file_read(&x, &n, a, 1 << 28, &err)) return false;
    if (!file_read(&y, &m, b, 1 << 28, &err)) {
        mem_free(x);
        return false;
    }
    const bool metrics = strstr(a, "metrics.jsonl") != NULL;
    const bool same =
        metrics ? !strcmp(without_times(x), without_times(y)) : n == m && !memcmp(x, y, n);
    mem_free(x);
    mem_free(y);
    return same;
}

// "" or what differs between two folders.
static inline const char *difference(const char *a, const char *b)
{
    static char what[8192];
    struct dir_names names = {0}, others = {0};
    struct error err = {0};
    *what = 0;
    if (!list_compared(&names, a, &err) || !list_compared(&others, b, &err)) {
        snprintf(what, sizeof what, "%s", err.msg);
    } else if (names.count != others.count) {
        snprintf(what, sizeof what, "%s: %d files, %d in %s", a, (int)names.count,
                 (int)others.count, b);
    }
    for (int64_t i = 0; !*what && i < names.count; i++) {
        char x[2048], y[2048];
        struct stat st;
        check_ok(path_join(x, sizeof x, a, names.name[i], &err) &&
                     path_join(y, sizeof y, b, names.name[i], &err),
                 &err);
        if (lstat(x, &st) == 0 && S_ISDIR(st.st_mode)) {
            difference(x, y);
        } else if (!same_file(x, y)) {
            snprintf(what, sizeof what, "%s differs from %s", x, y);
        }
    }
    dir_names_free(&names);
    dir_names_free(&others);
    return what;
}

static inline bool has_checkpoint(const char *out)
{
    struct dir_names names;
    bool found = false;
    if (!dir_list(&names, out, NULL)) return false;
    for (int64_t i = 0; i < names.count; i++) {
        found |= !strncmp(names.name[i], "checkpoint-", 11) && !strchr(names.name[i], '.');
    }
    dir_names_free(&names);
    return found;
}

// The first of the toy's examples as a file of ids, data.jsonl beside its folder.
static inline void write_data(const struct toy *t)
{
    struct buf b = {0};
    struct error err = {0};
    for (int64_t i = 0; i < 12; i++) {
        const struct example *x = &t->data.example[i];
        for (int part = 0; part < 2; part++) {
            buf_puts(&b, part ? "], \"labels\": [" : "{\"input_ids\": [");
            for (int64_t at = x->first; at < x->first + x->count; at++) {
                const int id = part && !t->data.learn[at] ? -100 : (int)t->data.id[at];
                buf_printf(&b, "%s%d", at > x->first ? ", " : "", id);
            }
        }
        buf_puts(&b, "]}\n");
    }
    check_ok(file_write(toy_path(t->base, "../data.jsonl"), b.data, b.size, &err), &err);
    buf_free(&b);
}

static inline void write_text(const char *path, const char *text)
{
    struct error err = {0};
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

// The kernels that oneDNN makes at the first product of each kind, in tens of thousands of allocations: here, once
// for all attempts. They are never made with a fault: it crashes, and ops/cpu/product.c sees to it that there is
// memory for them.
static inline void warm_up(enum cpu_products products)
{
    float x[64] = {0}, y[64], w[64] = {0};
    void *data[] = {w};
    const struct matrices one = {
        .data = data, .dtype = DTYPE_F32, .groups = 1, .rows = 8, .cols = 8};
    cpu_configure(1, products);
    cpu_ops.bf16_activations();
    cpu_ops.matmul_dinput(tensor_2d(y, DTYPE_F32, 8, 8), tensor_2d(x, DTYPE_F32, 8, 8), &one,
                          tensor_absent(), false);
}
