// cli/cmd_report.c - a run's folder as a page, and as a file of comma-separated numbers.
#include "cli/report.h"

#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"

bool report_write(const char *run, const char *page, const char *csv, struct error *err)
{
    struct run_data data = {0};
    struct buf text = {0}, numbers = {0};
    const bool ok = run_data_read(&data, run, err) && report_page(&text, &data, REPORT_FILE, err) &&
                    file_write(page, text.data, text.size, err) &&
                    (!csv || (report_csv(&numbers, &data, err) &&
                              file_write(csv, numbers.data, numbers.size, err)));
    buf_free(&text);
    buf_free(&numbers);
    run_data_free(&data);
    return ok;
}

bool report_path(char *path, size_t size, const char *run, struct error *err)
{
    return path_join(path, size, run, "report.html", err);
}

enum status command_report(struct options *o, struct output *io, struct error *err)
{
    char path[4096];
    const struct run_config *c = &o->config;
    if (!report_path(path, sizeof path, c->run, err)) return STATUS_FAILED;
    const char *page = c->out ? c->out : path;
    if (!report_write(c->run, page, c->csv, err)) return STATUS_FAILED;
    if (!io->json) {
        if (!io->quiet) fprintf(io->people, "%s\n", page);
        return STATUS_DONE;
    }
    json_t *j = json_object();
    json_object_set_new(j, "report", json_string(page));
    if (c->csv) json_object_set_new(j, "csv", json_string(c->csv));
    return output_json(io, j, err) ? STATUS_DONE : STATUS_FAILED;
}
