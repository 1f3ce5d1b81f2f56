"""ONNX's own node tests through the emitter; the counts stand in docs/tflite.md."""

from __future__ import annotations

import collections
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("ai_edge_litert")


def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "bench" / "tflite_conformance.py"
    spec = importlib.util.spec_from_file_location("tflite_conformance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_node_cases() -> None:
    run = bench()
    kinds: collections.Counter[str] = collections.Counter()
    failures = []
    for case in run.collect_testcases(None):
        if run.is_float_case(case.model):
            kind, detail = run.outcome(case)
            kinds[kind] += 1
            if kind == "failed":
                failures.append((case.name, detail))
    assert not failures
    assert kinds["passed"] + kinds["bound"] >= 480
