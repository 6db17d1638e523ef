// tuning/tuning.h - which weights learn, and in what shape. A weight is one matrix or vector of the
// checkpoint (one expert's matrix also where the checkpoint fuses experts); a bank is a linear: G matrices
// of one shape (G = 1 in attention, E in the experts). A policy turns weights and banks into leaves; the
// optimizer, clipping and checkpoints know only leaves. Must not know routing, model internals or training.
//
// Two ways to learn go together in every policy:
//   whole weights   `learns` says which (full, esft), the globs --train and --freeze change its answer
//   adapters        `open` attaches state of its own to banks (smt, lora, dora), and hooks compute with it
// A policy that must first look at data to choose names another as its `scoring`: a stage before, in which
// nothing moves and hooks only observe; its `finish` writes the choice into a file that the policy reads.
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include "base/leaf.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "model/config.h"
#include "ops/ops.h"

struct bank;
struct tuning;

// One matrix or vector of the checkpoint.
struct weight {
    char name[NAME_MAX_LENGTH]; // Hugging Face name; of an expert's own matrix where they are fused
    char other[NAME_MAX_LENGTH];  // its name beside fused experts, where that is another; ""
    const struct st_entry *entry; // the tensor of the checkpoint that holds it,
    int64_t offset;               // from this element on
    struct tensor stored;         // mapped, read-only, in its stored type, possibly unaligned
    // What the forward pass reads: stored, or its copy on the backend, or a leaf's copy or master.
    struct tensor value;
    struct tensor grad;      // F32, absent when frozen
    bool brought;            // the value is an adapter's, not the checkpoint's
    bool learns;             // whole, as tuning_choose decided
    enum dtype copy_type;    // type of the working copy if it learns; F32: the master serves
    int64_t leaf;            // index of its leaf, -1 if frozen
    int64_t section;         // where its gradient is made (base/leaf.h)
    int64_t layer, expert;   // -1: of no layer, of no expert
    const struct bank *bank; // where it is a matrix of a linear; NULL
    int64_t group;           // within the bank
    enum weight_part {
        PART_EMBEDDING, // and the head
        PART_NORM,
        PART_ATTENTION, // projections and their biases
        PART_DENSE,     // a dense layer's MLP
        PART_EXPERT,
        PART_SHARED, // the shared expert and the gate in front of it
        PART_ROUTER
    } part;
};

struct weights {
    struct weight *weight;
    int64_t count, capacity;
    // Who looks on while values are read from the files: bytes so far, of all. NULL: nobody.
    void (*loading)(void *user, size_t done, size_t of);
    void *user;
};

// A linear: G matrices of one shape (G = 1 in attention, E in the experts), applied to rows sorted by
// group. `value` and `grad` are bound by the model after the policy has attached.
struct bank {
    char name[NAME_MAX_LENGTH]; // module: "model.layers.3.mlp.experts.*.gate_proj"; * is the group
    // What the module is, whatever the family calls it: "q_proj", "gate_proj"; NULL: routers and gates.
    const char *projection;
    // The tensor of a fused checkpoint that would hold the bank, "" if there is none such: the bank is part
    // fused_part of the fused_parts that lie one above the other in each group.
    char fused[NAME_MAX_LENGTH];
    int64_t fused_part, fused_parts;
    enum weight_part part;
    int64_t layer;
    int64_t section; // where the gradients of its matrices, and of an adapter's leaves, are made
    int64_t groups, out,
        in;              // W_g is (out, in), as torch stores it; groups 0: there is no such bank
    int64_t first_group; // of a view of some groups: where they begin in the whole bank
    const struct dispatch
        *rows;        // of the pass under way: which slots are rows; NULL: row r is token r
    int64_t max_rows; // most rows that a call can have
    int64_t *weight;  // (groups) indices in weights
    int64_t bias;     // weight index of the (out) bias, -1: none
    struct matrices value, grad; // grad.data NULL: frozen; a NULL pointer in it: that group is
    struct tensor bias_value, bias_grad;
    const struct tuning *tuning; // whose hooks apply where `adapter` is set
    void *adapter;               // the policy's own state for this bank; NULL: it has none
};

enum esft_score { ESFT_TOKEN, ESFT_GATE };
// Of smt (METHODS, "smt"). Counts of 0: by the fraction.
struct smt_options {
    int64_t block, warmup_steps;                  // side of a block; micro-batches that are scored
    int64_t blocks, attention_blocks, mlp_blocks; // budgets: one that serves the scope, or by group
    double attention_fraction, mlp_fraction;      // of the blocks of all matrices of the model
    int64_t channels;                             // columns of each group, with select activation
    int warmup, score, scope, select;             // the enums that follow
    const char *attention_targets, *mlp_targets;  // globs over modules
    const char *selection;                        // a file that the user gives; NULL: scored first
};
enum smt_warmup { SMT_WARMUP_SCORE, SMT_WARMUP_TRAIN };
enum smt_score { SMT_ABS_MEAN, SMT_MEAN_ABS, SMT_L1, SMT_L2 };
enum smt_scope { SMT_SCOPE_GROUP, SMT_SCOPE_ALL, SMT_SCOPE_MATRIX };
enum smt_select { SMT_SELECT_GRADIENT, SMT_SELECT_ACTIVATION };

// What the user chose; every field an option of the command line.
struct tuning_options {
    const char *train;  // comma-separated globs over Hugging Face names that learn besides; NULL
    const char *freeze; // globs that stay frozen; beats train; NULL
    uint64_t seed;      // of what a policy draws: initial values, dropout
    // The file in which a choice that was made on data stands (expert_cfg.json, smt_selection.json): given
    // by the user, or written by the scoring stage. NULL: not made yet (a plan, bench).
    const char *selection;
    int esft_score;      // enum esft_score
    double esft_top_p;   // share of a layer's scores that the chosen experts hold
    int64_t esft_tokens; // to score on
    bool esft_shared_experts, esft_non_expert_modules; // learn besides
    struct smt_options smt;
    // lora, dora
    int64_t lora_rank;
    double lora_alpha, lora_dropout;
    const char *lora_targets; // globs over modules (bank_matches)
    bool lora_rslora;         // alpha / sqrt(rank) instead of alpha / rank
};

// What a policy sees of the model when it opens.
struct tuning_input {
    const struct ops *ops;
    const struct model_config *config;
    const struct tuning_options *options;
    const struct weights *weights;
    struct bank *const *bank; // (n_banks) every linear of the layers, in the model's order
    int64_t n_banks;
    enum dtype compute; // type of activations
    // Layers run forward again before they go back, but for linears whose output is not needed then: what takes
    // much room should be shared between layers.
    bool recompute;
    const char *dir;                   // the base's folder
    const char *adapter_dir;           // of values to begin with; NULL: afresh
    const struct safetensors *adapter; // their file; NULL: afresh
    const char *prefix;                // in front of names in that file
};

struct tuning_state; // owned by the policy

// One tensor of an adapter's file: views of leaves on the backend.
struct adapter_tensor {
    char name[NAME_MAX_LENGTH]; // without the prefix
    struct tensor value, grad;  // F32; grad absent where nothing learns
    // Set: the policy has taken the value from this entry of the file itself, which has it in another layout.
    const struct st_entry *from;
};
typedef bool (*adapter_visitor)(void *user, const struct adapter_tensor *t, struct error *err);

struct tuning {
    const char *name, *help;
    // Checks what needs no weights: ranges, files. Not asked where nothing learns. NULL: nothing to check.
    bool (*check)(const struct tuning_options *r, const struct model_config *c, struct error *err);
    // The policy of the stage that must come before, for these options, and how long that is: `steps`
    // micro-batches, or as many as hold `tokens`. NULL, or no policy returned: none must.
    const struct tuning *(*scoring)(const struct tuning_options *r, int64_t *steps,
                                    int64_t *tokens);

    // Does this weight learn whole? Asked once for every weight, before the globs are applied. NULL: none
    // does. `st` is the policy's from `choose`, or NULL.
    bool (*learns)(const struct tuning_state *st, const struct weight *w);
    // Reads the selection before `learns` is asked: the options' file, or what the adapter's folder says.
    // Where it is not made yet it takes an upper bound of what it may hold. NULL: nothing to read.
    bool (*choose)(struct tuning_state **st, const struct tuning_input *in, struct error *err);
    // Attaches adapters: their leaves appended to `out`, their scratch in the arena, bank->adapter set. Runs
    // with a measuring arena, then a placing one, on which fresh values are filled. NULL: no adapters.
    bool (*open)(struct tuning_state **st, const struct tuning_input *in, struct arena *a,
                 struct leaves *out, struct error *err);
    void (*close)(struct tuning_state *st);
    // A forward pass (and its backward pass, and recomputation) begins: `pass` numbers the micro-batches of
    // a run, so that what is drawn at random is the same after a resume. NULL: nothing.
    void (*begin)(struct tuning_state *st, uint64_t pass, bool training);
    // Leaves have other values now: after a load and after each step. NULL: nothing.
    void (*refresh)(struct tuning_state *st);

    // Linears of banks with an adapter, the product with the bank's own matrices included (linear.h in
    // model/ has the calls for banks without): y (R,out) without bias; leaf gradients +=; dx (R,in) = or +=.
    // forward or dinput NULL: as without an adapter. The order of dweight and dinput is the caller's, and dx
    // may lie where x lay. A view (first_group) may come.
    void (*forward)(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets);
    void (*dweight)(const struct ops *o, const struct bank *w, struct tensor dy, struct tensor x,
                    struct tensor offsets);
    void (*dinput)(const struct ops *o, const struct bank *w, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate);
    // Of a scoring policy: the route of a layer in a forward pass, expert (N,S) I32 and weight (N,S) F32.
    void (*route)(struct tuning_state *st, int64_t layer, struct tensor expert,
                  struct tensor weight);
    // Of a scoring policy, whose stage ends with `finish`: it writes the selection, into a file of the run's
    // folder that goes by `selection_file`.
    const char *selection_file;
    bool (*finish)(struct tuning_state *st, const char *path, struct error *err);
    bool observes;     // nothing moves in its stage: no optimizer, no leaves
    bool forward_only; // and no backward pass is needed
    // Looks at the gradients of a step that is usable, before the update, so that they cannot be shared
    // (base/leaf.h) and the step waits for the backend to say whether it is. NULL: nothing.
    void (*take_gradients)(struct tuning_state *st);

    // The result is an adapter, not a model's folder. NULL: it is a model.
    const struct adapter_format *format;
    // w (out,in) F32, the bank's own matrix of a group in host memory, becomes the merged one. NULL: nothing to add.
    bool (*merge)(struct tuning_state *st, const struct bank *b, int64_t group, float *w,
                  struct error *err);
    // State besides leaves in a checkpoint (scores so far). NULL: none.
    bool (*save)(const struct tuning_state *st, const char *dir, struct error *err);
    bool (*load)(struct tuning_state *st, const char *dir, struct error *err);
    size_t (*saved_bytes)(const struct tuning_state *st); // about; NULL: next to nothing
};

// How adapters of a policy are kept in a folder.
struct adapter_format {
    const char *file;   // "adapter_model.safetensors"
    const char *prefix; // in front of each tensor's name: "base_model.model."
    // Writes the files beside the weights (adapter_config.json, expert_cfg.json).
    bool (*write)(const struct tuning_state *st, const struct tuning_input *in, const char *dir,
                  struct error *err);
    // Adds to moetune_adapter.json what only we read. NULL: nothing.
    bool (*describe)(const struct tuning_state *st, const struct tuning_input *in, json_t *about,
                     struct error *err);
    // Is the folder one of this policy's? Then fills the options from it.
    bool (*read)(bool *mine, struct tuning_options *r, const char *dir, struct error *err);
    // Every tensor of the adapter, whole weights aside. NULL: none.
    bool (*tensors)(const struct tuning_state *st, adapter_visitor fn, void *user,
                    struct error *err);
};

extern const struct tuning *const tunings[]; // NULL-terminated registry
const struct tuning *tuning_find(const char *name, struct error *err);
// The policy whose adapter lies in a folder, with the options that it was made with.
bool tuning_of_adapter(const struct tuning **t, struct tuning_options *r, const char *dir,
                       struct error *err);

// Sets `learns` of every weight: what the policy says, then the globs (an entry that matches nothing is
// an error). t == NULL: nothing learns.
bool tuning_choose(const struct tuning *t, const struct tuning_state *st, struct weights *w,
                   const struct tuning_options *r, struct error *err);
// Appends a leaf for each weight that learns whole and, on a placing run, fills its master from the
// stored values. Frozen weights get memory only where the backend cannot read them in their mapped file. Call
// with a measuring arena, then with a placing one.
bool tuning_leaves(struct weights *w, const struct ops *o, struct leaves *out, struct arena *a,
                   struct error *err);
bool glob_match(const char *pattern, const char *name); // '*' any run, '?' one character

// For policies.
// Calls fn for each entry of a comma-separated list until one returns false.
typedef bool (*glob_visitor)(void *user, const char *pattern, struct error *err);
bool globs_each(const char *list, glob_visitor fn, void *user, struct error *err);
// Does one of a comma-separated list of globs match the weight's name, or the fused tensor's that holds it?
bool weight_matches(const struct weight *w, const char *globs);
// Is the module one of a comma-separated list of globs, over its whole name, its last part ("w1") or what it
// is ("gate_proj")?
bool bank_matches(const struct bank *b, const char *globs);
// Marks the projections that a list of globs names; an entry that names none is an error. target (n_banks).
bool tuning_targets(bool *target, const struct tuning_input *in, const char *option,
                    const char *globs, struct error *err);
// t (groups * rows, cols) as G matrices; their pointer table lies in the arena.
struct matrices tuning_matrices(const struct ops *o, struct arena *a, struct tensor t,
                                int64_t groups);
// Groups [first, first + n) of them.
struct matrices matrices_part(const struct matrices *m, int64_t first, int64_t n);
// The name of a group's module: "model.layers.3.mlp.experts.7.gate_proj".
void bank_module(char out[NAME_MAX_LENGTH], const struct bank *b, int64_t group);
