#!/usr/bin/env bash
# sanitized-tests.sh BUILD - all tests of a build with -DMOETUNE_SANITIZE=ON.
set -euo pipefail
cd "$(dirname "$0")/.."

export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
ctest --test-dir "$1" --output-on-failure -j "$(nproc)"
