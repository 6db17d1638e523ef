// tests/torture/disk.h - a disk as a power cut finds it: of every file and folder what is there for a program, and what
// is there for good because it was synced. Made of the calls of a run, one by one; can write down, as real files, any
// state in which a cut may leave it.
//
// What is not synced may be there or not, in any order: each entry of a folder by itself, each sector of a file by
// itself, a file's length before its bytes (which then are zeros, or what the sectors held before). Syncing a file says
// nothing of its entry in its folder, syncing a folder nothing of the files in it.
#pragma once
#include "runs.h"

#include "calls.h"

enum {
    DISK_NAME = 80,
    DISK_ENTRIES = 64,
    DISK_PENDING = 256,
    DISK_NODES = 8192,
    DISK_FILES = 1024
};

struct disk_entries {
    struct disk_entry {
        char name[DISK_NAME];
        int node;
    } at[DISK_ENTRIES];
    int n;
};

struct disk_change { // of a folder, not yet synced
    char name[DISK_NAME];
    int node;  // -1: the name goes
    bool next; // the second half of a rename
};

struct disk_node {
    bool folder, dirty;       // dirty: a file whose bytes are not all synced
    struct buf now, good;     // a file's bytes
    struct disk_entries *in;  // a folder's, now
    struct disk_entries *set; // and for good
    struct disk_change *change;
    int n_changes;
};

struct disk {
    struct disk_node node[DISK_NODES]; // 0: the working folder
    int n, of_fd[DISK_FILES];
};

static inline int disk_new(struct disk *d, bool folder)
{
    assert_true(d->n < DISK_NODES);
    struct disk_node *x = &d->node[d->n];
    *x = (struct disk_node){.folder = folder};
    if (folder) {
        x->in = mem_zalloc(1, sizeof *x->in);
        x->set = mem_zalloc(1, sizeof *x->set);
        x->change = mem_zalloc(DISK_PENDING, sizeof *x->change);
        assert_true(x->in && x->set && x->change);
    }
    return d->n++;
}

static inline struct disk *disk_open(void)
{
    struct disk *d = mem_zalloc(1, sizeof *d);
    assert_non_null(d);
    for (int i = 0; i < DISK_FILES; i++) {
        d->of_fd[i] = -1;
    }
    disk_new(d, true);
    return d;
}

static inline void disk_close(struct disk *d)
{
    for (int i = 0; i < d->n; i++) {
        buf_free(&d->node[i].now);
        buf_free(&d->node[i].good);
        mem_free(d->node[i].in);
        mem_free(d->node[i].set);
        mem_free(d->node[i].change);
    }
    mem_free(d);
}

static inline int disk_find(const struct disk_entries *in, const char *name)
{
    for (int i = 0; i < in->n; i++) {
        if (!strcmp(in->at[i].name, name)) return in->at[i].node;
    }
    return -1;
}

// The name stands for the node from now on; -1: for none.
static inline void disk_put(struct disk_entries *in, const char *name, int node)
{
    for (int i = 0; i < in->n; i++) {
        if (strcmp(in->at[i].name, name) != 0) continue;
        if (node >= 0) {
            in->at[i].node = node;
        } else {
            in->at[i] = in->at[--in->n];
        }
        return;
    }
    if (node < 0) return;
    assert_true(in->n < DISK_ENTRIES);
    struct disk_entry *e = &in->at[in->n++];
    snprintf(e->name, sizeof e->name, "%s", name);
    e->node = node;
}

static inline void disk_change(struct disk_node *folder, const char *name, int node, bool next)
{
    assert_true(folder->n_changes < DISK_PENDING);
    struct disk_change *c = &folder->change[folder->n_changes++];
    *c = (struct disk_change){.node = node, .next = next};
    snprintf(c->name, sizeof c->name, "%s", name);
    disk_put(folder->in, name, node);
}

// The folder of a path, and the last name of it; NULL: it is not on this disk. "." and the empty path: the root.
static inline struct disk_node *disk_folder(struct disk *d, const char *path, const char **name)
{
    struct disk_node *at = &d->node[0];
    if (*path == '/') return NULL;
    for (const char *slash; (slash = strchr(path, '/')); path = slash + 1) {
        char part[DISK_NAME];
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        const int next = disk_find(at->in, part);
        if (next < 0 || !d->node[next].folder) return NULL;
        at = &d->node[next];
    }
    *name = path;
    return at;
}

static inline int disk_node_of(struct disk *d, const char *path)
{
    const char *name;
    if (!strcmp(path, ".")) return 0;
    const struct disk_node *folder = disk_folder(d, path, &name);
    return folder ? disk_find(folder->in, name) : -1;
}

static inline void disk_set_bytes(struct buf *to, const struct buf *from)
{
    to->size = 0;
    assert_true(buf_append(to, from->data ? from->data : "", from->size));
}

static inline void disk_sync(struct disk_node *x)
{
    if (x->folder) {
        *x->set = *x->in;
        x->n_changes = 0;
    } else {
        disk_set_bytes(&x->good, &x->now);
        x->dirty = false;
    }
}

static inline void disk_change_file(struct disk *d, const struct call *c)
{
    if (c->fd < 0 || c->fd >= DISK_FILES || d->of_fd[c->fd] < 0) return;
    struct disk_node *x = &d->node[d->of_fd[c->fd]];
    if (c->kind == CALL_SYNC) {
        disk_sync(x);
    } else if (c->kind == CALL_CLOSE) {
        d->of_fd[c->fd] = -1;
    } else if (c->kind == CALL_CUT) {
        assert_true(c->n <= x->now.size);
        x->now.size = c->n;
        x->dirty = true;
    } else {
        assert_true(buf_append(&x->now, c->bytes, c->n)); // the program only appends
        x->dirty = true;
    }
}

static inline void disk_open_file(struct disk *d, const struct call *c)
{
    const char *name;
    assert_true(c->fd < DISK_FILES);
    assert_false(c->flags & O_TRUNC);
    d->of_fd[c->fd] = disk_node_of(d, c->path);
    struct disk_node *folder = disk_folder(d, c->path, &name);
    if (!c->made || !folder) return;
    assert_true(d->of_fd[c->fd] < 0);
    d->of_fd[c->fd] = disk_new(d, false);
    disk_change(folder, name, d->of_fd[c->fd], false);
}

static inline void disk_apply(struct disk *d, const struct call *c)
{
    const char *name, *to = NULL;
    if (c->kind == CALL_OPEN) {
        disk_open_file(d, c);
        return;
    }
    if (!c->path) {
        disk_change_file(d, c);
        return;
    }
    struct disk_node *folder = disk_folder(d, c->path, &name);
    if (!folder) return;
    if (c->kind == CALL_MKDIR) {
        disk_change(folder, name, disk_new(d, true), false);
    } else if (c->kind == CALL_RENAME) {
        assert_ptr_equal(disk_folder(d, c->to, &to), folder);
        disk_change(folder, to, disk_find(folder->in, name), false);
        disk_change(folder, name, -1, true);
    } else {
        disk_change(folder, name, -1, false);
    }
}

// What is on the real disk, for good.
static inline void disk_load(struct disk *d, int folder, const char *path)
{
    struct dir_names names;
    struct error err = {0};
    check_ok(dir_list(&names, path, &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        char at[4096], *bytes;
        size_t n;
        check_ok(path_join(at, sizeof at, path, names.name[i], &err), &err);
        const bool inner = runs_is_folder(at);
        const int node = disk_new(d, inner);
        disk_put(d->node[folder].in, names.name[i], node);
        if (inner) {
            disk_load(d, node, at);
        } else {
            check_ok(file_read(&bytes, &n, at, 1 << 24, &err), &err);
            assert_true(buf_append(&d->node[node].now, bytes, n));
            mem_free(bytes);
            disk_sync(&d->node[node]);
        }
    }
    disk_sync(&d->node[folder]);
    dir_names_free(&names);
}

// How a cut leaves what was not synced.
enum disk_cut { DISK_LOST, DISK_KEPT, DISK_SOME };
struct disk_state {
    enum disk_cut cut;
    struct rng rng; // of DISK_SOME: what is kept,
    double share;   // with which chance,
    size_t sector;  // of what a file is made on the disk,
    bool halves,
        noise;    // whether a rename may be halved, and sectors that were not written are not zeros
    uint64_t sum; // of all that was written down
};

static inline bool disk_keeps(struct disk_state *s)
{
    return s->cut == DISK_KEPT || (s->cut == DISK_SOME && rng_uniform(&s->rng) < s->share);
}

static inline void disk_add_sum(struct disk_state *s, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) {
        s->sum = (s->sum ^ p[i]) * 0x100000001b3u;
    }
    s->sum = (s->sum ^ n) * 0x100000001b3u;
}

static inline char disk_filler(struct disk_state *s)
{
    return s->noise ? (char)rng_below(&s->rng, 256) : 0;
}

static inline void disk_file_bytes(struct buf *out, const struct disk_node *x, struct disk_state *s)
{
    if (!x->dirty || s->cut != DISK_SOME) {
        disk_set_bytes(out, s->cut == DISK_LOST ? &x->good : &x->now);
        return;
    }
    const size_t a = x->good.size, b = x->now.size, low = a < b ? a : b, high = a < b ? b : a;
    size_t size = rng_below(&s->rng, 2) ? b : a;
    if (rng_below(&s->rng, 3) == 0)
        size = low + (size_t)rng_below(&s->rng, (int64_t)(high - low) + 1);
    for (size_t at = 0; at < size; at += s->sector) {
        const struct buf *from = disk_keeps(s) ? &x->now : &x->good;
        for (size_t i = at; i < at + s->sector && i < size; i++) {
            const char c = i < from->size ? from->data[i] : disk_filler(s);
            assert_true(buf_append(out, &c, 1));
        }
    }
}

static inline void disk_folder_entries(struct disk_entries *out, const struct disk_node *x,
                                       struct disk_state *s)
{
    *out = *x->set;
    bool kept = false;
    for (int i = 0; i < x->n_changes; i++) {
        const struct disk_change *c = &x->change[i];
        if (!c->next || s->halves) kept = disk_keeps(s);
        if (kept) disk_put(out, c->name, c->node);
    }
}

// Into a folder that is there and empty.
static inline void disk_write_down(const struct disk *d, int folder, const char *path,
                                   struct disk_state *s)
{
    struct disk_entries *in = mem_zalloc(1, sizeof *in);
    struct error err = {0};
    assert_non_null(in);
    disk_folder_entries(in, &d->node[folder], s);
    for (int i = 0; i < in->n; i++) {
        char at[4096];
        struct buf bytes = {0};
        const struct disk_node *x = &d->node[in->at[i].node];
        check_ok(path_join(at, sizeof at, path, in->at[i].name, &err), &err);
        disk_add_sum(s, at, strlen(at));
        if (x->folder) {
            assert_int_equal(mkdirat(AT_FDCWD, at, 0777), 0);
            disk_write_down(d, in->at[i].node, at, s);
            continue;
        }
        disk_file_bytes(&bytes, x, s);
        FILE *f = fopen(at, "wbx");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes.data ? bytes.data : "", 1, bytes.size, f), bytes.size);
        assert_int_equal(fclose(f), 0);
        disk_add_sum(s, bytes.data, bytes.size);
        buf_free(&bytes);
    }
    mem_free(in);
}
