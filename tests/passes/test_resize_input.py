"""`resize-input`: its options, its place, and what passes behind it see."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.cost import cost
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.errors import UsageError
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess
from edgec.graph.resolution.axes import SizeError
from edgec.passes.base import Context, PassResult
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from edgec.passes.resize_input import ResizeInput, size_for
from tests.graph.conftest import build

NET = """g (float[N,3,32,32] x, float[16,3,3,3] w, float[16] b, float[8,16,3,3] v, float[8,4] k) => (float[N,4] y) {
 a = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w, b) r = Relu (a) c = Conv <strides=[2,2], pads=[1,1,1,1]> (r, v)
 s = Relu (c) p = GlobalAveragePool (s) f = Flatten (p) y = Gemm (f, k) }"""


def context(model: ir.Model, folder: Path, *, pictures: bool = True) -> Context:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    values = x if pictures else rng.standard_normal((24, 3, 32, 32)).astype(np.float32)
    source = ArraySource({"x": values}, Preprocess(scale=1 / 255), InputSpec.of(model))
    return Context(model, folder, Dataset("x", source, tuple(range(24))))


def test_text_and_numbers_are_read() -> None:
    assert print_pass(ResizeInput(size="160")) == "resize-input{size=160}"
    assert [one.size for one in parse_pipeline("resize-input{size=160x192}")] == ["160x192"]
    with pytest.raises(UsageError, match="not one or two sizes"):
        ResizeInput(size="160x160x3")
    with pytest.raises(UsageError, match="needs a size"):
        ResizeInput().complete()


@pytest.mark.parametrize(
    ("text", "source", "wanted"),
    [("160", (224, 224), (160, 160)), ("120", (240, 320), (120, 160)), ("96x192", (240, 320), (96, 192))],
)
def test_one_number_is_the_shorter_side(text: str, source: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert size_for(text, source) == wanted


def test_weights_stay_and_work_shrinks(tmp_path: Path) -> None:
    model = build(NET)
    result = ResizeInput(size="16").run(model.clone(), context(model, tmp_path))
    assert cost(result.model).macs < 0.26 * cost(model).macs
    assert cost(result.model).params == cost(model).params
    assert "32 → 16 px" in result.notes[0].text
    same = ResizeInput(size="32").run(model.clone(), context(model, tmp_path))
    assert not same.modified


class Looks(ResizeInput):
    """Stands behind and notes what it sees."""

    name = "looks"
    changes_input = False
    seen: ClassVar[list[tuple[object, ...]]] = []

    def run(self, model: ir.Model, context: Context) -> PassResult:
        assert context.data is not None
        shapes = [value.graph.inputs[0].shape for value in (model, context.teacher, context.source)]
        self.seen.append((*shapes, next(context.data.batches(2))["x"].shape))
        return PassResult(model, modified=False)


def test_passes_behind_it_see_the_new_size_and_budgets_the_old(tmp_path: Path) -> None:
    model = build(NET)
    looks = Looks()
    run_pipeline([ResizeInput(size="16"), looks], model, context(model, tmp_path))
    ((mine, teacher, source, batch),) = looks.seen
    assert list(mine)[2:] == list(teacher)[2:] == [16, 16]
    assert list(source)[2:] == [32, 32]
    assert batch == (2, 3, 16, 16)
    looks.seen.clear()


def test_a_budget_is_a_share_of_the_source_at_its_own_size(tmp_path: Path) -> None:
    model = build(NET)
    passes = parse_pipeline("resize-input{size=24} prune-channels{macs=40%} recover-lsq")
    steps = run_pipeline(passes, model, context(model, tmp_path))
    share = cost(steps[-1].model).macs / cost(model).macs
    assert 0.3 < share <= 0.405
    assert steps[1].macs[0] < 0.6 * cost(model).macs
    x = np.zeros((1, 3, 24, 24), np.float32)
    assert Executor(steps[-1].model).run({"x": x})["y"].shape == (1, 4)


def test_it_stands_in_front_of_what_looks_at_data(tmp_path: Path) -> None:
    model = build(NET)
    passes = parse_pipeline("prune-channels{macs=50%} resize-input{size=16}")
    with pytest.raises(UsageError, match="cannot come after prune-channels"):
        run_pipeline(passes, model, context(model, tmp_path))
    run_pipeline(parse_pipeline("fold resize-input{size=16}"), model, context(model, tmp_path))


def test_a_size_that_cannot_be_names_the_node(tmp_path: Path) -> None:
    flat = build(
        NET.replace("p = GlobalAveragePool (s) f = Flatten (p)", "f = Flatten (s)").replace(
            "[8,4] k", "[512,4] k"
        )
    )
    with pytest.raises(SizeError, match=r"Gemm.*a flattened map: 8 x 8 x 8"):
        run_pipeline([ResizeInput(size="16")], flat, context(flat, tmp_path))


def test_prepared_arrays_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    model = build(NET)
    with pytest.raises(Exception, match="no picture cannot be resized"):
        run_pipeline([ResizeInput(size="16")], model, context(model, tmp_path, pictures=False))
