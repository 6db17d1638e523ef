// base/leaf.c - see leaf.h.
#include "base/leaf.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

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
    *f = (struct leaf){.decays = shape.rank > 1,
                       .copy = tensor_absent(),
                       .grad = tensor_absent(),
                       .m = tensor_absent(),
                       .v = tensor_absent()};
    snprintf(f->name, sizeof f->name, "%s", name);

    const enum purpose before = a->purpose;
    a->purpose = PURPOSE_WEIGHTS;
    f->value = arena_tensor(a, DTYPE_F32, shape.rank, shape.dim);
    if (copy_type != DTYPE_F32) f->copy = arena_tensor(a, copy_type, shape.rank, shape.dim);
    if (l->frozen) {
        a->purpose = before;
        return f;
    }
    a->purpose = PURPOSE_GRADIENTS;
    f->grad = arena_tensor(a, DTYPE_F32, shape.rank, shape.dim);
    a->purpose = PURPOSE_OPTIMIZER;
    f->m = arena_tensor(a, DTYPE_F32, shape.rank, shape.dim);
    f->v = arena_tensor(a, DTYPE_F32, shape.rank, shape.dim);
    a->purpose = before;
    return f;
}

void leaves_free(struct leaves *l)
{
    mem_free(l->leaf);
    *l = (struct leaves){0};
}
