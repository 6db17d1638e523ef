// tuning/full.c - every weight learns.
#include "tuning/policies.h"

static bool learns(const struct weight *w, const struct model_config *c)
{
    (void)w, (void)c;
    return true;
}

const struct tuning tuning_full = {
    .name = "full",
    .help = "every weight learns",
    .learns = learns,
};
