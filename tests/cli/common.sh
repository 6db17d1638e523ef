# common.sh - for tests of the command line, sourced: $moetune is the binary (the test's argument), $repo the sources;
# the test runs in a folder of its own.
set -uo pipefail
moetune=$(realpath "$1")
repo=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/moetune-$(basename "$0" .sh)-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failures=0

complain() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}
