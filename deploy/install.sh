#!/bin/sh
# Make .venv and install Guilder into it: `deploy/install.sh [dev]`; make calls it.
#
# uv does the work when it is on PATH, else Python's own pip. Settings, all optional:
#   PYTHON       the interpreter to use; else the first of python3, python3.13,
#                python3.12, python3.11 that is 3.11 or newer
#   TORCH_INDEX  one more package index, for torch's CPU wheels
# pip's own PIP_FIND_LINKS, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_CERT are
# handed on to uv, which reads none of pip's settings.
# This script starts nothing of Guilder and writes only .venv and the caches.
set -eu

venv=.venv
target=.${1:+[$1]}

stop() {
    printf 'guilder: %s\n' "$1" >&2
    printf '  fix: %s\n' "$2" >&2
    exit 2
}

announce() {
    printf '%s\n' "guilder: installing into $venv with $1; the first time takes minutes" >&2
    if [ "$(uname -s)" = Linux ] && [ -z "${TORCH_INDEX:-}${PIP_FIND_LINKS:-}${UV_TORCH_BACKEND:-}" ]; then
        printf '%s\n' "guilder: torch for Linux brings 2.6 GB of CUDA libraries; README.md names the 190 MB way" >&2
    fi
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || stop \
            "PYTHON=$PYTHON is not a Python of 3.11 or newer." \
            "name another one: make ... PYTHON=/path/to/python3.11"
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11; do
        if is_new_enough "$python"; then return; fi
    done
    python=
}

make_with_uv() {
    announce uv
    if [ -n "${PIP_FIND_LINKS:-}" ]; then   # pip: by spaces; uv: by commas
        UV_FIND_LINKS=${UV_FIND_LINKS:-$(printf '%s' "$PIP_FIND_LINKS" | tr -s ' ' ',')}
        export UV_FIND_LINKS
    fi
    if [ -n "${PIP_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
    fi
    if [ -n "${PIP_EXTRA_INDEX_URL:-}" ]; then
        export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
    fi
    if [ -n "${PIP_CERT:-}" ]; then
        export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
    fi
    export UV_COMPILE_BYTECODE=1            # else the first start compiles torch
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"  # as pip does
    "$venv/bin/python" -c '' 2>/dev/null ||
        uv venv --quiet --allow-existing --python "${python:->=3.11}" "$venv"
    uv pip install --python "$venv/bin/python" --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --editable "$target"
}

make_with_pip() {
    [ -n "$python" ] || stop \
        "no Python of 3.11 or newer was found (python3 is $(python3 -V 2>&1 || true))." \
        "install one, or name it: make ... PYTHON=/path/to/python3.11"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || stop \
        "$python cannot make virtual environments: Debian keeps that in a package of its own." \
        "sudo apt install python3-venv, then the same make command again"
    announce pip
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$venv"
    quiet=
    [ -t 1 ] || quiet=--quiet               # progress is for people
    "$venv/bin/python" -m pip install $quiet --disable-pip-version-check \
        --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --editable "$target"
}

find_python
if command -v uv >/dev/null 2>&1; then make_with_uv; else make_with_pip; fi
