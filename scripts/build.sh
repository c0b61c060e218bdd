#!/usr/bin/env bash
# Builds targets of a preset, which is configured first where it is new. Says nothing but what went
# wrong. Usage: build.sh PRESET TARGET...
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >/dev/null || { cmake --preset "$preset"; exit 1; }
output=$(ninja -C "build/$preset" "$@" 2>&1) || { echo "$output"; exit 1; }
