#!/bin/sh
# Install Guilder from this folder: `sh install.sh FOLDER NUMBER`, where NUMBER is what
# `guilder bundle` printed, received by another way. PYTHON names another python3.
# This script is one of the files that may have been changed. So before it runs, with the
# machine's own tools: `sha256sum SHA256SUMS` is NUMBER, and `sha256sum --check --strict
# SHA256SUMS` says OK of every file. Here both are done again, and more.
# Exit: 0 done, 2 this machine does not fit, 5 a file is not what was bundled.
set -eu

python=${PYTHON:-python3}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)

stop() {
    printf '%s\n  fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

[ $# -eq 2 ] || stop 2 "usage: sh install.sh FOLDER NUMBER" \
    "name a folder to be made, and the number that the maker of the bundle told you by another way"
printf 'needs: Linux @MACHINE@, glibc @GLIBC@ or newer, Python @PYTHON@, GPU driver: %s\n' \
    "@DRIVER@"
[ "$(uname -m)" = "@MACHINE@" ] || stop 2 \
    "GLD-M006 this bundle is for @MACHINE@, this machine is $(uname -m)" \
    "make the bundle on such a machine"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || glibc=0
case $glibc in ''|0) stop 2 "GLD-M006 no glibc here" "use a distribution with glibc";; esac
[ "$(printf '%s\n%s\n' "@GLIBC@" "$glibc" | sort -V | head -n 1)" = "@GLIBC@" ] || stop 2 \
    "GLD-M006 glibc $glibc is older than @GLIBC@" "update the operating system"
found=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || found=none
[ "$found" = "@PYTHON@" ] || stop 2 \
    "GLD-M007 $python is Python $found, this bundle is for @PYTHON@" \
    "PYTHON=/path/to/python@PYTHON@ sh install.sh FOLDER NUMBER"

sums=$(sha256sum "$here/SHA256SUMS" 2>/dev/null | cut -d' ' -f1) || sums=none
[ "$2" = "$sums" ] || stop 5 \
    "GLD-M008 SHA256SUMS is $sums, not the one that was named; nothing was installed" \
    "ask who made the bundle for the number again, by another way, then for the bundle"
# What nobody listed is refused too: a second pip, a module beside this script, a link.
listed=$(cut -c67- "$here/SHA256SUMS" | LC_ALL=C sort)
there=$(cd "$here" && find . ! -type d ! -path ./SHA256SUMS | cut -c3- | LC_ALL=C sort)
[ "$listed" = "$there" ] || stop 5 \
    "GLD-M008 this bundle holds other files than SHA256SUMS lists; nothing was installed" \
    "remove what you added; else copy the bundle again into an empty folder"
[ -z "$(find "$here" ! -type d ! -type f)" ] || stop 5 \
    "GLD-M008 this bundle holds a link; nothing was installed" "copy the bundle again, as files"
(cd "$here" && sha256sum --check --strict --quiet SHA256SUMS >&2) || stop 5 \
    "GLD-M008 a file of this bundle was changed or is missing; nothing was installed" \
    "copy the bundle again, and compare SHA256SUMS with who made it"

[ ! -e "$1" ] || stop 2 "$1 is there already" "name a folder that is not"
"$python" -I -m venv --without-pip "$1"
set -- "$1" "$here"/wheels/pip-*.whl
"$1/bin/python" -I "$2/pip" --isolated install --no-index --no-deps --no-cache-dir \
    --disable-pip-version-check --quiet --require-hashes \
    --find-links "$here/wheels" --requirement "$here/requirements.txt"
printf 'installed: %s\nnext: %s\n' "$1/bin" "$1/bin/guilder client check"
