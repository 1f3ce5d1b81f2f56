#!/bin/sh
# Latency of every artifact of this bundle, by the protocol that edgec uses everywhere. Options go to the agent:
#   ./bench.sh --threads 4          ./bench.sh --sustained 1800          ./bench.sh --interleave
set -eu
case $0 in */*) CDPATH='' cd -- "${0%/*}/" ;; esac
[ -x .venv/bin/python ] || { echo "run ./install.sh first" >&2; exit 2; }
artifacts=$(.venv/bin/python contents.py) || exit 3
[ -n "$artifacts" ] || { echo "no artifact of this bundle can run here" >&2; exit 3; }
# Artifact names have no spaces; they are words on purpose.
# shellcheck disable=SC2086
exec .venv/bin/python edgec-agent.pyz bench --text "$@" $artifacts
