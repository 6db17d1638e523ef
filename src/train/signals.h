// train/signals.h - SIGINT and SIGTERM as a question that the training loop asks between steps.
#pragma once
#include <stdbool.h>

void signals_catch(void);   // from now on; clears what was pending
void signals_release(void); // puts back what was there before
bool signals_pending(void);
