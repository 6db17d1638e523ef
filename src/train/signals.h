// train/signals.h - SIGINT and SIGTERM as a question that the training loop asks between steps. No handler is
// installed: the matrix library's generated code uses the stack pointer as an ordinary register, so what a handler puts
// below it would overwrite whatever lies there. The signals are blocked instead, and a thread of its own waits for them.
#pragma once
#include "base/error.h"

#include <stdbool.h>

// Blocks both in this thread, and so in all that it starts; call before any other is started. Until signals_catch they
// end the process as ever. Once is enough; signals_catch does it where nobody did.
bool signals_begin(struct error *err);
bool signals_catch(
    struct error *err); // from now on the first one is kept, a second one ends the process at once
void signals_release(void); // they end the process again
bool signals_pending(void); // one came since signals_catch
