#!/usr/bin/env bash
# Builds and runs the unit tests under the presets named: asan (with UBSan), tsan.
set -euo pipefail
cd "$(dirname "$0")/.."
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp ${TSAN_OPTIONS:-}"
for preset in "$@"; do
  [ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >/dev/null
  ninja -C "build/$preset" unit_tests
  ctest --test-dir "build/$preset" -L unit --output-on-failure --no-tests=error
done
