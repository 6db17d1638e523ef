// cli/cmd_watch.c - a run's page, served while the run goes on.
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/server.h"
#include "eval/report.h"
#include "train/signals.h"

struct watch {
    const char *run;
    struct run_data data;
    struct buf page;
    double made; // seconds on the monotonic clock; 0: not yet
};

// Made again when it is asked for and a second old.
static bool page_now(void *user, struct buf *out, struct error *err)
{
    struct watch *w = user;
    struct error why;
    const double now = monotonic_seconds();
    if (w->made <= 0 || now - w->made > 1) {
        buf_free(&w->page);
        w->made = 0;
        const bool ok = run_data_read(&w->data, w->run, &why)
                            ? report_page(&w->page, &w->data, REPORT_SERVED, err)
                            : report_no_run(&w->page, why.msg, err);
        if (!ok) return false;
        w->made = now;
    }
    return buf_append(out, w->page.data, w->page.size) || fail(err, "no memory for the page");
}

static bool announce(struct output *io, unsigned port, struct error *err)
{
    if (io->json) {
        json_t *j = json_object();
        json_object_set_new(j, "port", json_integer(port));
        return output_json(io, j, err);
    }
    fprintf(io->people, "http://127.0.0.1:%u/\n", port);
    if (!io->quiet) fprintf(io->status, "Ctrl-C ends it\n");
    fflush(io->people);
    return true;
}

static enum status serve(struct watch *w, struct server *s, struct output *io, struct error *err)
{
    if (!announce(io, server_port(s), err)) return STATUS_FAILED;
    bool ok = signals_catch(err);
    while (ok && !signals_pending()) {
        ok = server_turn(s, 500, err);
    }
    signals_release();
    if (!ok) return STATUS_FAILED;
    // Who watched a run to its end has all that there is.
    const bool ended = run_data_read(&w->data, w->run, NULL) && w->data.state != RUN_GOES_ON;
    return ended ? STATUS_DONE : STATUS_STOPPED;
}

enum status command_watch(struct options *o, struct output *io, struct error *err)
{
    struct watch w = {.run = o->config.run};
    enum status status = STATUS_FAILED;
    struct server *s = run_data_read(&w.data, w.run, err)
                           ? server_open((unsigned)o->config.port, page_now, &w, err)
                           : NULL;
    if (s) status = serve(&w, s, io, err);
    server_close(s);
    buf_free(&w.page);
    run_data_free(&w.data);
    return status;
}
