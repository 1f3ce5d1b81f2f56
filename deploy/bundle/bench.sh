#!/bin/sh
# Latency of every artifact of this bundle, by the protocol that edgec uses everywhere. Options go to the agent:
#   ./bench.sh --threads 4          ./bench.sh --sustained 1800          ./bench.sh --interleave
set -eu
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || { echo "run ./install.sh first" >&2; exit 2; }
artifacts=$(.venv/bin/python -c 'import json
from importlib.util import find_spec
have = {"onnx": find_spec("onnxruntime"), "tflite": find_spec("ai_edge_litert") or find_spec("tflite_runtime")}
print(" ".join(a["file"] for a in json.load(open("bundle.json"))["artifacts"] if have[a["format"]]))')
[ -n "$artifacts" ] || { echo "no artifact of this bundle can run here" >&2; exit 3; }
# Artifact names have no spaces; they are words on purpose.
# shellcheck disable=SC2086
exec .venv/bin/python edgec-agent.pyz bench --text "$@" $artifacts
