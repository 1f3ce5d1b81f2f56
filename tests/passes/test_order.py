"""Every pass says where it may stand, and a pipeline in a wrong order is refused before anything is done."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.read.asked import resolve_passes
from edgec.compiler.read.recipe import make_recipe
from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import UsageError
from edgec.passes.base import Context, Pass
from edgec.passes.order import check_order
from edgec.passes.pipeline_string import make_pass
from edgec.passes.table import PASSES
from tests.conftest import parse

GIVEN = {"distill-convex": {"region": "a..b"}, "distil": {"narrow": "0.5"}, "remove-blocks": {"blocks": 1}}
CORRECTIONS = ("refit-quantized", "round-weights", "correct-bias")
FORMATS = ("quantize", "quantize-weights", "cast-fp16")
ANYWHERE = ("normalise", "fold", "fold-pointwise")
ON_FLOATS = (
    "prune-channels", "compress", "recover-lsq", "recover-fskd", "recover-bias", "remove-blocks", "decompose-svd",
    "decompose-channel", "decompose-spatial", "decompose-tucker", "decompose-depthwise", "distill-convex", "equalize",
    "refine", "distil",
)  # fmt: skip


def made(name: str) -> Pass:
    return make_pass(name, GIVEN.get(name, {}))


def refused(*names: str) -> str:
    try:
        check_order([made(name) for name in names])
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", PASSES)
def test_what_a_pass_names_exists(name: str) -> None:
    one = made(name)
    assert one.requires_before <= set(PASSES)
    assert one.never_after <= set(PASSES)
    assert not one.requires_before & one.never_after


@pytest.mark.parametrize("name", [*ON_FLOATS, *FORMATS])
@pytest.mark.parametrize("last", FORMATS)
def test_passes_on_floats_stand_before_the_number_formats(name: str, last: str) -> None:
    assert not refused(name, last) or name in FORMATS
    said = refused(last, name)
    assert f"cannot come after {last}" in said
    assert f"pass {name}" in said


@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrections_stand_behind_quantize(name: str) -> None:
    assert "Add quantize in front" in refused(name)
    assert "Move quantize in front of" in refused(name, "quantize")
    assert not refused("quantize", name)


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_may_stand_anywhere(name: str) -> None:
    assert not any(refused(*order) for order in itertools.permutations([name, "quantize", "correct-bias"])
                   if order.index("quantize") < order.index("correct-bias"))  # fmt: skip


@pytest.mark.parametrize(
    "text", ["round-weights quantize", "quantize recover-lsq", "cast-fp16 quantize", "correct-bias"]
)
def test_a_recipe_is_refused_before_its_model_is_looked_for(text: str) -> None:
    with pytest.raises(UsageError, match="pass "):
        resolve_passes(make_recipe({"model": {"path": "nowhere.onnx"}, "passes": text}))


def test_what_a_precision_adds_is_in_the_check() -> None:
    recipe = {"model": {"path": "nowhere.onnx"}, "precision": "int8", "passes": "correct-bias"}
    with pytest.raises(UsageError, match="needs quantize before it"):
        resolve_passes(make_recipe(recipe))


def test_a_pipeline_does_no_work_in_a_wrong_order(tmp_path: Path) -> None:
    model = canonicalise(parse("net (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"))
    seen: list[str] = []
    with pytest.raises(UsageError, match="cannot come after cast-fp16"):
        run_pipeline(
            [made(name) for name in ("fold", "cast-fp16", "quantize")],
            model,
            Context(model, tmp_path),
            after=lambda step: seen.append(step.one.name),
        )
    assert not seen
