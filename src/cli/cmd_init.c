// cli/cmd_init.c - a random checkpoint.
#include "cli/commands.h"
#include "model/init.h"

enum status command_init(struct options *o, struct output *io, struct error *err)
{
    static const char *const types[] = {NULL, "f32", "bf16", "f16"}; // as the table's choices
    const struct run_config *c = &o->config;
    const struct model_init_options init = {
        .config = c->config,
        .out = c->out,
        .dtype = types[c->dtype],
        .seed = (uint64_t)c->seed,
        .fused = c->fused,
        .shard_bytes = c->shard_mb << 20,
        .overwrite = c->overwrite,
    };
    if (!model_init(&init, err)) return STATUS_FAILED;
    if (!io->quiet) fprintf(io->status, "wrote %s\n", c->out);
    return STATUS_DONE;
}
