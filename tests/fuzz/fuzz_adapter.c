// tests/fuzz/fuzz_adapter.c - what says what an adapter is, against the linears of a small model. The first byte of an
// input says which file it is: 0 adapter_config.json, 1 moetune_adapter.json, 2 expert_cfg.json,
// 3 smt_selection.json, 4 smt_config.json.
#include "base/mem.h"
#include "folder.h"
#include "tuning/esft.h"
#include "tuning/low_rank.h"
#include "tuning/smt.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BANKS = 4, EXPERTS = 2, SIDE = 4, RANK = 2 };

#define EXPERT .part = PART_EXPERT, .groups = EXPERTS, .out = SIDE, .in = SIDE
static struct bank bank[BANKS] = {
    {.name = "model.layers.0.self_attn.q_proj",
     .projection = "q_proj",
     .part = PART_ATTENTION,
     .groups = 1,
     .out = SIDE,
     .in = SIDE},
    {.name = "model.layers.0.mlp.experts.*.gate_proj",
     .projection = "gate_proj",
     .fused = "model.layers.0.mlp.experts.gate_up_proj",
     .fused_parts = 2,
     EXPERT},
    {.name = "model.layers.0.mlp.experts.*.up_proj",
     .projection = "up_proj",
     .fused = "model.layers.0.mlp.experts.gate_up_proj",
     .fused_part = 1,
     .fused_parts = 2,
     EXPERT},
    {.name = "model.layers.0.mlp.experts.*.down_proj",
     .projection = "down_proj",
     .fused = "model.layers.0.mlp.experts.down_proj",
     .fused_parts = 1,
     EXPERT},
};
static struct bank *banks[BANKS] = {&bank[0], &bank[1], &bank[2], &bank[3]};
static const struct model_config config = {
    .n_layers = 2, .n_experts = 4, .moe_layer = {false, true}};
static struct safetensors tensors = {.path = "adapter_model.safetensors"};
static struct buf file;

static void add(struct buf *header, size_t *at, const char *module, const char *tensor, int rows,
                int columns)
{
    const size_t end = *at + (size_t)rows * (size_t)columns * sizeof(float);
    buf_printf(header,
               "%s\"base_model.model.%s.%s.weight\":{\"dtype\":\"F32\",\"shape\":[%d,%d],"
               "\"data_offsets\":[%zu,%zu]}",
               *at ? "," : "{", module, tensor, rows, columns, *at, end);
    *at = end;
}

// Pairs in both layouts: attention and one projection of the experts one by one, the others fused.
static void open_tensors(void)
{
    struct error err;
    struct buf header = {0};
    size_t at = 0;
    add(&header, &at, "model.layers.0.self_attn.q_proj", "lora_A", RANK, SIDE);
    add(&header, &at, "model.layers.0.self_attn.q_proj", "lora_B", SIDE, RANK);
    add(&header, &at, "model.layers.0.mlp.experts.0.down_proj", "lora_A", RANK, SIDE);
    add(&header, &at, "model.layers.0.mlp.experts.1.down_proj", "lora_A", RANK, SIDE);
    add(&header, &at, "model.layers.0.mlp.experts.base_layer", "lora_A", RANK * EXPERTS, SIDE);
    add(&header, &at, "model.layers.0.mlp.experts.base_layer", "lora_B", 2 * SIDE, RANK * EXPERTS);
    buf_puts(&header, "}");
    const uint64_t n = header.size;
    buf_append(&file, &n, sizeof n);
    buf_append(&file, header.data, header.size);
    buf_reserve(&file, at);
    memset(file.data + file.size, 0, at);
    if (!safetensors_parse(&tensors, file.data, file.size + at, &err)) abort();
    buf_free(&header);
}

static void close_tensors(void)
{
    safetensors_close(&tensors);
    buf_free(&file);
}

static void read_low_rank(bool dora)
{
    static struct pair pairs[BANKS];
    struct error err = {0};
    bool mine;
    struct tuning_options o = {0};
    if (!low_rank_read(&mine, &o, dora, folder, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return;
    }
    if (!mine) return;
    assert(o.lora_rank >= 1 && isfinite(o.lora_alpha) && o.lora_dropout >= 0 && o.lora_dropout < 1);
    const struct tuning_input in = {.options = &o,
                                    .bank = banks,
                                    .n_banks = BANKS,
                                    .adapter_dir = folder,
                                    .adapter = &tensors,
                                    .prefix = "base_model.model."};
    struct tuning_state st = {.dora = dora, .rslora = o.lora_rslora, .pair = pairs};
    if (!low_rank_find_pairs(&st, &in, &err)) {
        assert(*err.msg && !strchr(err.msg, '\n'));
        return;
    }
    assert(st.n_pairs > 0);
    for (int64_t i = 0; i < st.n_pairs; i++) {
        assert(pairs[i].rank == RANK && pairs[i].scale > 0 && isfinite(pairs[i].scale));
    }
}

static void read_experts(const char *path)
{
    struct error err = {0};
    struct esft_selection s = {0};
    if (!esft_selection_read(&s, path, &config, &err)) {
        assert(*err.msg);
        return;
    }
    assert(s.count[0] < 0); // a dense layer
    assert(esft_selection_total(&s) <= 4);
    esft_selection_close(&s);
}

static void read_blocks(const char *path, int select)
{
    struct error err = {0};
    struct smt_blocks b;
    const struct tuning_options o = {.smt = {.block = 2, .select = select}};
    const struct tuning_input in = {.options = &o, .bank = banks, .n_banks = BANKS};
    if (!smt_blocks_read(&b, &in, path, &err)) {
        assert(*err.msg);
        return;
    }
    assert(b.count > 0);
    for (int64_t i = 0; i < b.count; i++) {
        const struct smt_block *x = &b.block[i];
        assert(x->group < bank[x->bank].groups && x->rows > 0 && x->columns > 0);
        assert(x->row + x->rows <= SIDE && x->column + x->columns <= SIDE);
    }
    smt_blocks_free(&b);
}

static void read_smt_config(void)
{
    struct error err = {0};
    struct tuning_options o = {0};
    bool mine;
    const bool ok = smt_config_read(&mine, &o, folder, &err);
    assert(mine && (ok ? o.smt.block > 0 : *err.msg));
}

static const char plain_config[] =
    "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q_proj\"]}";
enum kind { CONFIG, ABOUT, EXPERT_CHOICE, BLOCK_CHOICE, BLOCK_CONFIG, KINDS };
static const char *const names[KINDS] = {"adapter_config.json", "moetune_adapter.json",
                                         "expert_cfg.json", "smt_selection.json",
                                         "smt_config.json"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd[KINDS];
    char path[sizeof folder + 64];
    if (!*folder) {
        folder_make();
        open_tensors();
        atexit(close_tensors);
        for (int i = 0; i < KINDS; i++) {
            fd[i] = folder_file(names[i], "{}", 2);
        }
    }
    if (!size) return 0;
    const enum kind k = (enum kind)folder_kind(*data, KINDS);
    folder_put(fd[k], data + 1, size - 1);
    snprintf(path, sizeof path, "%s/%s", folder, names[k]);
    switch (k) {
    case CONFIG:
        folder_put(fd[ABOUT], "{}", 2);
        read_low_rank(false);
        read_low_rank(true);
        break;
    case ABOUT:
        folder_put(fd[CONFIG], plain_config, sizeof plain_config - 1);
        read_low_rank(false);
        break;
    case EXPERT_CHOICE:
        read_experts(path);
        break;
    case BLOCK_CHOICE:
        read_blocks(path, SMT_SELECT_GRADIENT);
        read_blocks(path, SMT_SELECT_ACTIVATION);
        break;
    default:
        read_smt_config();
    }
    return 0;
}
