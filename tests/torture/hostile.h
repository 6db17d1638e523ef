// tests/torture/hostile.h - for test_hostile.c: a folder of good files, makers that put a broken one in the place of
// one of them, and the real program run over it with its time and memory measured. Nothing here is copied from
// anywhere: every file is made on the spot.
#pragma once
#include "toy.h"

#include "base/crc32c.h"
#include "io/checkpoint.h"
#include "train/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// `make` puts what is broken at `target`, and `command` must refuse it in one line that names `file` and says
// `words`. The folder is as it was before when the next one's turn comes.
struct attack {
    const char *name;
    void (*make)(const char *target, const char *arg);
    const char *target, *arg, *command, *file, *words;
};

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__ // shadow memory and checks are not the program's own
enum { MOST_MEGABYTES = 3000, MOST_MILLISECONDS = 10000 };
#else
enum { MOST_MEGABYTES = 300, MOST_MILLISECONDS = 1000 };
#endif
enum { HANGS_AFTER = 60, NOBODY = 65534 }; // seconds; a user who may read nothing

static const char kept[] = "kept"; // where the good one waits

// ---- makers

static char *text_of(const char *path, size_t *size)
{
    char *text;
    struct error err = {0};
    check_ok(file_read(&text, size, path, (size_t)1 << 30, &err), &err);
    return text;
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0)
        fail_msg("%s: %s", path, strerror(errno));
}

static void put(const char *target, const char *text)
{
    write_bytes(target, text, strlen(text));
}

// '@' stands for a NUL byte.
static void put_nul(const char *target, const char *text)
{
    char *copy = mem_strdup(text);
    for (char *p = copy; *p; p++) {
        *p = *p == '@' ? 0 : *p;
    }
    write_bytes(target, copy, strlen(text));
    mem_free(copy);
}

// "BEFORE|UNIT|COUNT|AFTER": COUNT times UNIT between the two. buf_free.
static struct buf repeated(const char *arg)
{
    char *copy = mem_strdup(arg), *rest = copy, *part[4];
    struct buf b = {0};
    for (int i = 0; i < 4; i++) {
        part[i] = strsep(&rest, "|");
        assert_non_null(part[i]);
    }
    assert_true(buf_puts(&b, part[0]));
    for (long i = 0, count = atol(part[2]); i < count; i++) {
        assert_true(buf_puts(&b, part[1]));
    }
    assert_true(buf_puts(&b, part[3]));
    mem_free(copy);
    return b;
}

static void repeat(const char *target, const char *arg)
{
    struct buf b = repeated(arg);
    write_bytes(target, b.data, b.size);
    buf_free(&b);
}

// "FROM=>TO" in `n` bytes of text: the first FROM becomes TO. mem_free.
static char *replaced(const char *text, size_t n, const char *arg, size_t *size)
{
    const char *arrow = strstr(arg, "=>");
    assert_non_null(arrow);
    const size_t from = (size_t)(arrow - arg), to = strlen(arrow + 2);
    const char *at = memmem(text, n, arg, from);
    if (!at) fail_msg("nothing like %.*s to replace", (int)from, arg);
    char *out = mem_alloc(n + to + 1);
    const size_t before = (size_t)(at - text);
    memcpy(out, text, before);
    memcpy(out + before, arrow + 2, to);
    memcpy(out + before + to, at + from, n - before - from);
    *size = n - from + to;
    return out;
}

static void edit(const char *target, const char *arg)
{
    size_t n, size;
    char *text = text_of(kept, &n), *out = replaced(text, n, arg, &size);
    write_bytes(target, out, size);
    mem_free(text);
    mem_free(out);
}

// As `repeat`, for the long form alone: the parser is the same for all files, the writing takes its time.
static void bomb(const char *target, const char *arg)
{
    repeat(target, arg);
}

static void write_length(unsigned char *out, uint64_t n)
{
    for (int i = 0; i < 8; i++) {
        out[i] = (unsigned char)(n >> 8 * i);
    }
}

// A safetensors file of this header and `n` bytes of data.
static void write_tensors(const char *target, const char *header, size_t size, const char *data,
                          size_t n)
{
    char *all = mem_alloc(8 + size + n);
    write_length((unsigned char *)all, size);
    memcpy(all + 8, header, size);
    memcpy(all + 8 + size, data, n);
    write_bytes(target, all, 8 + size + n);
    mem_free(all);
}

// "HEADER|N": over N bytes that are 0. The header's '@' are NUL bytes.
static void tensors(const char *target, const char *arg)
{
    const char *bar = strrchr(arg, '|');
    const size_t size = (size_t)(bar - arg), n = (size_t)atol(bar + 1);
    char *data = mem_zalloc(n + 1, 1), *header = mem_strndup(arg, size);
    for (size_t i = 0; i < size; i++) {
        header[i] = header[i] == '@' ? 0 : header[i];
    }
    write_tensors(target, header, size, data, n);
    mem_free(header);
    mem_free(data);
}

// A header of a repeated text, over no data.
static void repeat_header(const char *target, const char *arg)
{
    struct buf b = repeated(arg);
    write_tensors(target, b.data, b.size, "", 0);
    buf_free(&b);
}

// "FROM=>TO" in the header of the good file; its data stay.
static void edit_header(const char *target, const char *arg)
{
    size_t n, size;
    char *all = text_of(kept, &n);
    uint64_t header = 0;
    memcpy(&header, all, sizeof header);
    char *text = replaced(all + 8, header, arg, &size);
    write_tensors(target, text, size, all + 8 + header, n - 8 - header);
    mem_free(text);
    mem_free(all);
}

static void header_bomb(const char *target, const char *arg) // for the long form alone
{
    repeat_header(target, arg);
}

// The good file under another length of its header.
static void claim_length(const char *target, const char *arg)
{
    size_t n;
    char *all = text_of(kept, &n);
    write_length((unsigned char *)all, strtoull(arg, NULL, 0));
    write_bytes(target, all, n);
    mem_free(all);
}

// The first N bytes of the good file; all but the last -N.
static void cut(const char *target, const char *arg)
{
    size_t n;
    char *all = text_of(kept, &n);
    const long bytes = atol(arg);
    write_bytes(target, all, bytes < 0 ? n - (size_t)-bytes : (size_t)bytes);
    mem_free(all);
}

static void append(const char *target, const char *arg)
{
    size_t n;
    char *all = text_of(kept, &n);
    struct buf b = {0};
    assert_true(buf_append(&b, all, n) && buf_puts(&b, arg));
    write_bytes(target, b.data, b.size);
    buf_free(&b);
    mem_free(all);
}

// So many bytes, of which the disk holds none.
static void hole(const char *target, const char *bytes)
{
    const int fd = open(target, O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_true(fd >= 0 && ftruncate(fd, atoll(bytes)) == 0 && close(fd) == 0);
}

static void link_to(const char *target, const char *to)
{
    assert_int_equal(symlink(to, target), 0);
}

static void fifo(const char *target, const char *unused)
{
    (void)unused;
    assert_int_equal(mkfifo(target, 0644), 0);
}

static void folder(const char *target, const char *unused)
{
    (void)unused;
    assert_int_equal(mkdir(target, 0755), 0);
}

static void gone(const char *target, const char *unused)
{
    (void)target;
    (void)unused;
}

// The good file, which its owner alone may read; the program runs as somebody else (run_program).
static void locked(const char *target, const char *unused)
{
    (void)unused;
    struct error err = {0};
    check_ok(file_copy(target, kept, &err), &err);
    assert_int_equal(chmod(target, 0), 0);
}

// Bytes in the middle of the tensor `name`: "NAME=HEX".
static void poison(const char *target, const char *arg)
{
    char name[256];
    unsigned bits;
    struct error err = {0};
    struct safetensors st;
    assert_int_equal(sscanf(arg, "%255[^=]=%x", name, &bits), 2);
    check_ok(file_copy(target, kept, &err), &err);
    check_ok(safetensors_open(&st, target, &err), &err);
    const struct st_entry *e = safetensors_find(&st, name);
    if (!e) fail_msg("no tensor %s", name);
    const size_t size = dtype_size(e->tensor.dtype);
    const long at = (long)(st.header_size + e->begin + (e->end - e->begin) / size / 2 * size);
    safetensors_close(&st);
    FILE *f = fopen(target, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    assert_int_equal(fwrite(&bits, size, 1, f), 1);
    fclose(f);
}

// "FILE: FROM=>TO" in a checkpoint's folder, with a manifest that vouches for it: not a damaged checkpoint but one
// that was made to harm.
static void forge(const char *target, const char *arg)
{
    char name[256], from[2048], to[2048];
    struct error err = {0};
    struct dir_names names;
    struct manifest m;
    struct buf text = {0};
    size_t n, size;
    const char *change = strstr(arg, ": ");
    snprintf(name, sizeof name, "%.*s", (int)(change - arg), arg);
    check_ok(dir_make(target, &err) && dir_list(&names, kept, &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        snprintf(from, sizeof from, "%s/%s", kept, names.name[i]);
        snprintf(to, sizeof to, "%s/%s", target, names.name[i]);
        check_ok(file_copy(to, from, &err), &err);
    }
    dir_names_free(&names);
    snprintf(from, sizeof from, "%s/%s", kept, name);
    snprintf(to, sizeof to, "%s/%s", target, name);
    char *good = text_of(from, &n), *bad = replaced(good, n, change + 2, &size);
    write_bytes(to, bad, size);
    snprintf(from, sizeof from, "%s/manifest.json", kept);
    char *list = text_of(from, &n);
    check_ok(manifest_parse(&m, list, n, "manifest.json", &err), &err);
    struct manifest_file *f = (struct manifest_file *)(uintptr_t)manifest_find(&m, name);
    if (f) f->size = (int64_t)size, f->crc = crc32c(0, bad, size);
    assert_true(manifest_text(&m, &text));
    snprintf(to, sizeof to, "%s/manifest.json", target);
    if (f) write_bytes(to, text.data, text.size);
    manifest_free(&m);
    buf_free(&text);
    mem_free(list);
    mem_free(good);
    mem_free(bad);
}

// ---- the program

struct outcome {
    int status; // -1: ended by a signal
    int signal;
    double cpu, wall; // seconds
    double megabytes; // most resident
    char said[8192];  // on stderr
};

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// In the child: never comes back. `command`: words between spaces.
static void become(const char *command, bool as_nobody)
{
    char *word[64] = {(char[]){MOETUNE}}, text[2048];
    int n = 1;
    snprintf(text, sizeof text, "%s", command);
    for (char *p = strtok(text, " "); p && n < 63; p = strtok(NULL, " ")) {
        word[n++] = p;
    }
    word[n] = NULL;
    const int fresh = O_WRONLY | O_CREAT | O_TRUNC, in = open("/dev/null", O_RDONLY);
    const int out = open("stdout", fresh, 0666), err = open("stderr", fresh, 0666);
    if (in < 0 || out < 0 || err < 0) _exit(125);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(125);
    if (as_nobody && geteuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) _exit(125);
    alarm(HANGS_AFTER); // kept over exec: what hangs ends by SIGALRM
    execv(MOETUNE, word);
    _exit(125);
}

static struct outcome run_program(const char *command, bool as_nobody)
{
    struct outcome o = {.status = -1};
    struct rusage used;
    int status;
    const double begin = now();
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) become(command, as_nobody);
    assert_int_equal(wait4(pid, &status, 0, &used), pid);
    o.wall = now() - begin;
    o.cpu = seconds(used.ru_utime) + seconds(used.ru_stime);
    o.megabytes = (double)used.ru_maxrss / 1024;
    if (WIFEXITED(status)) o.status = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) o.signal = WTERMSIG(status);
    FILE *f = fopen("stderr", "rb");
    assert_non_null(f);
    o.said[fread(o.said, 1, sizeof o.said - 1, f)] = 0;
    fclose(f);
    return o;
}

// The one line of error, which comes last; NULL: there is none, or more than warnings before it.
static const char *error_line(const char *said, const char *command)
{
    char begin[64];
    snprintf(begin, sizeof begin, "moetune %.*s: ", (int)strcspn(command, " "), command);
    const char *line = said;
    for (const char *end; (end = strchr(line, '\n')) && end[1]; line = end + 1) {
        if (strncmp(line, "moetune: warning: ", 18) != 0) return NULL;
    }
    return strncmp(line, begin, strlen(begin)) ? NULL : line;
}
