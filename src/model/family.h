// model/family.h - a row of the families table, for families.c and config.c only: the architecture's
// names and what its config class reads. Everyone else sees model_config.
#pragma once
#include "model/families.h"

// What a key of config.json means to a family.
enum field_kind {
    FIELD_SIZE, // int64_t, within [min, max]
    FIELD_REAL, // float, within [min, max]
    FIELD_FLAG, // bool
    FIELD_CODE, // read by config.c itself
    FIELD_OFF, // refused unless null, false, 0 or empty: it changes the result and is not implemented
    FIELD_HARMLESS // does not change what a forward or backward pass computes
};

struct config_field {
    const char *key; // NULL ends a list
    size_t offset;   // in struct model_config
    double min, max;
    enum field_kind kind;
    bool required;
};

enum mlp_rule {
    MLP_SPARSE, // experts in every layer
    MLP_CHOSEN, // decoder_sparse_step and mlp_only_layers choose among layers
    MLP_DENSE   // no experts
};

// Where a window narrows what a row attends to.
enum window_rule {
    WINDOW_NEVER,
    WINDOW_ALWAYS, // in every layer, unless sliding_window is null
    WINDOW_SWITCH, // in every layer, if use_sliding_window is set
    WINDOW_LAYERS  // the same, in the layers that layer_types names, or from max_window_layers on
};

struct family {
    const char *architecture, *model_type;
    const char *const *names; // (ROLE_COUNT) where they are not the usual ones; NULL: nowhere
    const struct config_field *fields; // on top of those that all families share
    enum mlp_rule mlp;
    enum window_rule window;
    struct model_config defaults; // features, and what the config class puts where a key is missing
};

extern const struct config_field common_fields[];
const struct family *family_by_architecture(const char *architecture); // NULL: none
const struct family *family_by_model_type(const char *model_type);
