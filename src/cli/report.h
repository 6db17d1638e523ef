// cli/report.h - a run's page as a file: for `report`, and for `train` at its end.
#pragma once
#include "eval/report.h"

#include <stddef.h>

bool report_path(char *path, size_t size, const char *run, struct error *err); // RUN/report.html
// csv NULL: no such file.
bool report_write(const char *run, const char *page, const char *csv, struct error *err);
