// tuning/full.c - every weight learns.
#include "tuning/policies.h"

static bool learns(const struct tuning_state *st, const struct weight *w)
{
    (void)st, (void)w;
    return true;
}

const struct tuning tuning_full = {
    .name = "full",
    .help = "every weight learns",
    .learns = learns,
};
