// tuning/policies.h - one line a policy; only the registry reads it.
#pragma once
#include "tuning/tuning.h"

extern const struct tuning tuning_full;
extern const struct tuning tuning_esft;
extern const struct tuning tuning_smt;
extern const struct tuning tuning_lora;
extern const struct tuning tuning_dora;
