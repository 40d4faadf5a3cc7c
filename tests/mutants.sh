#!/usr/bin/env bash
# Puts known mistakes into a copy of the tree, one at a time, and runs the simulation on each: it has to
# find them all. Prints a table: which invariant told of it, and at which seed. With arguments, only
# the mistakes that they name (tests/mutants/NAME.patch). `OONA_SIM_SEEDS` says how many seeds are run.

set -euo pipefail
cd "$(dirname "$0")/.."

export OONA_SIM_SEEDS=${OONA_SIM_SEEDS:-250}
unset OONA_SIM_SEED
root=$PWD
tree=$root/target/mutants/tree
log=$root/target/mutants/log
# Crates of others are built already; those of the tree have a path of their own.
export CARGO_TARGET_DIR=$root/target

fail() { printf 'mutants: error: %s\n' "$*" >&2; exit 1; }

# Only what differs is written, and is then newer than what was last built from it.
mkdir -p "$tree" "$log"
(cd "$tree" && find . -type f -not -path './.git/*' -print0) | while IFS= read -r -d '' file; do
    [ -e "$file" ] || rm "$tree/$file"
done
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ] && ! cmp -s "$file" "$tree/$file"; then cp --parents "$file" "$tree"; fi
done
git -C "$tree" init --quiet
[ -e target/policies/hostile.wasm ] || fail "no policies; run \`make policies\`"
ln -sfn "$root/target" "$tree/target"

simulate() { # name, cargo's own arguments
    (cd "$tree" && cargo test --locked --workspace --test simulation "${@:2}") >"$log/$1" 2>&1
}

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for patch in tests/mutants/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi
for name in "${names[@]}"; do
    git -C "$tree" apply --check "$root/tests/mutants/$name.patch" ||
        fail "tests/mutants/$name.patch no longer applies: make it anew from what the code is now"
done

printf '| mistake | broken invariant | seed |\n| --- | --- | --- |\n'
missed=0
for name in "${names[@]}"; do
    patch=$root/tests/mutants/$name.patch
    git -C "$tree" apply "$patch"
    simulate "$name" --no-run || fail "$name does not compile; see $log/$name"
    if simulate "$name" every_message_is_accounted_for; then
        found='**none** | '
        missed=$((missed + 1))
    else
        found=$(sed -n 's/^seed \([0-9]*\) breaks "\([^"]*\)".*/\2 | \1/p' "$log/$name" | head -n 1)
        [ -n "$found" ] || fail "$name ended without a broken invariant; see $log/$name"
    fi
    printf '| %s | %s |\n' "${name//-/ }" "$found"
    git -C "$tree" apply --reverse "$patch"
done
[ "$missed" = 0 ] || fail "$missed of ${#names[@]} were not found in $OONA_SIM_SEEDS seeds"
printf '\nmutants: %s of %s found\n' "${#names[@]}" "${#names[@]}" >&2
