// train/storage.c - which of the ways to keep leaves (base/leaf.h) go together, and with what.
#include "train/train.h"

#include <inttypes.h>

static bool check_fused(const struct model_setup *m, const struct train_options *o,
                        struct error *err)
{
    if (m->tuning->observes) return true; // no leaves
    if (o->accumulate != 1) {
        return fail(err,
                    "--fused-backward moves weights after every micro-batch: --accumulate 1 "
                    "expected, not %" PRId64,
                    o->accumulate);
    }
    if (o->clip > 0) {
        return fail(err,
                    "--fused-backward knows the norm of all gradients only when it has used them: "
                    "--clip 0 expected, not %g",
                    o->clip);
    }
    return !m->tuning->take_gradients ||
           fail(err, "--fused-backward keeps no gradients, and the stage '%s' needs them",
                m->tuning->help);
}

bool train_storage_check(const struct model_setup *m, const struct train_options *o,
                         struct error *err)
{
    const struct leaf_storage *s = &m->storage;
    if (!m->tuning) return true;
    if (s->no_masters && m->dtype != DTYPE_BF16) {
        return fail(err, "--master-weights none needs --dtype bf16");
    }
    return !s->shared_gradients || check_fused(m, o, err);
}
