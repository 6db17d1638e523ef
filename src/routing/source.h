// routing/source.h - where the state of a routing may lie: in files of a folder (a model's, or a checkpoint
// of a run), and in tensors among a model's weights, as the released ExpertCondenser code leaves it
// (docs/FORMATS.md, "The routing's state"). Finds and reads; what it means is the policies'.
#pragma once
#include "io/checkpoint.h"
#include "io/json.h"
#include "model/config.h"

// What is there. A file beats tensors.
struct routing_source {
    const char *dir;
    const struct checkpoint *checkpoint;  // its tensors are looked at, too; NULL: files alone
    bool bias, experts, gates;            // is there, in whichever form (gates: as a file only)
    const char *bias_file, *experts_file; // plain names within dir; NULL: tensors, or nothing
};

enum { SOURCE_PATH = 4096 };

// The names we write.
extern const char routing_json_name[], bias_states_name[], experts_records_name[],
    condenser_gates_name[];

// False: whether a file is there cannot be known.
bool routing_source_find(struct routing_source *s, const char *dir, const struct checkpoint *c,
                         struct error *err);
// Files and tensors that hold a routing's state, so that an export of other weights must not copy them.
bool routing_source_owns_file(const char *name);
bool routing_source_owns_tensor(const char *name, const struct model_config *c);

// An object with one entry for each layer, from the file or the tensors that were found; entries of tensors
// look like those of the file. `where` (SOURCE_PATH) is what
// messages call it. NULL on error; json_decref.
json_t *routing_source_bias(const struct routing_source *s, char *where, struct error *err);
json_t *routing_source_experts(const struct routing_source *s, char *where, struct error *err);
// The same from a file of any name.
json_t *bias_states_read(const char *path, struct error *err);
json_t *experts_records_read(const char *path, struct error *err);
