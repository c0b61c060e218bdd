#!/usr/bin/env bash
# Runs one fuzzer for FUZZ_SECONDS (60). Usage: fuzz.sh FUZZER SEEDS...
# What it finds interesting is kept in build/fuzz/corpus/NAME, an input that breaks something in
# build/fuzz/findings/NAME; the next run begins with both. The random numbers are the same each time
# (FUZZ_SEED, 1; 0 = others each time), so that it is a change that turns a test red and not chance.
set -euo pipefail
fuzzer=$1
shift
name=$(basename "$fuzzer")
build=$(dirname "$(dirname "$fuzzer")")
corpus=$build/corpus/$name
findings=$build/findings/$name
mkdir -p "$corpus" "$findings"
export UBSAN_OPTIONS=print_stacktrace=1
# Beside other tests it stands back.
nice "$fuzzer" -max_total_time="${FUZZ_SECONDS:-60}" -seed="${FUZZ_SEED:-1}" \
  -max_len=65536 -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 \
  -artifact_prefix="$findings/" "$corpus" "$findings" "$@" 2>&1 |
  grep -vE '^("|#[0-9]+\s+(NEW|REDUCE|pulse|RELOAD)|###|\s+NEW_FUNC)' || {
  echo "$name found something. To see it again: $fuzzer $(ls -t "$findings"/* | head -1)"
  exit 1
}
