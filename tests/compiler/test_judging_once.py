"""A network that is the source itself is judged by what the source said, and no other one is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgec.compiler.evaluate import quality
from edgec.graph.data import open_data
from edgec.graph.views import constant, set_constant

NET = "net (float[N,3,4,4] x) => (float[N,5] y) <float[5,3,4,4] w> { c = Conv(x, w)  y = Flatten(c) }"


def test_the_source_beside_itself_runs_once(canonical, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = canonical(NET)
    other = teacher.clone()
    weight = other.graph.initializers["w"]
    set_constant(weight, constant(weight) + np.float32(0.5))
    runs: Counter[int] = Counter()

    class Counting(quality.Executor):
        def run(self, feeds: Any) -> Any:
            runs[id(self)] += 1
            return super().run(feeds)

    monkeypatch.setattr(quality, "Executor", Counting)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((10, 3, 4, 4)).astype(np.float32))
    data = open_data(tmp_path / "x.npy", teacher)
    found = quality.judge(teacher, {"float": teacher.clone(), "int8": other}, data, threads=1, batch_size=5)
    assert sorted(runs.values()) == [2, 2], "the source and what differs from it, two batches each"
    alike, moved = found["float"].figures(), found["int8"].figures()
    assert alike["sqnr_db"] > 100 > moved["sqnr_db"]
