#!/usr/bin/env bash
# Builds policies: Rust crates to WebAssembly components, wherever a wasm std can be had.
#
#   policies/build.sh [--out DIR] [CRATE_DIR...]
#
# Without a crate: every policy of this repository. DIR is target/policies unless given; a component
# is named after the directory of its crate.
#
# Three ways to a std for wasm32-unknown-unknown, the first that works:
#   installed  the compiler in use has it
#   rustup     `rustup target add`
#   debian     Debian's compiler with std's source, built once into a private sysroot under target/
# OONA_WASM_TOOLCHAIN forces one; OONA_BIN names the `oona` that makes components of modules.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=wasm32-unknown-unknown
build_dir="$root/target"
way=${OONA_WASM_TOOLCHAIN:-auto}
tried=()

say() { printf 'policies: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# ---- the three ways ------------------------------------------------------------------------------

has_target() { # RUSTC
    local libdir
    libdir=$("$1" --print target-libdir --target "$target" 2>/dev/null) || return 1
    compgen -G "$libdir/libcore-*.rlib" >/dev/null
}

# What did not work with this compiler is not tried again, until the marker is removed.
marker() { printf '%s/wasm-%s-refused-%s' "$build_dir" "$1" "$(rustc -vV | cksum | cut -d' ' -f1)"; }

way_installed() {
    has_target rustc || { tried+=("installed: $(rustc --version) has no std for $target"); return 1; }
    toolchain="the compiler's own std"
}

way_rustup() {
    local refused
    refused=$(marker rustup)
    command -v rustup >/dev/null || { tried+=("rustup: not on this machine"); return 1; }
    if [ "$way" = auto ] && [ -e "$refused" ]; then
        tried+=("rustup: refused before; remove $refused to try again")
        return 1
    fi
    say "adding $target with rustup, up to 2 minutes"
    if timeout 120 rustup target add "$target" >/dev/null 2>&1 && has_target rustc; then
        toolchain="rustup's std"
        return 0
    fi
    mkdir -p "$build_dir" && touch "$refused"
    tried+=("rustup: \`rustup target add $target\` failed or took over 2 minutes")
    return 1
}

debian_rustc=/usr/bin/rustc
debian_library=/usr/lib/rustlib/src/rust/library

way_debian() {
    if ! { [ -x "$debian_rustc" ] && [ -d "$debian_library/vendor" ]; }; then
        install_debian || return 1
    fi
    sysroot="$build_dir/wasm-sysroot-$("$debian_rustc" -vV | cksum | cut -d' ' -f1)"
    compgen -G "$sysroot/lib/rustlib/$target/lib/libcore-*.rlib" >/dev/null || build_std || return 1
    linker=$(find_linker) || { tried+=("debian: no linker; install the package lld"); return 1; }
    toolchain="Debian's $("$debian_rustc" --version | cut -d' ' -f1-2) with a std of its own"
}

install_debian() {
    command -v apt-get >/dev/null || { tried+=("debian: no apt-get on this machine"); return 1; }
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { tried+=("debian: neither root nor sudo"); return 1; }
        as_root=(sudo)
    fi
    say "installing rustc-web and rust-web-src with apt-get, about a minute"
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends rustc-web rust-web-src)
    if ! "${install[@]}" >/dev/null 2>&1; then
        "${as_root[@]}" apt-get update -q >/dev/null 2>&1 || true
        "${install[@]}" >/dev/null 2>&1 \
            || { tried+=("debian: \`apt-get install rustc-web rust-web-src\` failed"); return 1; }
    fi
}

# Cargo does not fingerprint what is in a sysroot, so its path follows the compiler's version.
build_std() {
    say "building std for $target, about half a minute, once"
    local work
    work=$(mktemp -d)
    mkdir -p "$work/src" "$work/.cargo"
    printf '[package]\nname = "std-build"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/Cargo.toml"
    printf '#![no_std]\n' >"$work/src/lib.rs"
    printf '[source.crates-io]\nreplace-with = "std"\n[source.std]\ndirectory = "%s/vendor"\n' \
        "$debian_library" >"$work/.cargo/config.toml"
    local flags="-Cembed-bitcode=yes --remap-path-prefix=$debian_library=/rust/library"
    if ! (cd "$work" && RUSTC="$debian_rustc" RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" \
        __CARGO_TESTS_ONLY_SRC_ROOT="$debian_library" \
        cargo build --release --target "$target" -Zbuild-std=std,panic_abort --target-dir "$work/target") \
        >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        rm -rf "$work"
        tried+=("debian: std did not build; its last lines are above")
        return 1
    fi
    mkdir -p "$sysroot.new/lib/rustlib/$target/lib"
    cp "$work/target/$target/release/deps/"*.rlib "$sysroot.new/lib/rustlib/$target/lib/"
    rm -rf "$work" "$sysroot"
    mv "$sysroot.new" "$sysroot"
}

find_linker() {
    local rustup_lld host
    host=$(rustc -vV | sed -n 's/^host: //p')
    rustup_lld="$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
    if [ -x "$rustup_lld" ]; then
        printf '%s' "$rustup_lld"
    else
        command -v lld || command -v wasm-ld
    fi
}

choose() {
    case $way in
        auto) way_installed || way_rustup || way_debian || none_works ;;
        installed | rustup | debian) "way_$way" || none_works ;;
        *) fail "OONA_WASM_TOOLCHAIN is \`$way\`: auto, installed, rustup or debian" ;;
    esac
    say "using $toolchain"
}

none_works() {
    say "no way to a std for $target:"
    printf '  %s\n' "${tried[@]}" >&2
    fail "run \`rustup target add $target\`, or install Debian's rustc-web and rust-web-src, and try again"
}

# ---- building ------------------------------------------------------------------------------------

package_of() { # CRATE_DIR
    sed -n '/^\[package\]/,/^\[/s/^name *= *"\(.*\)"/\1/p' "$1/Cargo.toml"
}

# Every path that differs between machines is cut off, so that the same source gives the same bytes.
guest_flags() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo}
    local flags="--remap-path-prefix=$root=/oona --remap-path-prefix=$cargo_home=/cargo"
    flags+=" -Clink-arg=-zstack-size=65536"
    if [ -n "${sysroot:-}" ]; then
        flags+=" --sysroot=$sysroot -Clinker=$linker -Clinker-flavor=wasm-ld"
    fi
    printf '%s' "$flags"
}

cargo_build() { # ARGS...
    local env=(RUSTFLAGS="$(guest_flags)")
    [ -z "${sysroot:-}" ] || env+=(RUSTC="$debian_rustc")
    env "${env[@]}" cargo build --quiet --target "$target" --target-dir "$build_dir/wasm" "$@" \
        || fail "the build of the policies failed; the compiler's words are above"
}

build_modules() { # CRATE_DIR...
    local own=() dir
    for dir in "$@"; do
        case $(cd "$dir" && pwd)/ in
            "$root"/*) own+=(-p "$(package_of "$dir")") ;;
            *) cargo_build --release --manifest-path "$dir/Cargo.toml" ;;
        esac
    done
    [ ${#own[@]} = 0 ] || (cd "$root" && cargo_build "${locked[@]}" --profile policy "${own[@]}")
}

find_oona() {
    if [ -n "${OONA_BIN:-}" ]; then
        printf '%s' "$OONA_BIN"
        return
    fi
    local newest
    newest=$(find "$build_dir/release/oona" "$build_dir/debug/oona" -maxdepth 0 -printf '%T@ %p\n' \
        2>/dev/null | sort -rn | head -n 1 | cut -d' ' -f2-)
    [ -n "$newest" ] || fail "there is no \`oona\` yet to make components with: run \`make build\`"
    printf '%s' "$newest"
}

componentize() { # CRATE_DIR...
    local oona dir name module profile
    oona=$(find_oona)
    for dir in "$@"; do
        name=$(basename "$(cd "$dir" && pwd)")
        case $(cd "$dir" && pwd)/ in "$root"/*) profile=policy ;; *) profile=release ;; esac
        module="$build_dir/wasm/$target/$profile/$(package_of "$dir" | tr - _).wasm"
        [ -f "$module" ] || fail "$dir is no policy: its Cargo.toml needs crate-type = [\"cdylib\", \"rlib\"]"
        if [ "$out/$name.wasm" -nt "$module" ] && [ "$out/$name.wasm" -nt "$oona" ]; then continue; fi
        "$oona" policy componentize "$module" --output "$out/$name.wasm" >/dev/null \
            || fail "$name could not be made a component"
    done
}

out="$build_dir/policies"
crates=()
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=${2:?--out needs a directory}; shift ;;
        -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) fail "unknown option $1; see --help" ;;
        *) crates+=("$1") ;;
    esac
    shift
done
locked=()
if [ ${#crates[@]} = 0 ]; then
    # A crate that is named may be new to the workspace, and to its lock file.
    locked=(--locked)
    for dir in "$root"/policies/* "$root"/examples/* "$root"/tests/hostile; do
        grep -qs '^crate-type.*cdylib' "$dir/Cargo.toml" && crates+=("$dir")
    done
fi
for dir in "${crates[@]}"; do
    [ -f "$dir/Cargo.toml" ] || fail "$dir has no Cargo.toml"
done

mkdir -p "$out"
choose
build_modules "${crates[@]}"
componentize "${crates[@]}"
