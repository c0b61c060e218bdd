#!/usr/bin/env bash
# clang-tidy over every source file of ours. Usage: lint.sh BUILD_DIR [PATTERN]
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
pattern=${2:-.}
git ls-files 'src/*.cc' 'apps/*.cc' 'examples/*.cc' | grep -E "$pattern" |
  xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$build"
echo "lint: no finding"
