#!/usr/bin/env bash
# Runs every fuzzer, or those named, for SECONDS each. Usage: fuzz.sh SECONDS [NAME...]
# What it finds interesting is kept in build/fuzz/corpus/NAME and is the start of the next run; an
# input that breaks something is left in build/fuzz/findings/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz.sh SECONDS [NAME...]}
shift
build=build/fuzz
[ -f "$build/build.ninja" ] || cmake --preset fuzz >/dev/null || { cmake --preset fuzz; exit 1; }
ninja -C "$build" --quiet fuzzers
names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(basename -a -s .seeds "$build"/fuzzers/*.seeds))
mkdir -p "$build/findings"
for name in "${names[@]}"; do
  mkdir -p "$build/corpus/$name"
  mapfile -t seeds <"$build/fuzzers/$name.seeds"
  echo "== $name: $seconds s"
  "$build/fuzzers/$name" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$build/findings/$name-" "$build/corpus/$name" \
    "${seeds[@]}" 2>&1 | grep -vE '^("|#[0-9]+\s+(NEW|REDUCE|pulse|RELOAD)|###)' || {
    echo "$name found something: see above, and $build/findings/"
    exit 1
  }
done
echo "fuzz: no finding"
