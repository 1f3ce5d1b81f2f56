#!/bin/sh
# Latency of every artifact of this bundle, by the protocol that edgec uses everywhere. Options go to the agent:
#   ./bench.sh --threads 4          ./bench.sh --sustained 1800          ./bench.sh --interleave
# On a Jetson the engines that ./build.sh made are measured on the GPU, by trtexec; --layers gives their times per layer instead.
set -eu
case $0 in */*) CDPATH='' cd -- "${0%/*}/" ;; esac
[ -x .venv/bin/python ] || { echo "run ./install.sh first" >&2; exit 2; }
if [ "${1:-}" = --layers ]; then
  shift
  for artifact in $(.venv/bin/python contents.py --bench); do
    case $artifact in
      *@tensorrt) echo "$artifact"; .venv/bin/python edgec-agent.pyz profile --text "$@" "$artifact" || exit ;;
    esac
  done
  exit 0
fi
artifacts=$(.venv/bin/python contents.py --bench) || exit 3
[ -n "$artifacts" ] || { echo "no artifact of this bundle can run here" >&2; exit 3; }
# Artifact names have no spaces; they are words on purpose.
# shellcheck disable=SC2086
exec .venv/bin/python edgec-agent.pyz bench --text "$@" $artifacts
