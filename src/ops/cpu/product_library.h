// ops/cpu/product_library.h - calls of oneDNN where memory may run out, for product.c and product_bf16.c.
#pragma once
#include <stdbool.h>

// Around each call that computes or makes something, within a task (cpu_attempt). library_enter leaves the task where
// the library cannot be called any more; library_leave: false where memory ran out in the call.
void library_enter(void);
bool library_leave(void);

// oneDNN 2.6 does not survive that memory runs out while it makes kernels (it uses what it was not given). So the heap
// has memory for them before they are made. False: there is none.
bool library_room(void);

void library_set_threads(void); // of the calling thread's next call: product_threads
