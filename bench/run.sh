#!/usr/bin/env bash
# Every measurement, on this machine, in one run. Usage: run.sh BUILD_DIR; writes BUILD_DIR/bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
out=$build/bench
mkdir -p "$out"
echo "machine: $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), $(date -u +%F)"
echo
echo "== 200 apps"
python3 bench/control_plane.py --build "$build" --json "$out/control_plane.json"
echo
echo "== logs: ten million lines"
"$out/logs_bench" --json "$out/logs.json"
echo
echo "== learning: a million points"
"$out/learning_bench" --json "$out/learning.json"
echo
echo "== console: first page, a thousand apps, 100,000 lines"
node bench/console.mjs --build "$build" --json "$out/console.json"
echo
echo "== metrics: ten thousand series"
"$out/metrics_bench" --json "$out/metrics.json"
echo
echo "== template: 2,000 lines"
"$out/template_bench" --json "$out/template.json"
echo
echo "== what a prediction costs (PEER=/path/to/tensorflow_model_server compares)"
python3 bench/serving/bench.py --build "$build" --json "$out/serving.json"
