// io/event_file.c - see event_file.h. Protocol buffers: a field is its number and wire type as a varint, then a
// varint (type 0), eight bytes (1), a length and bytes (2), or four bytes (5); all little-endian.
#include "io/event_file.h"

#include "base/crc32c.h"

#include <string.h>

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

// Field numbers of event.proto and summary.proto.
enum {
    EVENT_WALL_TIME = 1,
    EVENT_STEP = 2,
    EVENT_FILE_VERSION = 3,
    EVENT_SUMMARY = 5,
    EVENT_SESSION_LOG = 7,
    SUMMARY_VALUE = 1,
    VALUE_TAG = 1,
    VALUE_SIMPLE = 2,
    SESSION_STATUS = 1,
    SESSION_START = 1
};

static bool put_varint(struct buf *b, uint64_t v)
{
    unsigned char byte[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) {
        byte[n++] = (unsigned char)(v | 0x80);
    }
    byte[n++] = (unsigned char)v;
    return buf_append(b, byte, n);
}

static bool put_little(struct buf *b, uint64_t v, size_t n)
{
    unsigned char byte[8];
    for (size_t i = 0; i < n; i++) {
        byte[i] = (unsigned char)(v >> (8 * i));
    }
    return buf_append(b, byte, n);
}

static bool put_key(struct buf *b, unsigned field, enum wire w)
{
    return put_varint(b, field << 3 | (unsigned)w);
}

static bool put_bytes(struct buf *b, unsigned field, const void *bytes, size_t n)
{
    return put_key(b, field, WIRE_BYTES) && put_varint(b, n) && buf_append(b, bytes, n);
}

static bool put_double(struct buf *b, unsigned field, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return put_key(b, field, WIRE_64) && put_little(b, bits, 8);
}

static bool put_float(struct buf *b, unsigned field, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return put_key(b, field, WIRE_32) && put_little(b, bits, 4);
}

// A stored CRC is masked, since the CRC of bytes that hold CRCs is weak.
static bool put_crc(struct buf *b, const void *bytes, size_t n)
{
    const uint32_t crc = crc32c(0, bytes, n);
    return put_little(b, (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8U), 4);
}

// The event's bytes as a record; frees them.
static bool put_record(struct buf *out, struct buf *event, bool ok)
{
    struct buf length = {0};
    ok = ok && put_little(&length, event->size, 8) && buf_append(out, length.data, 8) &&
         put_crc(out, length.data, 8) && buf_append(out, event->data, event->size) &&
         put_crc(out, event->data, event->size);
    buf_free(&length);
    buf_free(event);
    return ok;
}

static bool put_when(struct buf *event, double wall_time, int64_t step)
{
    return put_double(event, EVENT_WALL_TIME, wall_time) &&
           put_key(event, EVENT_STEP, WIRE_VARINT) && put_varint(event, (uint64_t)step);
}

bool event_version(struct buf *out, double wall_time)
{
    static const char version[] = "brain.Event:2";
    struct buf event = {0};
    const bool ok = put_double(&event, EVENT_WALL_TIME, wall_time) &&
                    put_bytes(&event, EVENT_FILE_VERSION, version, sizeof version - 1);
    return put_record(out, &event, ok);
}

bool event_start(struct buf *out, double wall_time, int64_t step)
{
    struct buf event = {0}, session = {0};
    const bool ok = put_when(&event, wall_time, step) &&
                    put_key(&session, SESSION_STATUS, WIRE_VARINT) &&
                    put_varint(&session, SESSION_START) &&
                    put_bytes(&event, EVENT_SESSION_LOG, session.data, session.size);
    buf_free(&session);
    return put_record(out, &event, ok);
}

bool event_scalars(struct buf *out, double wall_time, int64_t step, const struct event_scalar *s,
                   int64_t n)
{
    struct buf event = {0}, summary = {0}, value = {0};
    bool ok = put_when(&event, wall_time, step);
    for (int64_t i = 0; ok && i < n; i++) {
        value.size = 0;
        ok = put_bytes(&value, VALUE_TAG, s[i].tag, strlen(s[i].tag)) &&
             put_float(&value, VALUE_SIMPLE, (float)s[i].value) &&
             put_bytes(&summary, SUMMARY_VALUE, value.data, value.size);
    }
    ok = ok && (!n || put_bytes(&event, EVENT_SUMMARY, summary.data, summary.size));
    buf_free(&summary);
    buf_free(&value);
    return put_record(out, &event, ok);
}

static bool add(struct event_file *f, struct buf *record, bool ok, struct error *err)
{
    ok = ok ? append_write(&f->file, record->data, record->size, err)
            : fail(err, "%s: no memory for a record", f->file.path);
    buf_free(record);
    return ok;
}

bool event_file_open(struct event_file *f, const char *path, double wall_time, int64_t step,
                     struct error *err)
{
    struct buf record = {0};
    if (!append_open(&f->file, path, 0, err)) return false;
    const bool ok =
        event_version(&record, wall_time) && (!step || event_start(&record, wall_time, step + 1));
    if (add(f, &record, ok, err)) return true;
    event_file_close(f);
    return false;
}

bool event_file_add(struct event_file *f, double wall_time, int64_t step,
                    const struct event_scalar *s, int64_t n, struct error *err)
{
    struct buf record = {0};
    return add(f, &record, event_scalars(&record, wall_time, step, s, n), err);
}

void event_file_close(struct event_file *f)
{
    append_close(&f->file);
}
