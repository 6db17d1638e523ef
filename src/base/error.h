// base/error.h - how a failure travels: functions that can fail because of the outside world return
// false and leave one line here; only cli/main.c prints it. The line says what, where (file:line or
// tensor name), what was found and what was expected.
#pragma once
#include <stdbool.h>

struct error {
    char msg[1024];
};

// Fills err->msg (err may be NULL) and returns false, so that a guard is one line.
bool fail(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Puts "prefix: " in front of what err already says; returns false.
bool fail_in(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
