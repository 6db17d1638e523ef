// model/families.h - config.json and an architecture's name, turned into shape, features and the names of
// tensors. The only place that knows families.
#pragma once
#include "base/error.h"
#include "io/checkpoint.h"
#include "model/config.h"

#include <stddef.h>

struct family; // a row of the table in families.c

// The roles a tensor can have in a block; the names of a role's tensors are the family's.
enum role {
    ROLE_EMBEDDING,
    ROLE_FINAL_NORM,
    ROLE_HEAD,
    ROLE_INPUT_NORM,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_O_BIAS,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_POST_NORM,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN, // dense MLP
    ROLE_GATE_BIAS,
    ROLE_UP_BIAS,
    ROLE_DOWN_BIAS,
    ROLE_ROUTER,
    ROLE_ROUTER_FUSED, // the router's name beside fused experts; a tensor's role is ROLE_ROUTER
    ROLE_EXPERT_GATE,
    ROLE_EXPERT_UP,
    ROLE_EXPERT_DOWN, // {e}: one tensor an expert
    ROLE_EXPERTS_GATE_UP,
    ROLE_EXPERTS_DOWN, // fused over experts (transformers 5)
    ROLE_SHARED_GATE,
    ROLE_SHARED_UP,
    ROLE_SHARED_DOWN,
    ROLE_SHARED_SCALE,
    ROLE_COUNT
};

// dir/config.json -> config; *family: the row. A field that changes the result and is not implemented
// is refused by its name, one that the architecture does not read gets a warning.
bool family_read_config(const struct family **family, struct model_config *c, const char *dir,
                        struct error *err);
// A config.json alone; stop_ids are its own.
bool family_read_config_file(const struct family **family, struct model_config *c, const char *path,
                             struct error *err);
// The same from text; `where` starts every message. stop_ids are config.json's own.
bool family_parse_config(const struct family **family, struct model_config *c, const char *text,
                         size_t size, const char *where, struct error *err);
// The Hugging Face name of a role in a layer, for an expert (ignored where they do not apply); empty where
// the family has no such tensor.
void family_name(char *out, size_t size, const struct family *f, enum role r, int64_t layer,
                 int64_t expert);
const char *
family_architectures(void); // "OlmoeForCausalLM, Qwen2MoeForCausalLM, ...", for messages
// modeling_moetune.py, which runs an export of ours in transformers: its class for an architecture (NULL: it
// has none), and the key of config.json's auto_map by which transformers finds that.
const char *family_remote_class(const char *architecture);
extern const char family_auto_class[];
