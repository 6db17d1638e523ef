// tests/support/low_rank.h - the adapters of fixtures/make_low_rank.py over the tiny models of parity.h.
#pragma once
#include "parity.h"

#include <stdio.h>
#include <string.h>

struct low_rank_case {
    const char *name, *model, *layout;
    bool fused; // experts as one parameter a layer: A of gate and up is one there, two here
};

static const struct low_rank_case low_rank_cases[] = {
    {"lora", "olmoe-gqa", "v4", false},         {"lora", "olmoe-gqa", "v5", false},
    {"dora", "olmoe-gqa", "v5", false},         {"lora-patterns", "qwen-dense", "v4", false},
    {"dora-shared", "qwen-dense", "v4", false}, {"lora-regex", "olmoe-clip", "v5", false},
    {"fused", "olmoe-gqa", "v4", true},
};
enum { LOW_RANK_CASES = sizeof low_rank_cases / sizeof *low_rank_cases };

// A setup that begins from the adapter in `dir`, learning.
static inline struct model_setup low_rank_setup(const struct parity *p,
                                                const struct low_rank_case *c, const char *dir)
{
    struct error err = {0};
    const struct parity_case base = {c->model, c->layout};
    struct model_setup s = parity_setup(p, &base, DTYPE_F32);
    check_ok(tuning_of_adapter(&s.tuning, &s.tuning_options, dir, &err), &err);
    s.adapter = dir;
    return s;
}

static inline const char *low_rank_folder(const struct low_rank_case *c)
{
    static char dir[1024];
    snprintf(dir, sizeof dir, "%s/tuning/%s", FIXTURES, c->name);
    return dir;
}
