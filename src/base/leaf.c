// base/leaf.c - see leaf.h.
#include "base/leaf.h"

#include "base/codes.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

void leaves_begin(struct leaves *l, struct arena *a)
{
    const enum purpose before = a->purpose;
    l->count = 0;
    l->section = SECTION_NONE;
    for (int64_t i = 0; i < l->sections; i++) {
        l->used[i] = 0;
    }
    l->gradients = NULL;
    if (arena_measuring(a)) return;
    a->purpose = PURPOSE_GRADIENTS;
    l->gradients = arena_bytes(a, l->shared);
    a->purpose = before;
}

void leaves_end(struct leaves *l, struct arena *a)
{
    const enum purpose before = a->purpose;
    if (!arena_measuring(a)) return;
    l->shared = 0;
    for (int64_t i = 0; i < l->sections; i++) {
        if (l->used[i] > l->shared) l->shared = l->used[i];
    }
    a->purpose = PURPOSE_GRADIENTS;
    arena_bytes(a, l->shared);
    a->purpose = before;
}

static bool grow_sections(struct leaves *l, struct error *err)
{
    const int64_t n = l->section + 1;
    if (n <= l->sections) return true;
    size_t *grown = mem_realloc(l->used, (size_t)n * sizeof *grown);
    if (!grown) return fail(err, "no memory for %lld sections", (long long)n);
    memset(grown + l->sections, 0, (size_t)(n - l->sections) * sizeof *grown);
    l->used = grown;
    l->sections = n;
    return true;
}

static bool add_gradient(struct leaves *l, struct leaf *f, struct arena *a, struct error *err)
{
    const struct tensor *v = &f->value;
    a->purpose = PURPOSE_GRADIENTS;
    if (!l->storage.shared_gradients || l->section == SECTION_NONE) {
        f->grad = arena_tensor(a, DTYPE_F32, v->rank, v->dim);
        return true;
    }
    if (!grow_sections(l, err)) return false;
    size_t *used = &l->used[l->section];
    f->grad = tensor_make(l->gradients ? l->gradients + *used : NULL, DTYPE_F32, v->rank, v->dim);
    *used += (tensor_bytes(f->grad) + 63) / 64 * 64;
    return true;
}

static void add_states(struct leaves *l, struct leaf *f, struct arena *rest)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_U8};
    struct arena *a = l->states ? l->states : rest;
    const struct tensor *v = &f->value;
    const enum dtype type = v->rank > 1 ? types[l->storage.states] : DTYPE_F32;
    a->purpose = PURPOSE_OPTIMIZER;
    f->m = arena_tensor(a, type, v->rank, v->dim);
    f->v = arena_tensor(a, type, v->rank, v->dim);
    if (type != DTYPE_U8) return;
    const int64_t blocks = (tensor_count(*v) + CODE_BLOCK - 1) / CODE_BLOCK;
    f->m_scale = arena_1d(a, DTYPE_F32, blocks);
    f->v_scale = arena_1d(a, DTYPE_F32, blocks);
}

static void add_value(const struct leaves *l, struct leaf *f, struct arena *a, struct tensor shape,
                      enum dtype copy_type)
{
    const bool bare = l->storage.no_masters && shape.dtype == DTYPE_BF16 && shape.rank > 1;
    a->purpose = PURPOSE_WEIGHTS;
    f->value = arena_tensor(a, bare ? DTYPE_BF16 : DTYPE_F32, shape.rank, shape.dim);
    if (copy_type != DTYPE_F32 && !bare) {
        f->copy = arena_tensor(a, copy_type, shape.rank, shape.dim);
    }
}

struct leaf *leaves_add(struct leaves *l, struct arena *a, const char *name, struct tensor shape,
                        enum dtype copy_type, struct error *err)
{
    if (strlen(name) >= NAME_MAX_LENGTH) {
        fail(err, "%s: name longer than %d bytes", name, NAME_MAX_LENGTH - 1);
        return NULL;
    }
    void *grown = array_grow(l->leaf, l->count, &l->capacity, sizeof *l->leaf);
    if (!grown) {
        fail(err, "no memory for %lld parameters", (long long)l->count + 1);
        return NULL;
    }
    l->leaf = grown;
    struct leaf *f = &l->leaf[l->count++];
    const struct tensor none = tensor_absent();
    *f = (struct leaf){.decays = shape.rank > 1,
                       .section = l->section,
                       .copy = none,
                       .grad = none,
                       .m = none,
                       .v = none,
                       .m_scale = none,
                       .v_scale = none};
    snprintf(f->name, sizeof f->name, "%s", name);

    const enum purpose before = a->purpose;
    add_value(l, f, a, shape, copy_type);
    bool ok = true;
    if (!l->frozen) ok = add_gradient(l, f, a, err);
    if (!l->frozen) add_states(l, f, a);
    a->purpose = before;
    return ok ? f : NULL;
}

void leaves_free(struct leaves *l)
{
    mem_free(l->leaf);
    mem_free(l->used);
    *l = (struct leaves){0};
}
