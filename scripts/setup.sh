#!/usr/bin/env bash
# Installs what Takt needs on a Debian 12 machine: system packages, and a Python virtual environment
# with TensorFlow. Idempotent; a second run only looks. Usage: setup.sh [packages] [venv]
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${TAKT_VENV:-$PWD/.venv}

fail() { echo "setup: $*" >&2; exit 1; }
step() { printf '==> %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "needs root to install system packages: run it as root, or install sudo"
  fi
}

install_packages() {
  command -v apt-get >/dev/null ||
    fail "this machine has no apt-get: install the packages named in scripts/packages.txt by hand, on Debian 12"
  local wanted=() missing=() package
  mapfile -t wanted < <(grep -v '^#' scripts/packages.txt)
  # The console's build needs Node 18 or newer, from wherever it comes.
  if ! node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' 2>/dev/null ||
     ! command -v npm >/dev/null; then
    wanted+=(nodejs npm)
  fi
  for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  step "installing ${#missing[@]} system packages: ${missing[*]}"
  as_root apt-get update -qq || fail "apt-get update failed: check the network and /etc/apt/sources.list"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]}"
}

# A stamp with the lock file's hash says that the environment is whole: one that was interrupted has
# none and is made again.
install_venv() {
  local want stamp
  want=$(sha256sum requirements.lock | cut -d' ' -f1)
  stamp=$venv/.takt-lock
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && "$venv/bin/python" -c '' 2>/dev/null; then return; fi
  step "installing TensorFlow into $venv (about 1.6 GB, once)"
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv" || fail "cannot make a virtual environment in $venv: is python3-venv installed?"
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r requirements.lock ||
    fail "pip could not install requirements.lock: check the network and the free space under $venv"
  echo "$want" > "$stamp"
}

if [ $# -eq 0 ]; then set -- packages venv; fi
for part in "$@"; do
  case $part in
    packages) install_packages ;;
    venv) install_venv ;;
    *) fail "unknown part '$part': expected packages or venv" ;;
  esac
done
