#!/bin/sh
# TensorRT engines of this bundle's .onnx files, for this board: int8 with fp16 of the int8 files, plain fp16 of the others.
#   ./build.sh                build what is not there yet, or is of another file, TensorRT, board, or system
#   ./build.sh --force        build all again
# Exit codes: 0 built or there, 2 usage, 3 no TensorRT here, or none of the files could be built.
set -eu
case $0 in */*) CDPATH='' cd -- "${0%/*}/" ;; esac
case "${1:-}" in
  '' | --force) ;;
  *) echo "build: unknown option $1" >&2; exit 2 ;;
esac
[ -x .venv/bin/python ] || { echo "run ./install.sh first" >&2; exit 2; }
files=$(.venv/bin/python contents.py --onnx) || exit 3
[ -n "$files" ] || { echo "build: this bundle has no .onnx file for the GPU" >&2; exit 3; }
# Artifact names have no spaces; they are words on purpose.
# shellcheck disable=SC2086
exec .venv/bin/python edgec-agent.pyz build --text "$@" $files
