// cli/commands.c - the table of commands, as --help prints it.
#include "cli/commands.h"

#include <string.h>

const struct command_row commands[COMMAND_COUNT] = {
    [COMMAND_TRAIN] =
        {"train", "fine-tune a checkpoint on files of examples",
         "--model DIR --data FILE... --out DIR [--option value]",
         "  moetune train --model OLMoE-1B-7B-0924 --data train.jsonl --out run --lr 1e-5\n"
         "  moetune train --model base --data a.jsonl b.json --validation held-out.jsonl \\\n"
         "      --freeze '*.mlp.gate.weight' --eval-every 50 --patience 3 --out run\n"
         "  moetune train --config run.yaml --max-steps 20 --out trial\n"
         "  moetune train --out run --resume\n",
         command_train},
    [COMMAND_EVAL] =
        {"eval", "score a model: loss, answers, or multiple choice by likelihood",
         "--model DIR --data FILE... [--task loss|exact|math|choice|loglik]",
         "  moetune eval --model run/model --data test.jsonl\n"
         "  moetune eval --model run/model --data test.jsonl --task exact --limit 200 \\\n"
         "      --predictions predictions.jsonl --json\n"
         "  moetune eval --model run/model --data AddSub/test.json SVAMP/test.json --task math "
         "--beams 4\n"
         "  moetune eval --data boolq/test.json --task choice --answers predictions.jsonl\n",
         command_eval},
    [COMMAND_GENERATE] =
        {"generate", "go on from a prompt", "--model DIR --prompt TEXT [--option value]",
         "  moetune generate --model run/model --prompt 'Once upon a time'\n"
         "  moetune generate --model run/model --template tulu --prompt 'What is 12 * 7?' \\\n"
         "      --temperature 0.7 --top-p 0.9 --seed 1\n",
         command_generate},
    [COMMAND_PLAN] =
        {"plan", "memory by purpose and disk of a training run, before anything is allocated",
         "--model DIR --data FILE... [train's options]",
         "  moetune plan --model OLMoE-1B-7B-0924 --data train.jsonl --batch-tokens 8192\n"
         "  moetune plan --config run.yaml --json\n",
         command_plan},
    [COMMAND_INSPECT] =
        {"inspect", "what a model folder or a file of examples holds",
         "--model DIR and/or --data FILE... [--option value]",
         "  moetune inspect --model OLMoE-1B-7B-0924\n"
         "  moetune inspect --model base --data train.jsonl --template tulu --examples 2\n",
         command_inspect},
    [COMMAND_INIT] = {"init", "a checkpoint with random weights, of any shape",
                      "--config config.json --out DIR",
                      "  moetune init --config config.json --out random --seed 1\n", command_init},
    [COMMAND_DUMP] =
        {"dump", "logits, loss, routes and gradients, for checking against another implementation",
         "--model DIR --batch FILE.json --out FILE.safetensors [--gradients]",
         "  moetune dump --model base --batch batch.json --out values.safetensors --gradients\n",
         command_dump},
    [COMMAND_TOKENIZE] = {"tokenize",
                          "a JSON array of ids for each line of FILE or of standard input",
                          "--model DIR [FILE] [--decode] [--special]",
                          "  moetune tokenize --model base prompts.txt\n"
                          "  echo '[1, 2, 3]' | moetune tokenize --model base --decode\n",
                          command_tokenize},
    [COMMAND_MERGE] = {"merge", "fold an adapter into its base: a folder that any reader loads",
                       "--model DIR --adapter DIR --out DIR",
                       "  moetune merge --model base --adapter run/adapter --out merged\n",
                       command_merge},
    [COMMAND_BENCH] = {"bench",
                       "step time, tokens/s and the share of this machine's best matrix rate",
                       "--config config.json [--routing LIST] [--tuning LIST] [--option value]",
                       "  moetune bench --config bench/olmoe-slice.json --tokens 4096 --json\n",
                       command_bench},
    [COMMAND_EXPERTS] =
        {"experts",
         "what the experts do: use, pruning study, drift from a base, likeness; ESFT's choice",
         "--model DIR --data FILE... | --from-log DIR [--option value]",
         "  moetune experts --model OLMoE-1B-7B-0924 --data train.jsonl --json\n"
         "  moetune experts --model base --data test.jsonl --prune both --charts experts.html\n"
         "  moetune experts --model run/model --base base --data test.jsonl --correlation both\n"
         "  moetune experts --model base --data train.jsonl --select esft --out expert_cfg.json\n"
         "  moetune experts --select esft --from-log scores --score gate --top-p 0.1 --out "
         "cfg.json\n",
         command_experts},
    [COMMAND_REPORT] = {"report", "one page of HTML that shows what a run did",
                        "--run DIR [--out FILE] [--csv FILE]",
                        "  moetune report --run run\n"
                        "  moetune report --run run --out page.html --csv steps.csv\n",
                        command_report},
    [COMMAND_WATCH] = {"watch", "serve that page on this machine while a run goes on",
                       "--run DIR [--port N]", "  moetune watch --run run --port 8765\n",
                       command_watch},
};

static const char *next_command(void *user, int64_t i)
{
    (void)user;
    return i < COMMAND_COUNT ? commands[i].name : NULL;
}

int command_find(const char *name, const char **near)
{
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (!strcmp(commands[i].name, name)) return i;
    }
    if (near) *near = nearest_name(name, next_command, NULL);
    return -1;
}
