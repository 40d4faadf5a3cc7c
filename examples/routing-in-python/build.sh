#!/bin/sh
# Makes a component of the policy and a Python interpreter. `oona policy build` runs this and sets
# OONA_WIT, OONA_WORLD and OONA_OUT. Needs python3 with venv and pip; componentize-py is put into
# target/venv.
set -eu

version=0.25.1
tool=target/venv/bin/componentize-py
if ! { [ -x $tool ] && $tool --version | grep -qF $version; }; then
    python3 -m venv target/venv && target/venv/bin/pip install --quiet componentize-py==$version || {
        echo "build.sh: componentize-py $version could not be installed with python3 and pip" >&2
        exit 1
    }
fi

# Without WASI there is no clock, no file and no randomness for the interpreter either.
$tool --wit-path "$OONA_WIT" --world "$OONA_WORLD" componentize --stub-wasi policy --output "$OONA_OUT"
