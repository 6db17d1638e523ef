// cli/samples.h - samples.json in a run's folder: greedy answers of the result to a few held-out (or training)
// examples, for the run's page.
#pragma once
#include "cli/job.h"

// exported: the result's folder, a model's or an adapter's. The run is still open.
bool samples_write(const struct job *j, const struct options *o, const char *exported,
                   struct error *err);
