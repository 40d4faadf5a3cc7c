#!/bin/sh
# Compiles the policy to a core module. `oona policy build` runs this, makes a component of the module,
# and sets OONA_OUT. Needs clang and lld of the same version; no C library.
set -eu

target=--target=wasm32-unknown-unknown
compiler=
for candidate in ${CC:-} clang "$(brew --prefix llvm 2>/dev/null || :)/bin/clang" \
    clang-22 clang-21 clang-20 clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do
    if "$candidate" $target -nostdlib -Wl,--no-entry -x c /dev/null -o /dev/null >/dev/null 2>&1; then
        compiler=$candidate
        break
    fi
done
[ -n "$compiler" ] || {
    echo "build.sh: no clang that compiles and links for wasm32: install clang and lld, or set CC" >&2
    exit 1
}

# The schema as a string literal, for policy.c to include.
mkdir -p target
sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/"&\\n"/' config.schema.json > target/schema.inc

"$compiler" $target -std=c11 -O2 -Wall -Wextra -Werror -mbulk-memory \
    -ffreestanding -nostdlib -isystem libc -I target \
    -Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=8192 \
    -o "$OONA_OUT" policy.c libc/libc.c bindings/freshness_policy.c
