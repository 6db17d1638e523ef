// cli/cmd_merge.c - an adapter folded into its base: a plain folder that any reader loads.
#include "cli/commands.h"
#include "cli/setup.h"
#include "io/folders.h"

enum status command_merge(struct options *o, struct output *io, struct error *err)
{
    struct model m = {0};
    struct model_setup setup;
    if (!o->config.overwrite && !folder_has_no_model(o->config.out, err)) return STATUS_FAILED;
    bool ok = setup_model(&setup, o, false, err);
    setup.max_tokens = 1;
    ok = ok && model_open(&m, &setup, err) && model_allocate(&m, err) &&
         model_export(&m, o->config.out, err);
    model_close(&m);
    if (!ok) return STATUS_FAILED;
    if (!io->quiet) fprintf(io->status, "wrote %s\n", o->config.out);
    return STATUS_DONE;
}
