// cli/options.c - the table of options. Adding an option is adding a field to the struct of the module
// that reads it, and a row here: --help, YAML, run.json and the checks of its value follow.
#include "cli/options.h"

#include <string.h>

enum {
    TRAIN = 1 << COMMAND_TRAIN,
    EVAL = 1 << COMMAND_EVAL,
    GENERATE = 1 << COMMAND_GENERATE,
    PLAN = 1 << COMMAND_PLAN,
    INSPECT = 1 << COMMAND_INSPECT,
    INIT = 1 << COMMAND_INIT,
    DUMP = 1 << COMMAND_DUMP,
    TOKENIZE = 1 << COMMAND_TOKENIZE,
    MERGE = 1 << COMMAND_MERGE,
    BENCH = 1 << COMMAND_BENCH,
    EXPERTS = 1 << COMMAND_EXPERTS,
    TRAINING = TRAIN | PLAN,
    RUNNING = TRAINING | EVAL | GENERATE | DUMP | EXPERTS, // open a whole model
    ROUTED = RUNNING | MERGE | BENCH,                      // a routing's own options
    TUNED = TRAINING | DUMP | BENCH,                       // a tuning's
    READING = TRAINING | EVAL | INSPECT | EXPERTS,         // read examples
    ALL = (1 << COMMAND_COUNT) - 1
};

static const char *const dtypes[] = {"f32", "bf16", NULL};           // enum dtype
static const char *const products[] = {"auto", "bf16", "f32", NULL}; // enum cpu_products
static const char *const loss_on[] = {"assistant", "all", "last", NULL};
static const char *const too_long[] = {"drop", "cut-left", "cut-right", "refuse", NULL};
static const char *const schedules[] = {"constant", "linear", "cosine", "cosine-floor", NULL};
// The enums of routing/routing.h.
static const char *const bias_sign[] = {"sparsify", "balance", NULL};
static const char *const bias_usage[] = {"soft", "count", NULL};
static const char *const bias_every[] = {"step", "micro-batch", NULL};
static const char *const choices_by[] = {"lowest-bias", "highest-bias", "least-used", "most-used",
                                         NULL};
static const char *const shares[] = {"bias-std", "usage-gini", NULL};
static const char *const telemetry[] = {"on", "off", "both", NULL}; // enum bench_telemetry
// The enums of tuning/tuning.h.
static const char *const smt_warmups[] = {"score", "train", NULL};
static const char *const smt_scores[] = {"abs_mean", "mean_abs", "l1", "l2", NULL};
static const char *const smt_scopes[] = {"group", "all", "matrix", NULL};
static const char *const smt_selects[] = {"gradient", "activation", NULL};
static const char *const tasks[] = {"loss", "exact", NULL};
static const char *const selects[] = {"none", "esft", NULL};                // enum expert_select
static const char *const esft_scores[] = {"token", "gate", NULL};           // enum esft_score
static const char *const exports[] = {"last", "best", NULL};                // enum export_choice
static const char *const stored[] = {"config", "f32", "bf16", "f16", NULL}; // cmd_init.c

static const char *routing_name(int64_t i)
{
    return routings[i] ? routings[i]->name : NULL;
}

static const char *routing_help(int64_t i)
{
    return routings[i]->help;
}

static const char *tuning_name(int64_t i)
{
    return tunings[i] ? tunings[i]->name : NULL;
}

static const char *tuning_help(int64_t i)
{
    return tunings[i]->help;
}

static const char *template_name(int64_t i)
{
    return chat_templates[i] ? chat_templates[i]->name : NULL;
}

static const char *template_help(int64_t i)
{
    return chat_templates[i]->help;
}

static const struct registry routing_registry = {routing_name, routing_help};
static const struct registry tuning_registry = {tuning_name, tuning_help};
static const struct registry template_registry = {template_name, template_help};

// 1e15 below: whole numbers up to there are exact in a double.
#define FIELD(name) offsetof(struct run_config, name)

// clang-format off
const struct option option_table[] = {
    // name, type, group, commands, field, default, then what only some need
    {"model", OPTION_TEXT, GROUP_MODEL, RUNNING | MERGE | INSPECT | TOKENIZE, FIELD(model), NULL,
     .help = "Hugging Face folder: config.json, safetensors, tokenizer.json",
     .unit = "DIR", .required = (RUNNING & ~EXPERTS) | MERGE | TOKENIZE},
    {"adapter", OPTION_TEXT, GROUP_MODEL, RUNNING | MERGE, FIELD(adapter), NULL,
     .help = "folder of an adapter to put on the model; train goes on from it",
     .unit = "DIR", .required = MERGE, .decides = true},
    {"config", OPTION_TEXT, GROUP_MODEL, INIT | BENCH, FIELD(config), NULL,
     .help = "a model's config.json: the shape to make",
     .unit = "FILE", .required = INIT | BENCH},
    {"dtype", OPTION_CHOICE, GROUP_MODEL, TRAINING | EVAL | GENERATE | BENCH | EXPERTS, FIELD(dtype), "bf16",
     .help = "type of activations and products; sums, masters and losses are f32 always",
     .choices = dtypes, .decides = true},
    {"dtype", OPTION_CHOICE, GROUP_MODEL, DUMP, FIELD(dtype), "f32",
     .help = "type of activations and products",
     .choices = dtypes},
    {"dtype", OPTION_CHOICE, GROUP_MODEL, INIT, FIELD(dtype), "config",
     .help = "type in which the weights are stored; config: what config.json says, else bf16",
     .choices = stored},

    {"data", OPTION_TEXTS, GROUP_DATA, READING, FIELD(data), NULL,
     .help = "examples, JSON or JSONL: messages, prompt/completion, instruction/input/output, "
             "conversations, question/answer, text, or input_ids/labels",
     .unit = "FILE...", .required = TRAINING | EVAL},
    {"validation", OPTION_TEXTS, GROUP_DATA, TRAINING, FIELD(validation), NULL,
     .help = "examples for evaluation during training, never trained on",
     .unit = "FILE..."},
    {"validation-fraction", OPTION_REAL, GROUP_DATA, TRAINING, FIELD(validation_fraction), "0",
     .help = "share of --data held out for evaluation instead",
     .unit = "SHARE", .min = 0, .max = 0.9},
    {"template", OPTION_NAME, GROUP_DATA, READING, FIELD(template), "plain",
     .help = "how a conversation becomes text:",
     .unit = "NAME", .registry = &template_registry},
    {"template", OPTION_NAME, GROUP_DATA, GENERATE, FIELD(template), NULL,
     .help = "wrap the prompt as a user's turn; without it the prompt is taken as it is:",
     .unit = "NAME", .registry = &template_registry},
    {"special-text", OPTION_BOOL, GROUP_DATA, READING, FIELD(dataset.special_text), "false",
     .help = "special tokens written out in `text` examples become their ids"},
    {"loss-on", OPTION_CHOICE, GROUP_DATA, READING, FIELD(dataset.loss_on), "assistant",
     .help = "which tokens are learnt: the assistant's turns, all, or the last turn",
     .choices = loss_on},
    {"max-length", OPTION_INT, GROUP_DATA, READING, FIELD(dataset.max_length), "2048",
     .help = "tokens of an example",
     .unit = "TOKENS", .min = 2, .max = 1 << 20},
    {"too-long", OPTION_CHOICE, GROUP_DATA, READING, FIELD(dataset.too_long), "cut-right",
     .help = "what happens to a longer example; dropped and cut ones are counted",
     .choices = too_long},
    {"skip-bad", OPTION_BOOL, GROUP_DATA, READING, FIELD(dataset.skip_bad), "false",
     .help = "count malformed examples instead of stopping at the first"},
    {"limit", OPTION_INT, GROUP_DATA, READING, FIELD(dataset.limit), "0",
     .help = "read only the first so many examples of --data; 0: all",
     .unit = "EXAMPLES", .max = 1e15},
    {"examples", OPTION_INT, GROUP_DATA, INSPECT, FIELD(examples), "3",
     .help = "examples to show token by token",
     .unit = "N", .max = 1e6},
    {"batch", OPTION_TEXT, GROUP_DATA, DUMP, FIELD(batch), NULL,
     .help = "JSON: {\"input_ids\": [[..]], \"labels\": [[..]]}, optional segment_ids; label -100 "
             "is ignored, labels are shifted inside",
     .unit = "FILE", .required = DUMP},
    {"tokens", OPTION_INT, GROUP_DATA, BENCH, FIELD(tokens), "4096",
     .help = "tokens of a step, as sequences of 1,024 random ids",
     .unit = "N", .min = 2, .max = 1 << 24},
    {"tokens", OPTION_INT, GROUP_DATA, EXPERTS, FIELD(tuning_options.esft_tokens), "131072",
     .help = "score on micro-batches of the shuffled data until so many tokens were seen; 0: on all",
     .unit = "N", .max = 1e15},
    {"from-log", OPTION_TEXT, GROUP_DATA, EXPERTS, FIELD(from_log), NULL,
     .help = "instead of --data: a folder of routing logs, expert_weights_LAYER.txt in it or in rank_*/ "
             "below it; needs no model",
     .unit = "DIR"},
    {"decode", OPTION_BOOL, GROUP_DATA, TOKENIZE, FIELD(decode), "false",
     .help = "read a JSON array of ids on each line and write text"},
    {"special", OPTION_BOOL, GROUP_DATA, TOKENIZE, FIELD(special), "false",
     .help = "special tokens in the text become their ids; with --decode they are written"},

    {"routing", OPTION_NAME, GROUP_ROUTING, RUNNING | MERGE, FIELD(routing), "topk",
     .help = "how tokens reach experts, and what the router learns from; a folder that holds a routing's "
             "state (routing.json) is run by it unless another is given:",
     .unit = "NAME", .registry = &routing_registry, .decides = true},
    {"routing", OPTION_NAMES, GROUP_ROUTING, BENCH, FIELD(routings), "topk",
     .help = "routings to measure, each with every tuning:",
     .unit = "LIST", .registry = &routing_registry},

    {"aux-coef", OPTION_REAL, GROUP_ROUTING, ROUTED, FIELD(routing_options.aux_coef), "-1",
     .help = "weight of the load-balancing loss, with any routing; -1: the checkpoint's for aux, else 0",
     .unit = "X", .min = -1, .max = 1e6, .decides = true},
    {"z-coef", OPTION_REAL, GROUP_ROUTING, ROUTED, FIELD(routing_options.z_coef), "0",
     .help = "weight of the router's z-loss, with any routing",
     .unit = "X", .max = 1e6, .decides = true},
    {"bias-in", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_in), "default",
     .help = "where the bias enters: the choice alone, or the logits; default: selection, or logits "
             "under the preset released",
     .choices = bias_in_names, .decides = true},
    {"bias-rate", OPTION_REAL, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_rate), "1e-3",
     .help = "how far the bias moves in a step (phase 1 of condenser)",
     .unit = "RATE", .max = 1e3, .decides = true},
    {"bias-sign", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_sign), "sparsify",
     .help = "busy experts get busier, or less busy",
     .choices = bias_sign, .decides = true},
    {"bias-usage", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_usage), "soft",
     .help = "what the bias follows: the sum of probabilities, or the number of tokens",
     .choices = bias_usage, .decides = true},
    {"bias-every", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_every), "step",
     .help = "when the bias moves",
     .choices = bias_every, .decides = true},
    {"bias-limit", OPTION_REAL, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_limit), "0",
     .help = "the bias stays within +-X; 0: no limit",
     .unit = "X", .max = 1e6, .decides = true},
    {"bias-file", OPTION_TEXT, GROUP_ROUTING, ROUTED, FIELD(routing_options.bias_file), NULL,
     .help = "moe_bias_states.json to start from; for condenser it takes the place of phase 1",
     .unit = "FILE", .decides = true},
    {"phase1-epochs", OPTION_REAL, GROUP_ROUTING, TRAINING, FIELD(routing_options.phase1_epochs), "1",
     .help = "condenser: passes over the data in which the bias is learnt; phase 2 has --epochs",
     .unit = "N", .min = 1e-9, .max = 1e6, .decides = true},
    {"phase2-rate", OPTION_REAL, GROUP_ROUTING, ROUTED, FIELD(routing_options.phase2_rate), "5e-5",
     .help = "condenser: how far the bias moves in a step of phase 2",
     .unit = "RATE", .max = 1e3, .decides = true},
    {"condenser-preset", OPTION_CHOICE, GROUP_ROUTING, ROUTED,
     FIELD(routing_options.condenser_preset), "paper",
     .help = "paper: a token still runs K experts; released: the condensers come on top",
     .choices = condenser_preset_names, .decides = true},
    {"condenser-count", OPTION_TEXT, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_count), "2",
     .help = "condensers of a layer: one number, or one for each MoE layer",
     .unit = "N,...", .decides = true},
    {"condenser-thirds", OPTION_TEXT, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_thirds),
     NULL,
     .help = "condensers of an early, a middle and a late layer",
     .unit = "N,N,N", .decides = true},
    {"condenser-total", OPTION_INT, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_total), "0",
     .help = "condensers of all layers together, shared out by --condenser-share; 0: by count",
     .unit = "N", .max = 1e6, .decides = true},
    {"condenser-max", OPTION_INT, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_max), "4",
     .help = "condensers of a layer at most, under --condenser-total",
     .unit = "N", .min = 1, .max = 4096, .decides = true},
    {"condenser-share", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_share),
     "bias-std",
     .help = "by what --condenser-total is shared out",
     .choices = shares, .decides = true},
    {"condenser-gini-power", OPTION_REAL, GROUP_ROUTING, ROUTED,
     FIELD(routing_options.condenser_gini_power), "1",
     .help = "usage-gini: the power q of the Gini coefficient",
     .unit = "Q", .max = 100, .decides = true},
    {"condenser-choice", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_choice),
     "lowest-bias",
     .help = "which experts become condensers",
     .choices = choices_by, .decides = true},
    {"condenser-experts", OPTION_TEXT, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_experts),
     NULL,
     .help = "the condensers by name, in place of phase 1: 3,7 in every MoE layer, '3,7;1,4' in one after "
             "another, or a forced_experts_records.json",
     .unit = "LIST|FILE", .decides = true},
    {"condenser-gate", OPTION_CHOICE, GROUP_ROUTING, ROUTED, FIELD(routing_options.condenser_gate),
     "router",
     .help = "a condenser's gate: its router probability, a sigmoid or softmax of its own, or 1",
     .choices = condenser_gate_names, .decides = true},

    {"telemetry", OPTION_CHOICE, GROUP_ROUTING, BENCH, FIELD(telemetry), "on",
     .help = "with what train gathers for metrics.jsonl in each step, without, or each in turn",
     .choices = telemetry},

    {"tuning", OPTION_NAME, GROUP_TUNING, TRAINING | DUMP, FIELD(tuning), "full",
     .help = "which weights learn, and in what shape:",
     .unit = "NAME", .registry = &tuning_registry, .decides = true},
    {"tuning", OPTION_NAMES, GROUP_TUNING, BENCH, FIELD(tunings), "full",
     .help = "tunings to measure:",
     .unit = "LIST", .registry = &tuning_registry},
    {"train", OPTION_TEXT, GROUP_TUNING, TRAINING | DUMP, FIELD(tuning_options.train), NULL,
     .help = "globs over Hugging Face names, separated by commas: weights that learn besides",
     .unit = "GLOBS", .decides = true},
    {"freeze", OPTION_TEXT, GROUP_TUNING, TRAINING | DUMP, FIELD(tuning_options.freeze), NULL,
     .help = "globs of weights that stay as they are; beats --train",
     .unit = "GLOBS", .decides = true},
    {"smt-block", OPTION_INT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.block), "256",
     .help = "smt: rows and columns of a block; less at a matrix's lower and right edge",
     .unit = "N", .min = 1, .max = 1 << 20, .decides = true},
    {"smt-blocks", OPTION_INT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.blocks), "0",
     .help = "smt: blocks that learn: those of attention (scope group), of all (all), of each matrix "
             "(matrix); 0: by the budgets of the groups",
     .unit = "N", .max = 1e12, .decides = true},
    {"smt-attention-fraction", OPTION_REAL, GROUP_TUNING, TUNED,
     FIELD(tuning_options.smt.attention_fraction), "0.0084",
     .help = "smt: blocks of attention that learn, as a share of the blocks of all matrices of the model",
     .unit = "SHARE", .max = 1, .decides = true},
    {"smt-mlp-fraction", OPTION_REAL, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.mlp_fraction), "0",
     .help = "smt: the same for MLPs, experts and shared experts",
     .unit = "SHARE", .max = 1, .decides = true},
    {"smt-attention-blocks", OPTION_INT, GROUP_TUNING, TUNED,
     FIELD(tuning_options.smt.attention_blocks), "0",
     .help = "smt: their number instead; with scope matrix in each matrix; 0: by the fraction",
     .unit = "N", .max = 1e12, .decides = true},
    {"smt-mlp-blocks", OPTION_INT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.mlp_blocks), "0",
     .help = "smt: the same for MLPs, experts and shared experts",
     .unit = "N", .max = 1e12, .decides = true},
    {"smt-attention-targets", OPTION_TEXT, GROUP_TUNING, TUNED,
     FIELD(tuning_options.smt.attention_targets), "q_proj,k_proj,v_proj",
     .help = "smt: globs over modules of attention in which blocks may be chosen",
     .unit = "GLOBS", .decides = true},
    {"smt-mlp-targets", OPTION_TEXT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.mlp_targets),
     "gate_proj,up_proj,down_proj",
     .help = "smt: the same for MLPs, experts and shared experts",
     .unit = "GLOBS", .decides = true},
    {"smt-scope", OPTION_CHOICE, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.scope), "group",
     .help = "smt: one ranking over all layers for attention and one for MLPs, one over both, or one for "
             "each matrix",
     .choices = smt_scopes, .decides = true},
    {"smt-select", OPTION_CHOICE, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.select), "gradient",
     .help = "smt: blocks by their gradient, or whole columns by the activation that comes into them",
     .choices = smt_selects, .decides = true},
    {"smt-channels", OPTION_INT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.channels), "30",
     .help = "smt: columns of attention and of MLPs each, with --smt-select activation",
     .unit = "N", .min = 1, .max = 1e9, .decides = true},
    {"smt-score", OPTION_CHOICE, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.score), "abs_mean",
     .help = "smt: what a block is ranked by",
     .choices = smt_scores, .decides = true},
    {"smt-warmup-steps", OPTION_INT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.warmup_steps), "100",
     .help = "smt: micro-batches that are scored first, or steps of --smt-warmup train",
     .unit = "N", .min = 1, .max = 1e9, .decides = true},
    {"smt-warmup", OPTION_CHOICE, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.warmup), "score",
     .help = "smt: score: nothing moves meanwhile; train: all weights learn, and the result is a model",
     .choices = smt_warmups, .decides = true},
    {"smt-selection", OPTION_TEXT, GROUP_TUNING, TUNED, FIELD(tuning_options.smt.selection), NULL,
     .help = "smt: an smt_selection.json; nothing is scored then",
     .unit = "FILE", .decides = true},

    {"esft-score", OPTION_CHOICE, GROUP_TUNING, TRAINING, FIELD(tuning_options.esft_score), "token",
     .help = "esft: experts by the share of tokens that they get, or of the gates' mass",
     .choices = esft_scores, .decides = true},
    {"esft-top-p", OPTION_REAL, GROUP_TUNING, TUNED, FIELD(tuning_options.esft_top_p), "0.2",
     .help = "esft: share of a layer's scores that the experts which learn hold together",
     .unit = "SHARE", .min = 1e-9, .max = 1, .decides = true},
    {"esft-tokens", OPTION_INT, GROUP_TUNING, TRAINING, FIELD(tuning_options.esft_tokens), "131072",
     .help = "esft: tokens of --data to score experts on, before training",
     .unit = "TOKENS", .min = 1, .max = 1e15, .decides = true},
    {"esft-config", OPTION_TEXT, GROUP_TUNING, TUNED, FIELD(tuning_options.selection), NULL,
     .help = "esft: expert_cfg.json that says which experts learn; nothing is scored then",
     .unit = "FILE", .decides = true},
    {"esft-shared-experts", OPTION_BOOL, GROUP_TUNING, TUNED,
     FIELD(tuning_options.esft_shared_experts), "false",
     .help = "esft: all shared experts learn, too",
     .decides = true},
    {"esft-non-expert-modules", OPTION_BOOL, GROUP_TUNING, TUNED,
     FIELD(tuning_options.esft_non_expert_modules), "false",
     .help = "esft: all that is no expert learns, too: embeddings, attention, norms, routers, the head",
     .decides = true},

    {"lr", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.lr), "1e-5",
     .help = "peak learning rate",
     .unit = "RATE", .max = 1e3, .decides = true},
    {"schedule", OPTION_CHOICE, GROUP_OPTIMIZER, TRAINING, FIELD(train.schedule), "cosine-floor",
     .help = "how the learning rate falls after the warm-up",
     .choices = schedules, .decides = true},
    {"min-lr-rate", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.min_lr_rate), "0.1",
     .help = "floor of cosine-floor, as a share of --lr",
     .unit = "SHARE", .max = 1, .decides = true},
    {"warmup-steps", OPTION_INT, GROUP_OPTIMIZER, TRAINING, FIELD(train.warmup_steps), "0",
     .help = "steps over which the learning rate rises; 0: by --warmup-ratio",
     .unit = "STEPS", .max = 1e15, .decides = true},
    {"warmup-ratio", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.warmup_ratio), "0.1",
     .help = "the same as a share of all steps",
     .unit = "SHARE", .max = 1, .decides = true},
    {"weight-decay", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.weight_decay), "0",
     .help = "decoupled, never on vectors",
     .unit = "RATE", .max = 1e3, .decides = true},
    {"beta1", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.beta1), "0.9",
     .help = "AdamW: decay of the mean gradient",
     .unit = "RATE", .max = 0.999999999, .decides = true},
    {"beta2", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.beta2), "0.999",
     .help = "AdamW: decay of the mean square",
     .unit = "RATE", .max = 0.999999999, .decides = true},
    {"eps", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.eps), "1e-8",
     .help = "AdamW: added to the root of the mean square",
     .unit = "X", .min = 1e-30, .max = 1, .decides = true},
    {"clip", OPTION_REAL, GROUP_OPTIMIZER, TRAINING, FIELD(train.clip), "1",
     .help = "largest norm of all gradients together; 0: none",
     .unit = "NORM", .max = 1e30, .decides = true},

    {"batch-tokens", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.batch_tokens), "4096",
     .help = "tokens of a micro-batch; whole examples are packed into it",
     .unit = "TOKENS", .min = 0, .max = 1 << 24, .decides = true},
    {"batch-sequences", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.batch_sequences), "0",
     .help = "examples of a micro-batch; 0: as many as fit in --batch-tokens",
     .unit = "EXAMPLES", .max = 1 << 24, .decides = true},
    {"batch-sequences", OPTION_INT, GROUP_TRAINING, EVAL, FIELD(train.batch_sequences), "16",
     .help = "sequences generated side by side",
     .unit = "N", .min = 1, .max = 4096, .decides = true},
    {"batch-tokens", OPTION_INT, GROUP_TRAINING, EVAL | EXPERTS, FIELD(train.batch_tokens), "4096",
     .help = "tokens scored at a time",
     .unit = "TOKENS", .min = 2, .max = 1 << 24, .decides = true},
    {"accumulate", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.accumulate), "1",
     .help = "micro-batches of an optimizer step, weighed by tokens",
     .unit = "N", .min = 1, .max = 1e6, .decides = true},
    {"epochs", OPTION_REAL, GROUP_TRAINING, TRAINING, FIELD(train.epochs), "1",
     .help = "passes over the data",
     .unit = "N", .max = 1e6, .decides = true},
    {"max-steps", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.max_steps), "0",
     .help = "optimizer steps; 0: by --epochs",
     .unit = "STEPS", .max = 1e15, .decides = true},
    {"shuffle", OPTION_BOOL, GROUP_TRAINING, TRAINING, FIELD(train.shuffle), "true",
     .help = "a new order of examples in every epoch, from --seed",
     .decides = true},
    {"recompute", OPTION_BOOL, GROUP_TRAINING, TRAINING, FIELD(recompute), "true",
     .help = "keep layer inputs only and compute the rest again going back: less memory, more "
             "time"},
    {"recompute", OPTION_BOOL, GROUP_TRAINING, BENCH, FIELD(recompute), "false",
     .help = "keep layer inputs only and compute the rest again going back: less memory, more "
             "time"},
    {"eval-every", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.eval_every), "0",
     .help = "steps between evaluations; 0: at the end only",
     .unit = "STEPS", .max = 1e15},
    {"patience", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.patience), "0",
     .help = "evaluations without improvement before an early stop; 0: never",
     .unit = "N", .max = 1e15},

    {"prompt", OPTION_TEXT, GROUP_GENERATION, GENERATE, FIELD(prompt), NULL,
     .help = "text to go on from",
     .unit = "TEXT", .required = GENERATE},
    {"task", OPTION_CHOICE, GROUP_GENERATION, EVAL, FIELD(task), "loss",
     .help = "loss: mean over the learnt tokens, and perplexity; exact: greedy answers equal to "
             "the references, white space around them aside",
     .choices = tasks},
    {"max-new-tokens", OPTION_INT, GROUP_GENERATION, GENERATE | EVAL, FIELD(max_new_tokens), "256",
     .help = "longest answer",
     .unit = "TOKENS", .min = 1, .max = 1 << 20},
    {"temperature", OPTION_REAL, GROUP_GENERATION, GENERATE, FIELD(temperature), "0",
     .help = "0: the likeliest token always; above: drawn, flatter as it grows",
     .unit = "X", .max = 100},
    {"top-k", OPTION_INT, GROUP_GENERATION, GENERATE, FIELD(top_k), "0",
     .help = "draw from the likeliest so many; 0: all",
     .unit = "N", .max = 1 << 24},
    {"top-p", OPTION_REAL, GROUP_GENERATION, GENERATE, FIELD(top_p), "1",
     .help = "draw from the likeliest that hold this much probability",
     .unit = "SHARE", .min = 1e-9, .max = 1},
    {"predictions", OPTION_TEXT, GROUP_GENERATION, EVAL, FIELD(predictions), NULL,
     .help = "exact: write prompt, prediction, reference and verdict here, a JSON object a line",
     .unit = "FILE"},

    {"select", OPTION_CHOICE, GROUP_GENERATION, EXPERTS, FIELD(select), "none",
     .help = "choose experts: those that ESFT would train, into --out",
     .choices = selects},
    {"score", OPTION_CHOICE, GROUP_GENERATION, EXPERTS, FIELD(tuning_options.esft_score), "token",
     .help = "by the share of tokens that they get, or of the gates' mass",
     .choices = esft_scores},
    {"top-p", OPTION_REAL, GROUP_GENERATION, EXPERTS, FIELD(tuning_options.esft_top_p), "0.2",
     .help = "share of a layer's scores that the chosen experts hold together",
     .unit = "SHARE", .min = 1e-9, .max = 1},
    {"shared-experts", OPTION_BOOL, GROUP_GENERATION, EXPERTS,
     FIELD(tuning_options.esft_shared_experts), "false",
     .help = "say in the file that all shared experts learn, too"},
    {"non-expert-modules", OPTION_BOOL, GROUP_GENERATION, EXPERTS,
     FIELD(tuning_options.esft_non_expert_modules), "false",
     .help = "say in the file that all that is no expert learns, too"},

    {"merge", OPTION_BOOL, GROUP_OUTPUT, TRAINING, FIELD(merge), "false",
     .help = "write the result as a whole model, the adapter folded in, instead of the adapter alone"},
    {"out", OPTION_TEXT, GROUP_OUTPUT, TRAINING, FIELD(out), NULL,
     .help = "the run's folder: run.json, metrics.jsonl, checkpoint-N/, and the result: model/, or "
             "adapter/ where the tuning makes one",
     .unit = "DIR", .required = TRAIN},
    {"out", OPTION_TEXT, GROUP_OUTPUT, MERGE, FIELD(out), NULL,
     .help = "the folder to make",
     .unit = "DIR", .required = MERGE},
    {"out", OPTION_TEXT, GROUP_OUTPUT, INIT, FIELD(out), NULL,
     .help = "the folder to make",
     .unit = "DIR", .required = INIT},
    {"out", OPTION_TEXT, GROUP_OUTPUT, DUMP, FIELD(out), NULL,
     .help = "the safetensors file to write",
     .unit = "FILE", .required = DUMP},
    {"out", OPTION_TEXT, GROUP_OUTPUT, EXPERTS, FIELD(out), NULL,
     .help = "--select esft: the expert_cfg.json to write",
     .unit = "FILE"},
    {"fused", OPTION_BOOL, GROUP_MODEL, INIT, FIELD(fused), "false",
     .help = "all experts of a layer in one tensor, as transformers 5 may store them"},
    {"shard-mb", OPTION_INT, GROUP_OUTPUT, INIT, FIELD(shard_mb), "5000",
     .help = "largest safetensors file", .unit = "MIB", .min = 1, .max = 1e9},
    {"overwrite", OPTION_BOOL, GROUP_OUTPUT, INIT, FIELD(overwrite), "false",
     .help = "replace the model that --out holds"},
    {"gradients", OPTION_BOOL, GROUP_OUTPUT, DUMP, FIELD(gradients), "false",
     .help = "also the gradient of every weight that learns"},
    {"resume", OPTION_BOOL, GROUP_OUTPUT, TRAIN, FIELD(resume), "false",
     .help = "go on from the newest good checkpoint in --out; without --config the run's own "
             "run.json gives the options"},
    {"overwrite", OPTION_BOOL, GROUP_OUTPUT, TRAINING, FIELD(overwrite), "false",
     .help = "replace the run that --out holds"},
    {"save-every", OPTION_INT, GROUP_OUTPUT, TRAINING, FIELD(save_every), "0",
     .help = "steps between checkpoints; 0: at the end and when stopped",
     .unit = "STEPS", .max = 1e15},
    {"keep-last", OPTION_INT, GROUP_OUTPUT, TRAINING, FIELD(keep_last), "1",
     .help = "newest checkpoints to keep, besides the best",
     .unit = "N", .min = 1, .max = 1e6},
    {"export", OPTION_CHOICE, GROUP_OUTPUT, TRAINING, FIELD(export), "last",
     .help = "which weights become OUT/model: the last, or those of the lowest validation loss",
     .choices = exports},
    {"config", OPTION_TEXT, GROUP_OUTPUT, ALL & ~(INIT | BENCH), FIELD(config), NULL,
     .help = "YAML (or a run.json): the same options in snake_case; a flag beats the file",
     .unit = "FILE"},
    {"json", OPTION_BOOL, GROUP_OUTPUT, ALL & ~(INIT | DUMP | TOKENIZE), FIELD(json), "false",
     .help = "machine-readable lines on stdout; words for people go to stderr"},
    {"show-routing", OPTION_BOOL, GROUP_OUTPUT, TRAIN, FIELD(show_routing), "false",
     .help = "in the progress line also what the experts did: cover80 (how many cover 80 % of the load), "
             "gini, dead experts, the largest bias, the choices that it changed, the condensers' share of "
             "the load; means over layers. With --json all of it"},
    {"quiet", OPTION_BOOL, GROUP_OUTPUT, ALL, FIELD(quiet), "false",
     .help = "no progress and no notes"},

    {"threads", OPTION_INT, GROUP_MACHINE, ALL, FIELD(threads), "0",
     .help = "0: all cores that the process may use",
     .unit = "N", .max = 4096},
    {"products", OPTION_CHOICE, GROUP_MACHINE, RUNNING | BENCH, FIELD(products), "auto",
     .help = "type of matrix products under --dtype bf16: bf16 where the processor is fast at it, "
             "else f32",
     .choices = products, .decides = true},
    {"seed", OPTION_INT, GROUP_MACHINE, ALL, FIELD(seed), "1234",
     .help = "of every random draw",
     .unit = "N", .max = 1e15, .decides = true},
};
// clang-format on
const int64_t option_count = sizeof option_table / sizeof *option_table;

bool option_in(const struct option *row, enum command c)
{
    return (row->commands >> c) & 1U;
}

const struct option *option_find(enum command c, const char *name)
{
    for (int64_t i = 0; i < option_count; i++) {
        if (option_in(&option_table[i], c) && !strcmp(option_table[i].name, name)) {
            return &option_table[i];
        }
    }
    return NULL;
}

const char *option_group_name(enum option_group g)
{
    static const char *const names[GROUP_COUNT] = {
        [GROUP_MODEL] = "model",           [GROUP_DATA] = "data",
        [GROUP_ROUTING] = "routing",       [GROUP_TUNING] = "tuning",
        [GROUP_OPTIMIZER] = "optimizer",   [GROUP_TRAINING] = "training",
        [GROUP_GENERATION] = "evaluation", [GROUP_OUTPUT] = "output",
        [GROUP_MACHINE] = "machine",
    };
    return names[g];
}
