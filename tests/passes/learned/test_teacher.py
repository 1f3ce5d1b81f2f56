"""What a teacher says: the same by onnxruntime as by torch, for every form of batch, and also where torch has no such op."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import Executor
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.matched import Match, PooledTeacher
from edgec.passes.learned.teacher import Teacher

BODY = "{{ t = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(t)  p = GlobalAveragePool(r)  y = Flatten(p) }}"
NET = "net (float[{n},3,6,6] x) => (float[{n},4] y) <float[4,3,3,3] w> " + BODY
CPU = torch.device("cpu")


def pictures(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).standard_normal((count, 3, 6, 6)).astype(np.float32)}


@pytest.mark.parametrize("batch", ["N", "1"])
def test_it_says_what_torch_says(canonical, batch: str) -> None:
    model = canonical(NET.format(n=batch))
    feeds = pictures(5)
    said = Teacher(model, CPU).samples(feeds, ["r", "y"])
    with torch.no_grad():
        wanted = GraphModule(model).samples({"x": torch.from_numpy(feeds["x"])}, ["r", "y"])
    assert {name: tuple(one.shape) for name, one in said.items()} == {"r": (5, 4, 6, 6), "y": (5, 4)}
    for name, one in said.items():
        torch.testing.assert_close(one, wanted[name], rtol=1e-5, atol=1e-6)
        assert not one.requires_grad


def test_an_op_that_torch_has_not_can_teach(canonical) -> None:
    model = canonical(
        "net (float[N,3,6,6] x) => (float[N,3,6,6] y) { a = Det(x)  e = Unsqueeze(a, k)  y = Add(x, e) }".replace(
            "y) {", "y) <int64[2] k = {2, 3}> {"
        )
    )
    with pytest.raises(UnsupportedError, match="Det"):
        GraphModule(model)
    feeds = pictures(2)
    (said,) = Teacher(model, CPU).samples(feeds, ["y"]).values()
    np.testing.assert_array_equal(said.numpy(), Executor(model).run(feeds)["y"])


def test_matched_maps_come_at_the_sizes_of_the_student(canonical) -> None:
    model, feeds = canonical(NET.format(n="N")), pictures(3)
    (map_,) = Teacher(model, CPU).samples(feeds, ["r"]).values()
    (said,) = PooledTeacher(model, CPU, [Match("mine", "r", (3, 3), (2, 4))]).samples(feeds, ["r"]).values()
    torch.testing.assert_close(said, map_.reshape(3, 4, 3, 2, 3, 2).mean((3, 5)))
