// io/safetensors.c - see safetensors.h. Reading: the header by safetensors_header.c, then every rule that
// ties its entries to each other and to the file's size.
#include "io/safetensors.h"

#include "base/log.h"
#include "base/mem.h"
#include "io/safetensors_header.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const size_t header_limit = 100000000; // the format's own

// Every dtype of the format. Those that enum dtype lacks can be copied, not computed with.
static const struct {
    const char *name;
    int bits;
    bool known;
    enum dtype dtype;
} dtypes[] = {
    {"F32", 32, true, DTYPE_F32},       {"BF16", 16, true, DTYPE_BF16},
    {"F16", 16, true, DTYPE_F16},       {"F64", 64, true, DTYPE_F64},
    {"I32", 32, true, DTYPE_I32},       {"I64", 64, true, DTYPE_I64},
    {"U8", 8, true, DTYPE_U8},          {.name = "BOOL", .bits = 8},
    {.name = "I8", .bits = 8},          {.name = "I16", .bits = 16},
    {.name = "U16", .bits = 16},        {.name = "U32", .bits = 32},
    {.name = "U64", .bits = 64},        {.name = "C64", .bits = 64},
    {.name = "F8_E4M3", .bits = 8},     {.name = "F8_E5M2", .bits = 8},
    {.name = "F8_E8M0", .bits = 8},     {.name = "F8_E4M3FNUZ", .bits = 8},
    {.name = "F8_E5M2FNUZ", .bits = 8}, {.name = "F6_E2M3", .bits = 6},
    {.name = "F6_E3M2", .bits = 6},     {.name = "F4", .bits = 4},
};

// Shape product times the type's size must be the span of the offsets.
static bool check_size(const struct safetensors *st, struct st_entry *e, struct error *err)
{
    size_t type = 0;
    const size_t n_types = sizeof dtypes / sizeof *dtypes;
    while (type < n_types && strcmp(dtypes[type].name, e->dtype_name) != 0) {
        type++;
    }
    if (type == n_types) {
        return fail(err, "%s: %s: dtype %s is not one of the format's", st->path, e->name,
                    e->dtype_name);
    }
    int64_t bits = dtypes[type].bits, count = 1;
    bool overflow = false;
    for (int i = 0; i < e->rank; i++) {
        overflow |= __builtin_mul_overflow(count, e->shape[i], &count);
    }
    overflow |= __builtin_mul_overflow(bits, count, &bits);
    if (overflow || bits % 8 != 0 || (uint64_t)bits / 8 != e->end - e->begin) {
        return fail(err, "%s: %s: data_offsets span %zu bytes, its shape and %s need %s%" PRId64,
                    st->path, e->name, e->end - e->begin, e->dtype_name,
                    overflow ? "more than " : "", overflow ? INT64_MAX : bits / 8);
    }
    e->known = dtypes[type].known && e->rank <= TENSOR_MAX_RANK;
    if (e->known) e->tensor = tensor_make(NULL, dtypes[type].dtype, e->rank, e->shape);
    if (!e->known) e->tensor = tensor_1d(NULL, DTYPE_U8, bits / 8);
    return true;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct st_entry *a = pa, *b = pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

static int by_name(const void *pa, const void *pb)
{
    return strcmp(((const struct st_entry *)pa)->name, ((const struct st_entry *)pb)->name);
}

// The offsets, sorted, must tile the data section: no gap, no overlap, nothing left over.
static bool check_tiling(struct safetensors *st, size_t data_size, struct error *err)
{
    if (st->count) qsort(st->entry, (size_t)st->count, sizeof *st->entry, by_offset);
    size_t at = 0;
    for (int64_t i = 0; i < st->count; i++) {
        const struct st_entry *e = &st->entry[i];
        if (e->begin != at) {
            return fail(err, "%s: %s: begins at byte %zu of the data, expected %zu", st->path,
                        e->name, e->begin, at);
        }
        at = e->end;
    }
    if (at == data_size) return true;
    return fail(err, "%s: tensors fill %zu bytes, the file has %zu after its header", st->path, at,
                data_size);
}

static bool check_names(struct safetensors *st, struct error *err)
{
    if (st->count) qsort(st->entry, (size_t)st->count, sizeof *st->entry, by_name);
    for (int64_t i = 1; i < st->count; i++) {
        if (!by_name(&st->entry[i - 1], &st->entry[i])) {
            return fail(err, "%s: %s: twice in the header", st->path, st->entry[i].name);
        }
    }
    return true;
}

// Points every tensor at its bytes. The format does not promise alignment (files of 2022 and tensors
// after one of odd size lack it), C does need it: what lies askew gets an aligned copy.
static bool place(struct safetensors *st, const unsigned char *data, struct error *err)
{
    int64_t copies = 0;
    size_t copied = 0;
    for (int64_t i = 0; i < st->count; i++) {
        struct st_entry *e = &st->entry[i];
        const size_t n = e->end - e->begin;
        e->tensor.data = (void *)(data + e->begin); // read-only by mmap and by contract
        if ((uintptr_t)e->tensor.data % dtype_size(e->tensor.dtype) == 0) continue;
        void *copy = mem_alloc(n);
        if (!copy) return fail(err, "%s: %s: no memory for %zu bytes", st->path, e->name, n);
        memcpy(copy, data + e->begin, n);
        e->tensor.data = copy;
        e->copied = true;
        copies++;
        copied += n;
    }
    if (copied >= 1 << 20) {
        log_warning("%s: %" PRId64
                    " tensors are not aligned in the file and were copied to memory, "
                    "%zu MiB",
                    st->path, copies, copied >> 20);
    }
    return true;
}

bool safetensors_parse(struct safetensors *st, const void *bytes, size_t size, struct error *err)
{
    uint64_t n = 0;
    if (size < sizeof n) return fail(err, "%s: %zu bytes is too short", st->path, size);
    const unsigned char *b = bytes;
    for (size_t i = sizeof n; i-- > 0;) { // little-endian by the format
        n = n << 8 | b[i];
    }
    if (n > header_limit || n > size - sizeof n) {
        return fail(err, "%s: header of %" PRIu64 " bytes, file of %zu, limit %zu", st->path, n,
                    size, header_limit);
    }
    st->header_size = sizeof n + (size_t)n;
    if (!safetensors_read_header(st, (const char *)b + sizeof n, (size_t)n, err)) return false;
    for (int64_t i = 0; i < st->count; i++) {
        if (!check_size(st, &st->entry[i], err)) return false;
    }
    return check_tiling(st, size - st->header_size, err) && check_names(st, err) &&
           place(st, b + st->header_size, err);
}

bool safetensors_open(struct safetensors *st, const char *path, struct error *err)
{
    *st = (struct safetensors){.path = path};
    if (file_map_open(&st->map, path, err) &&
        safetensors_parse(st, st->map.data, st->map.size, err)) {
        return true;
    }
    safetensors_close(st);
    return false;
}

void safetensors_close(struct safetensors *st)
{
    for (int64_t i = 0; i < st->count; i++) {
        mem_free(st->entry[i].name);
        if (st->entry[i].copied) mem_free(st->entry[i].tensor.data);
    }
    mem_free(st->entry);
    mem_free(st->metadata);
    file_map_close(&st->map);
    *st = (struct safetensors){.path = st->path};
}

const struct st_entry *safetensors_find(const struct safetensors *st, const char *name)
{
    int64_t low = 0, high = st->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(name, st->entry[middle].name);
        if (order == 0) return &st->entry[middle];
        if (order < 0) high = middle;
        if (order > 0) low = middle + 1;
    }
    return NULL;
}
