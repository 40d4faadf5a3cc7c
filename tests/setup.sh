#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: redis-server. Starts no service: each test
# starts a server of its own on a free port, and ends it.

set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

missing=()
for tool in cargo cc make git; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} = 0 ] || fail "missing: ${missing[*]}. A Rust toolchain comes from https://rustup.rs; \
gcc, make and git from your package manager"

if command -v redis-server >/dev/null; then
    say "$(redis-server --version | cut -d' ' -f1-3)"
    exit 0
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "redis-server is missing; install it as root, and try again"
    as_root=(sudo)
fi

# Debian starts a service when its package is installed, unless a policy-rc.d forbids it.
install_with_apt() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod +x "$policy"
        made=yes
    fi
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends redis-server)
    local installed=yes
    "${install[@]}" >/dev/null 2>&1 || {
        "${as_root[@]}" apt-get update -q >/dev/null 2>&1 || true
        "${install[@]}" >/dev/null || installed=
    }
    [ -z "$made" ] || "${as_root[@]}" rm -f "$policy"
    [ -n "$installed" ]
}

say "installing redis-server, up to a minute"
if command -v apt-get >/dev/null; then
    install_with_apt || true
elif command -v dnf >/dev/null; then
    "${as_root[@]}" dnf install -y -q redis || true
elif command -v brew >/dev/null; then
    brew install --quiet redis || true
fi
command -v redis-server >/dev/null \
    || fail "redis-server could not be installed; install Redis 6.2 or later, or Valkey, and try again"
say "$(redis-server --version | cut -d' ' -f1-3)"
