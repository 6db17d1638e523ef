// cli/cmd_plan.c - what a run will take, before it takes it.
#include "cli/commands.h"
#include "cli/job.h"

enum status command_plan(struct options *o, struct output *io, struct error *err)
{
    struct job j;
    const char *out = o->config.out ? o->config.out : "."; // for the room on its disk
    if (!job_open(&j, o, out, NULL, err)) return STATUS_FAILED;
    job_print_plan(io->people, &j);
    const bool ok = !io->json || output_json(io, job_plan_json(&j), err);
    job_close(&j);
    return ok ? STATUS_DONE : STATUS_FAILED;
}
