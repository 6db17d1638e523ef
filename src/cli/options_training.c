// cli/options_training.c - the rows of what is done with a model: optimizer, training, evaluation.
#include "cli/option_rows.h"

static const char *const schedules[] = {"constant", "linear", "cosine", "cosine-floor", NULL};
static const char *const states[] = {"f32", "bf16", "8bit", NULL};           // enum state_type
static const char *const masters[] = {"f32", "none", NULL};                  // enum master_weights
static const char *const prunes[] = {"none", "least", "most", "both", NULL}; // enum expert_prune
static const char *const correlations[] = {"none", "weights", "outputs", "both",
                                           NULL}; // enum correlation
static const char *const tasks[] = {"loss",   "exact",  "math",
                                    "choice", "loglik", NULL};    // enum eval_task
static const char *const selects[] = {"none", "esft", NULL};      // enum expert_select
static const char *const esft_scores[] = {"token", "gate", NULL}; // enum esft_score

// 1e15 below: whole numbers up to there are exact in a double.
// clang-format off
static const struct option rows[] = {
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

    {"optimizer-states", OPTION_CHOICE, GROUP_OPTIMIZER, TRAINING | BENCH, FIELD(states), "f32",
     .help = "AdamW's two moments: f32; bf16 with stochastic rounding; 8bit, in blocks of 256 with a "
             "scale (Dettmers et al.); vectors have f32 always",
     .choices = states, .decides = true},
    {"master-weights", OPTION_CHOICE, GROUP_OPTIMIZER, TRAINING | BENCH, FIELD(masters), "f32",
     .help = "none: matrices that are stored as bf16 are moved as they are, with stochastic rounding; "
             "with --dtype bf16",
     .choices = masters, .decides = true},
    {"fused-backward", OPTION_BOOL, GROUP_OPTIMIZER, TRAINING | BENCH, FIELD(fused_backward), "false",
     .help = "move weights within the backward pass, so that gradients of one half of a block exist at a "
             "time; with --accumulate 1 --clip 0. The result is the same, but gradients that are not "
             "finite where the loss is end the run instead of being skipped"},
    {"offload-states", OPTION_BOOL, GROUP_OPTIMIZER, TRAINING | BENCH, FIELD(offload_states), "false",
     .help = "keep AdamW's moments in host memory; on the CPU they are there anyway"},

    {"batch-tokens", OPTION_INT, GROUP_TRAINING, TRAINING | INSPECT, FIELD(train.batch_tokens), "4096",
     .help = "tokens of a micro-batch; whole examples are packed into it",
     .unit = "TOKENS", .min = 0, .max = 1 << 24, .decides = true},
    {"batch-sequences", OPTION_INT, GROUP_TRAINING, TRAINING | INSPECT, FIELD(train.batch_sequences), "0",
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
    {"eval-first", OPTION_BOOL, GROUP_TRAINING, TRAINING, FIELD(train.eval_first), "true",
     .help = "evaluate once before anything learns, where there is validation data"},
    {"patience", OPTION_INT, GROUP_TRAINING, TRAINING, FIELD(train.patience), "0",
     .help = "evaluations without improvement before an early stop; 0: never",
     .unit = "N", .max = 1e15},

    {"prompt", OPTION_TEXT, GROUP_GENERATION, GENERATE, FIELD(prompt), NULL,
     .help = "text to go on from",
     .unit = "TEXT", .required = GENERATE},
    {"task", OPTION_CHOICE, GROUP_GENERATION, EVAL, FIELD(task), "loss",
     .help = "loss: mean over the learnt tokens, and perplexity; exact: greedy answers equal to "
             "the references, white space around them aside; math, choice: the last number (or the first "
             "letter), the first keyword of the answer, prompted and scored as LLM-Adapters does; loglik: "
             "multiple choice by likelihood, as lm-evaluation-harness does it",
     .choices = tasks},
    {"answers", OPTION_TEXT, GROUP_GENERATION, EVAL, FIELD(answers), NULL,
     .help = "math, choice: score the outputs in this file, one for each example of --data, instead of a "
             "model's: JSON objects with `output_pred` or `output`, as --predictions writes them",
     .unit = "FILE"},
    {"beams", OPTION_INT, GROUP_GENERATION, GENERATE | EVAL, FIELD(beams), "1",
     .help = "sequences that a beam search goes on with; 1: no search, the likeliest token always (or drawn)",
     .unit = "N", .min = 1, .max = 64},
    {"max-new-tokens", OPTION_INT, GROUP_GENERATION, GENERATE, FIELD(max_new_tokens), "256",
     .help = "longest answer",
     .unit = "TOKENS", .min = 1, .max = 1 << 20},
    {"max-new-tokens", OPTION_INT, GROUP_GENERATION, EVAL, FIELD(max_new_tokens), "256",
     .help = "longest answer; for choice 32 unless given",
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
     .help = "all tasks but loss: write prompt, output, extracted answer, reference and verdict here, a JSON "
             "object a line",
     .unit = "FILE"},
    {"select", OPTION_CHOICE, GROUP_GENERATION, EXPERTS, FIELD(select), "none",
     .help = "choose experts: those that ESFT would train, into --out",
     .choices = selects},
    {"score", OPTION_CHOICE, GROUP_GENERATION, EXPERTS, FIELD(tuning_options.esft_score), "token",
     .help = "by the share of tokens that they get, or of the gates' mass: what is chosen, printed and pruned",
     .choices = esft_scores},
    {"prune", OPTION_CHOICE, GROUP_GENERATION, EXPERTS, FIELD(experts.prune), "none",
     .help = "loss and accuracy without some of each layer's experts, the router restricted to the rest: without "
             "the least used, the most used, or each in turn; a pass over the data for each share",
     .choices = prunes},
    {"prune-at", OPTION_TEXT, GROUP_GENERATION, EXPERTS, FIELD(experts.prune_at), "0,10,20,30,40,50,60,70,80,90",
     .help = "shares of a layer's experts to drop, rounded down to whole experts; the default ends where a "
             "token could not take its K any more",
     .unit = "PERCENT,..."},
    {"correlation", OPTION_CHOICE, GROUP_GENERATION, EXPERTS, FIELD(experts.correlation), "none",
     .help = "how alike a layer's experts are, as mean cosines: of their weights, of their outputs for the same "
             "tokens; with --base also there, and each expert with itself",
     .choices = correlations},
    {"correlation-tokens", OPTION_INT, GROUP_GENERATION, EXPERTS, FIELD(experts.correlation_tokens), "256",
     .help = "tokens whose outputs are compared; each runs every expert",
     .unit = "N", .min = 1, .max = 1e9},
    {"top-p", OPTION_REAL, GROUP_GENERATION, EXPERTS, FIELD(tuning_options.esft_top_p), "0.2",
     .help = "share of a layer's scores that the chosen experts hold together",
     .unit = "SHARE", .min = 1e-9, .max = 1},
    {"shared-experts", OPTION_BOOL, GROUP_GENERATION, EXPERTS,
     FIELD(tuning_options.esft_shared_experts), "false",
     .help = "say in the file that all shared experts learn, too"},
    {"non-expert-modules", OPTION_BOOL, GROUP_GENERATION, EXPERTS,
     FIELD(tuning_options.esft_non_expert_modules), "false",
     .help = "say in the file that all that is no expert learns, too"},
};
// clang-format on
const struct option_rows training_options = {rows, sizeof rows / sizeof *rows};
