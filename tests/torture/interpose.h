// tests/torture/interpose.h - the C library's allocations and system calls, made to fail when a test says so.
// To be included by one file of a program: what it defines stands before the library's own for the program and
// for every library that it loads. Beside ASan its allocator stays below; operator new is then its own.
//
// Calls are counted while `faults.armed`. fsync is counted and not made: no test of this file cuts the power.
#pragma once
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INTERPOSED __attribute__((visibility("default"), noinline))

enum call {
    CALL_NONE,
    CALL_ALLOCATE,
    CALL_OPEN,
    CALL_CLOSE,        // of what was opened for reading
    CALL_CLOSE_WRITER, // of what was opened for writing
    CALL_READ,
    CALL_WRITE,
    CALL_FSYNC,
    CALL_FTRUNCATE,
    CALL_STAT,
    CALL_MAP,
    CALL_UNMAP,
    CALL_RENAME,
    CALL_UNLINK, // and rmdir
    CALL_MKDIR,
    CALL_LOCK,
    CALL_OPENDIR,
    CALL_READDIR,
    CALL_STATVFS,
    CALL_KINDS
};

// What happens to a call instead of its work. FAULT_SHORT does half of it, FAULT_NOTHING none of it and says 0.
enum fault_kind { FAULT_ERROR, FAULT_SHORT, FAULT_NOTHING };

static struct {
    bool armed;
    bool of_allocations;  // else of all other calls
    _Atomic int64_t made; // so many so far
    int64_t at;           // the call that fails; 0: none
    bool for_ever;        // and the later ones of its kind, too
    enum fault_kind kind;
    int error;
    enum call hit;         // the kind of the call that failed
    unsigned char *kinds;  // of each call, from 1 on; NULL: not kept
    int64_t kinds_at_most; // elements there
    const void *caller;    // of the allocation that failed
} faults;

static _Thread_local bool paused;

static inline bool fault_now(enum call kind)
{
    if (!faults.armed || paused || faults.of_allocations != (kind == CALL_ALLOCATE)) return false;
    const int64_t n = atomic_fetch_add(&faults.made, 1) + 1;
    if (faults.kinds && n < faults.kinds_at_most) faults.kinds[n] = (unsigned char)kind;
    if (!faults.at || n < faults.at) return false;
    if (n == faults.at) faults.hit = kind;
    if (n > faults.at && (!faults.for_ever || faults.hit != kind)) return false;
    errno = faults.error;
    return true;
}

// ---- allocations. What is allocated while armed is kept in a table, so that a leak shows without ASan.

#ifdef __SANITIZE_ADDRESS__
#define REAL_MALLOC __interceptor_malloc
#define REAL_CALLOC __interceptor_calloc
#define REAL_REALLOC __interceptor_realloc
#define REAL_MEMALIGN __interceptor_memalign
#else
#define REAL_MALLOC __libc_malloc
#define REAL_CALLOC __libc_calloc
#define REAL_REALLOC __libc_realloc
#define REAL_MEMALIGN __libc_memalign
extern void __libc_free(void *p);
#endif
extern void *REAL_MALLOC(size_t bytes);
extern void *REAL_CALLOC(size_t count, size_t bytes);
extern void *REAL_REALLOC(void *p, size_t bytes);
extern void *REAL_MEMALIGN(size_t alignment, size_t bytes);

enum { HELD = 1 << 16 };
static struct held {
    void *p; // NULL: never used; `gone`: not any more
    const void *caller;
} held[HELD];
static char gone;
static atomic_flag held_lock = ATOMIC_FLAG_INIT;

static inline struct held *held_find(const void *p, bool to_add)
{
    const size_t first = ((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15U >> 48;
    for (size_t i = 0; i < HELD; i++) {
        struct held *h = &held[(first + i) % HELD];
        if (h->p == p) return h;
        if (!h->p) return to_add ? h : NULL;
        if (to_add && h->p == &gone) return h;
    }
    return NULL;
}

static inline void held_change(void *old, void *now, const void *caller)
{
#ifndef __SANITIZE_ADDRESS__
    if (!faults.armed) return;
    while (atomic_flag_test_and_set(&held_lock)) {
    }
    struct held *h = old ? held_find(old, false) : NULL;
    if (h) h->p = &gone;
    if (now && (h = held_find(now, true))) *h = (struct held){now, caller};
    atomic_flag_clear(&held_lock);
#else
    (void)old, (void)now, (void)caller, (void)held, (void)held_lock, (void)held_find;
#endif
}

static inline bool no_memory_for(const void *caller)
{
    if (!fault_now(CALL_ALLOCATE)) return false;
    if (!faults.caller) faults.caller = caller;
    errno = ENOMEM;
    return true;
}

#define CALLER __builtin_return_address(0)

INTERPOSED void *malloc(size_t bytes)
{
    if (no_memory_for(CALLER)) return NULL;
    void *p = REAL_MALLOC(bytes);
    held_change(NULL, p, CALLER);
    return p;
}

INTERPOSED void *calloc(size_t count, size_t bytes)
{
    if (no_memory_for(CALLER)) return NULL;
    void *p = REAL_CALLOC(count, bytes);
    held_change(NULL, p, CALLER);
    return p;
}

INTERPOSED void *realloc(void *old, size_t bytes)
{
    if (no_memory_for(CALLER)) return NULL;
    held_change(old, NULL, CALLER); // before another thread is given its place
    void *p = REAL_REALLOC(old, bytes);
    held_change(NULL, p, CALLER);
    return p;
}

INTERPOSED void *memalign(size_t alignment, size_t bytes)
{
    if (no_memory_for(CALLER)) return NULL;
    void *p = REAL_MEMALIGN(alignment, bytes);
    held_change(NULL, p, CALLER);
    return p;
}

INTERPOSED void *aligned_alloc(size_t alignment, size_t bytes)
{
    if (no_memory_for(CALLER)) return NULL;
    void *p = REAL_MEMALIGN(alignment, bytes);
    held_change(NULL, p, CALLER);
    return p;
}

INTERPOSED int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (no_memory_for(CALLER)) return ENOMEM;
    void *p = REAL_MEMALIGN(alignment, bytes);
    held_change(NULL, p, CALLER);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

#ifndef __SANITIZE_ADDRESS__
INTERPOSED void free(void *p)
{
    held_change(p, NULL, CALLER);
    __libc_free(p);
}
#endif

// Calls of oneDNN that do not survive it: ops/cpu/product.c sees to it that the heap has memory for them before.
// At most five arguments, all of them in registers.
#define WITHOUT_FAULTS(name)                                                                       \
    INTERPOSED int name(void *a, void *b, void *c, void *d, void *e);                              \
    INTERPOSED int name(void *a, void *b, void *c, void *d, void *e)                               \
    {                                                                                              \
        int (*real)(void *, void *, void *, void *, void *);                                       \
        *(void **)&real = dlsym(RTLD_NEXT, #name);                                                 \
        paused = true;                                                                             \
        const int status = real(a, b, c, d, e);                                                    \
        paused = false;                                                                            \
        return status;                                                                             \
    }
WITHOUT_FAULTS(dnnl_engine_create)
WITHOUT_FAULTS(dnnl_stream_create)
WITHOUT_FAULTS(dnnl_primitive_attr_create)
WITHOUT_FAULTS(dnnl_primitive_attr_set_post_ops)
WITHOUT_FAULTS(dnnl_post_ops_create)
WITHOUT_FAULTS(dnnl_memory_create)
WITHOUT_FAULTS(dnnl_primitive_create)
WITHOUT_FAULTS(dnnl_primitive_desc_create)        // version 2
WITHOUT_FAULTS(dnnl_matmul_primitive_desc_create) // version 3
WITHOUT_FAULTS(dnnl_primitive_execute)

// ---- system calls

enum { FILES = 1024 };
static bool writers[FILES]; // opened for writing; not to append, which is synced whenever it counts

INTERPOSED void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset)
{
    const bool anonymous = flags & MAP_ANONYMOUS;
    if (anonymous ? no_memory_for(CALLER) : fault_now(CALL_MAP)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, size, access, flags, fd, offset);
}

INTERPOSED int munmap(void *at, size_t size)
{
    if (fault_now(CALL_UNMAP)) return -1;
    return (int)syscall(SYS_munmap, at, size);
}

INTERPOSED int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, int) : 0;
    va_end(args);
    if (fault_now(CALL_OPEN)) return -1;
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FILES) writers[fd] = (flags & (O_ACCMODE | O_APPEND)) == O_WRONLY;
    return fd;
}

// The descriptor is free afterwards even so, as Linux has it.
INTERPOSED int close(int fd)
{
    const bool fails =
        fault_now(fd >= 0 && fd < FILES && writers[fd] ? CALL_CLOSE_WRITER : CALL_CLOSE);
    const int error = errno, result = (int)syscall(SYS_close, fd);
    if (fails) errno = error;
    return fails ? -1 : result;
}

INTERPOSED ssize_t read(int fd, void *out, size_t n)
{
    if (fault_now(CALL_READ)) {
        if (faults.kind == FAULT_ERROR) return -1;
        if (faults.kind == FAULT_NOTHING) return 0;
        n = (n + 1) / 2;
    }
    return syscall(SYS_read, fd, out, n);
}

INTERPOSED ssize_t pread(int fd, void *out, size_t n, off_t at)
{
    if (fault_now(CALL_READ)) {
        if (faults.kind == FAULT_ERROR) return -1;
        if (faults.kind == FAULT_NOTHING) return 0;
        n = (n + 1) / 2;
    }
    return syscall(SYS_pread64, fd, out, n, at);
}

INTERPOSED ssize_t write(int fd, const void *bytes, size_t n)
{
    if (fd > STDERR_FILENO && fault_now(CALL_WRITE)) {
        if (faults.kind == FAULT_ERROR) return -1;
        if (faults.kind == FAULT_NOTHING) return 0;
        n = (n + 1) / 2;
    }
    return syscall(SYS_write, fd, bytes, n);
}

INTERPOSED int fsync(int fd)
{
    (void)fd;
    return fault_now(CALL_FSYNC) ? -1 : 0;
}

INTERPOSED int fdatasync(int fd)
{
    (void)fd;
    return fault_now(CALL_FSYNC) ? -1 : 0;
}

INTERPOSED int ftruncate(int fd, off_t size)
{
    return fault_now(CALL_FTRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

INTERPOSED int fstat(int fd, struct stat *st)
{
    return fault_now(CALL_STAT) ? -1 : (int)syscall(SYS_fstat, fd, st);
}

INTERPOSED int stat(const char *path, struct stat *st)
{
    return fault_now(CALL_STAT) ? -1 : (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, 0);
}

INTERPOSED int lstat(const char *path, struct stat *st)
{
    if (fault_now(CALL_STAT)) return -1;
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

INTERPOSED int rename(const char *from, const char *to)
{
    if (fault_now(CALL_RENAME)) return -1;
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

INTERPOSED int unlink(const char *path)
{
    return fault_now(CALL_UNLINK) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

INTERPOSED int rmdir(const char *path)
{
    return fault_now(CALL_UNLINK) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

INTERPOSED int mkdir(const char *path, mode_t mode)
{
    return fault_now(CALL_MKDIR) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

INTERPOSED int flock(int fd, int operation)
{
    return fault_now(CALL_LOCK) ? -1 : (int)syscall(SYS_flock, fd, operation);
}

INTERPOSED DIR *opendir(const char *path)
{
    DIR *(*real)(const char *);
    *(void **)&real = dlsym(RTLD_NEXT, "opendir");
    return fault_now(CALL_OPENDIR) ? NULL : real(path);
}

INTERPOSED struct dirent *readdir(DIR *d)
{
    struct dirent *(*real)(DIR *);
    *(void **)&real = dlsym(RTLD_NEXT, "readdir");
    return fault_now(CALL_READDIR) ? NULL : real(d);
}

INTERPOSED int statvfs(const char *path, struct statvfs *s)
{
    int (*real)(const char *, struct statvfs *);
    *(void **)&real = dlsym(RTLD_NEXT, "statvfs");
    return fault_now(CALL_STATVFS) ? -1 : real(path, s);
}
