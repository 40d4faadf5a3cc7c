#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: redis-server, Prometheus, what the examples in C and in
# Python are built with, a browser for the console, and the packages of the peer in tests/interop. With
# arguments, only what they name. Starts no service: each test starts a server of its own on a free port, and ends it.

set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

peer=tests/interop/requirements.txt
missing=()
for tool in cargo cc make git; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} = 0 ] || fail "missing: ${missing[*]}. A Rust toolchain comes from https://rustup.rs; \
gcc, make and git from your package manager"

has() {
    case $1 in
        redis-server) command -v redis-server ;;
        prometheus) command -v promtool && command -v prometheus ;;
        # Whichever clang the example takes.
        clang) (cd examples/freshness-in-c && OONA_OUT=/dev/null sh build.sh) ;;
        python3) python3 -c 'import ensurepip, venv' ;;
        chromium) command -v chromedriver && { command -v chromium || command -v google-chrome; } ;;
        peer) cmp $peer target/peer/installed && target/peer/bin/python -c 'import redis, google.protobuf' ;;
        *) return 2 ;;
    esac >/dev/null 2>&1
}

# $(packages WHAT MANAGER)
packages() {
    case $1:$2 in
        redis-server:apt) echo redis-server ;;
        redis-server:*) echo redis ;;
        prometheus:apt | prometheus:brew) echo prometheus ;;
        prometheus:*) fail "Prometheus has no package here; take it from https://prometheus.io/download, put it on the PATH, and try again" ;;
        clang:brew) echo llvm lld ;;
        clang:*) echo clang lld ;;
        python3:apt) echo python3 python3-venv ;;
        python3:*) echo python3 ;;
        chromium:apt) echo chromium chromium-driver ;;
        chromium:brew) echo --cask google-chrome chromedriver ;;
        chromium:dnf) echo chromium chromedriver ;;
        *) fail "no such thing: $1; redis-server, prometheus, clang, python3, chromium or peer" ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a service when its package is installed, unless a policy-rc.d forbids it.
install_with_apt() {
    local policy=/usr/sbin/policy-rc.d made= installed=yes
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        made=yes
    fi
    local install=(as_root env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends "$@")
    "${install[@]}" >/dev/null 2>&1 || {
        as_root apt-get update -q >/dev/null 2>&1 || true
        "${install[@]}" >/dev/null || installed=
    }
    [ -z "$made" ] || as_root rm -f "$policy"
    [ -n "$installed" ]
}

# What only a directory of ours needs: no rights, and no package manager.
install_peer() {
    python3 -m venv --clear target/peer && target/peer/bin/pip install --quiet --requirement $peer &&
        cp $peer target/peer/installed
}

[ $# -gt 0 ] || set -- redis-server prometheus clang python3 chromium peer
for what in "$@"; do
    has "$what" && continue
    say "installing $what, up to a minute"
    if [ "$what" = peer ]; then
        install_peer || true
    elif command -v brew >/dev/null; then
        # shellcheck disable=SC2046 # several packages
        brew install --quiet $(packages "$what" brew) || true
    elif [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        fail "$what is missing, and there is no sudo; install it as root, and try again"
    elif command -v apt-get >/dev/null; then
        # shellcheck disable=SC2046
        install_with_apt $(packages "$what" apt) || true
    elif command -v dnf >/dev/null; then
        # shellcheck disable=SC2046
        as_root dnf install -y -q $(packages "$what" dnf) || true
    fi
    has "$what" || fail "$what could not be installed; install $(case $what in
        redis-server) echo 'Redis 6.2 or later, or Valkey,' ;;
        prometheus) echo 'Prometheus 2.42 or later, with promtool,' ;;
        clang) echo 'clang 14 or later with lld, for wasm32,' ;;
        python3) echo 'Python 3.10 or later with venv and pip' ;;
        chromium) echo 'Chromium and the chromedriver of the same version' ;;
        peer) echo "the packages of $peer into a venv in target/peer" ;;
    esac) and try again"
done
