// routing/policies.h - one line a policy; only the registry reads it.
#pragma once
#include "routing/routing.h"

extern const struct routing routing_topk, routing_aux, routing_bias, routing_condenser,
    routing_densemixer;
