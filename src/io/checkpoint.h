// io/checkpoint.h - a Hugging Face model folder as a set of named tensors over its shards, and the same
// folder written again with some tensors changed. Knows names and bytes, not what they mean.
#pragma once
#include "io/safetensors.h"

struct checkpoint {
    char *dir;
    struct checkpoint_shard {
        char *file; // plain name within dir: "model-00001-of-00003.safetensors"
        char *path;
        struct safetensors st;
    } * shard;
    int64_t n_shards;
};

// model.safetensors, or model.safetensors.index.json with its shards (plain names within dir; links are
// followed, as the Hugging Face cache lays folders out). Every tensor of the index must be in the named
// shard and every tensor of a shard in the index.
bool checkpoint_open(struct checkpoint *c, const char *dir, struct error *err);
// Is there something to open? True where that cannot be known.
bool checkpoint_exists(const char *dir);
// Are its files still as long as they were when they were opened? Warns of one that was written to since.
bool checkpoint_check_files(struct checkpoint *c, struct error *err);
void checkpoint_close(struct checkpoint *c);
const struct st_entry *checkpoint_find(const struct checkpoint *c, const char *name);
const char *checkpoint_file_of(const struct checkpoint *c,
                               const struct st_entry *e); // path of its shard
int64_t checkpoint_tensors(const struct checkpoint *c);   // over all shards
const struct st_entry *checkpoint_at(const struct checkpoint *c,
                                     int64_t i); // in shard, then name order

// Writes the folder again into `out` (created; never the same folder): same names, shapes, dtypes, shards
// and metadata, side files (config, generation config, tokenizer files, chat template, licence, ...; no
// other weights, no sub-folders, nothing above 200 MB) copied byte for byte, config.json last. For each
// tensor `value` (NULL: copy all) may fill `bytes` (of the stored type and size, zeroed on entry, aligned)
// and return true, or return false to have the stored bytes copied. Memory: one tensor at a time.
typedef bool (*checkpoint_value)(void *user, const struct st_entry *entry, void *bytes);
bool checkpoint_export(const struct checkpoint *c, const char *out, checkpoint_value value,
                       void *user, struct error *err);

// The same with more to change. A shard that loses tensors gets a new header, and the index is written again
// without them; `write` comes before config.json, so that a folder without all its files does not load.
struct checkpoint_edit {
    void *user;
    checkpoint_value value;                                        // NULL: copy all
    bool (*drops_tensor)(void *user, const char *name);            // NULL: none
    bool (*drops_file)(void *user, const char *name);              // NULL: none; of the side files
    bool (*write)(void *user, const char *out, struct error *err); // files of its own; NULL: none
    const char *config; // text of config.json; NULL: copied
};
bool checkpoint_export_edited(const struct checkpoint *c, const char *out,
                              const struct checkpoint_edit *edit, struct error *err);
