// cli/foreign.c - what other programs call an option (docs/MIGRATING.md), so that who writes it reads what it is here.
#include "cli/options.h"

#include <string.h>

static const struct foreign {
    const char *there, *here;
} names[] = {
    {"adam_beta1", "beta1"},
    {"adam_beta2", "beta2"},
    {"adam_epsilon", "eps"},
    {"adapter_model_name_or_path", "adapter"},
    {"adapter_name_or_path", "adapter"},
    {"additional_target", "train"},
    {"base_model", "model"},
    {"batch_size", "batch-sequences"},
    {"bf16", "dtype"},
    {"chat_template", "template"},
    {"cutoff_len", "max-length"},
    {"dataset", "data"},
    {"dataset_path", "data"},
    {"datasets", "data"},
    {"early_stopping_patience", "patience"},
    {"eval_dataset", "validation"},
    {"eval_steps", "eval-every"},
    {"evals_per_epoch", "eval-every"},
    {"expert_config", "esft-config"},
    {"finetuning_type", "tuning"},
    {"full_ft_steps", "smt-warmup-steps"},
    {"gradient_accumulation_steps", "accumulate"},
    {"gradient_checkpointing", "recompute"},
    {"learning_rate", "lr"},
    {"lora_model_dir", "adapter"},
    {"lora_modules_to_save", "train"},
    {"lora_r", "lora-rank"},
    {"lora_target", "lora-targets"},
    {"lora_target_modules", "lora-targets"},
    {"lr_scheduler", "schedule"},
    {"lr_scheduler_type", "schedule"},
    {"max_grad_norm", "clip"},
    {"max_samples", "limit"},
    {"max_seq_length", "max-length"},
    {"micro_batch_size", "batch-sequences"},
    {"model_name_or_path", "model"},
    {"modules_to_save", "train"},
    {"moe_aux_loss_coef", "aux-coef"},
    {"num_epochs", "epochs"},
    {"num_submatrix_attn", "smt-attention-blocks"},
    {"num_submatrix_mlp", "smt-mlp-blocks"},
    {"num_train_epochs", "epochs"},
    {"optim", "optimizer-states"},
    {"output_dir", "out"},
    {"overwrite_output_dir", "overwrite"},
    {"per_device_train_batch_size", "batch-sequences"},
    {"pure_bf16", "master-weights"},
    {"resume_from_checkpoint", "resume"},
    {"router_aux_loss_coef", "aux-coef"},
    {"save_steps", "save-every"},
    {"save_total_limit", "keep-last"},
    {"sequence_len", "max-length"},
    {"target_modules", "lora-targets"},
    {"test_datasets", "validation"},
    {"train_dataset", "data"},
    {"train_file", "data"},
    {"train_on_inputs", "loss-on"},
    {"train_on_prompt", "loss-on"},
    {"use_dora", "tuning"},
    {"use_rslora", "lora-rslora"},
    {"val_set_size", "validation-fraction"},
    {"val_size", "validation-fraction"},
    {"validation_file", "validation"},
};

// Words may be joined by '-' or '_'.
static bool same_words(const char *a, const char *b)
{
    while (*a && (*a == '-' ? '_' : *a) == *b) {
        a++, b++;
    }
    return !*a && !*b;
}

const char *foreign_at(int64_t i, const char **here)
{
    if (i >= (int64_t)(sizeof names / sizeof *names)) return NULL;
    *here = names[i].here;
    return names[i].there;
}

const char *foreign_option(enum command c, const char *word)
{
    const char *there, *here;
    for (int64_t i = 0; (there = foreign_at(i, &here)); i++) {
        if (same_words(word, there) && option_find(c, here)) return here;
    }
    return NULL;
}
