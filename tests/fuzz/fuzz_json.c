// Any bytes as JSON: refused with a line, or what was read is written and read again as the same.
#include "base/mem.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    json_t *value = json_parse((const char *)data, size, "fuzz", &err);
    if (!value) {
        if (!*err.msg || strchr(err.msg, '\n')) abort();
        return 0;
    }
    int64_t i = 3;
    double r = 3;
    bool b = false;
    const char *text = "";
    json_get_int(value, "a", -5, 5, false, &i, "fuzz", &err);
    json_get_real(value, "a", -5, 5, true, &r, "fuzz", &err);
    json_get_bool(value, "a", false, &b, "fuzz", &err);
    json_get_text(value, "a", false, &text, "fuzz", &err);
    if (i < -5 || i > 5 || !(r >= -5 && r <= 5) || !text) abort();

    char *written = json_dumps(value, JSON_ENCODE_ANY);
    if (written) {
        json_t *again = json_parse(written, strlen(written), "again", &err);
        if (!again || !json_equal(value, again)) abort();
        json_decref(again);
    }
    mem_free(written);
    json_decref(value);
    return 0;
}
