// routing/routing.c - the registry of policies.
#include "routing/routing.h"

#include "routing/policies.h"

#include <string.h>

const struct routing *const routings[] = {&routing_topk,      &routing_aux,        &routing_bias,
                                          &routing_condenser, &routing_densemixer, NULL};

const struct routing *routing_find(const char *name, struct error *err)
{
    for (int i = 0; routings[i]; i++) {
        if (!strcmp(routings[i]->name, name)) return routings[i];
    }
    fail(err, "routing '%s' is not known", name);
    return NULL;
}
