// tests/torture/form.h - which form of an attack runs: the short one of `make test`, or with TORTURE=full that of
// docs/RELIABILITY.md; and with TORTURE_ONLY=NAME of those that try several things one after another the ones whose name
// begins so.
#pragma once
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool torture_full(void)
{
    const char *form = getenv("TORTURE");
    return form && !strcmp(form, "full");
}

static inline bool torture_wants(const char *name)
{
    const char *only = getenv("TORTURE_ONLY");
    return !only || !strncmp(name, only, strlen(only));
}
