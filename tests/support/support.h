// tests/support/support.h - what every test needs: cmocka, stored reference values, comparisons that
// print how far off a tensor is, and a folder of its own.
#pragma once
// clang-format off
#include "base/error.h" // before cmocka, whose macro fail() would break the declaration of ours
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#ifdef assert_int_in_range // cmocka 2 warns of the name that cmocka 1 has
#undef assert_in_range
#define assert_in_range assert_int_in_range
#endif

#include "base/tensor.h"
#include "io/safetensors.h"

// tests/fixtures/NAME, open for the length of the test; a missing one fails the test.
struct fixture {
    struct safetensors st;
    char path[1024];
};
void fixture_open(struct fixture *f, const char *name);
void fixture_close(struct fixture *f);
struct tensor fixture_get(const struct fixture *f, const char *name); // fails the test if absent
bool fixture_has(const struct fixture *f, const char *name);

// ||got - want|| / ||want|| (Frobenius, in double); any floating types; infinity if a value is not
// finite where the other is. Integers too.
double relative_error(struct tensor got, struct tensor want);
void check_close(const char *what, struct tensor got, struct tensor want, double limit);
void check_ok(bool ok, const struct error *err);                        // fails with err->msg
void check_error(bool ok, const struct error *err, const char *needle); // must fail, naming needle

const char *test_dir(void); // a fresh empty folder under TMPDIR, removed at exit
