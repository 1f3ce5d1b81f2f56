"""Every node knows the pass that made it and the node of the source model that it stands for; no artifact tells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.canonicalise import canonicalise
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.errors import EdgecError, UnsupportedError
from edgec.graph.preprocess import Preprocess
from edgec.graph.provenance import FILE, MADE_BY, READING, SOURCE, Origin, origins, place
from edgec.graph.verify import verify
from edgec.passes.base import Context, Pass, PassResult
from edgec.passes.pipeline_string import parse_pipeline
from tests.conftest import parse

NET = """
net (float[N,8,8,8] x) => (float[N,4] y)
<float[8,8,3,3] w, float[8] b, float[8,8,3,3] v, float[8] c, float[4,8] f, float[4] g, int64[2] shape = {0, -1}>
{
  [c1] h = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w, b)
  [r1] a = Relu (h)
  [c2] k = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (a, v, c)
  [s] j = Add (k, a)
  [r2] l = Relu (j)
  [p] q = GlobalAveragePool (l)
  [rs] t = Reshape (q, shape)
  [fc] y = Gemm <transB=1> (t, f, g)
}
"""


def network() -> ir.Model:
    return canonicalise(named(NET))


def named(text: str) -> onnx.ModelProto:
    """``[name] y = Op (x)``: onnx.parser has no names for nodes in all of its versions."""
    label = re.compile(r"\[([a-z]\w*)\] (?=\w+ = [A-Z])")
    names, model = label.findall(text), parse(label.sub("", text))
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return model


def run(text: str, model: ir.Model, folder: Path) -> ir.Model:
    specs = InputSpec.of(model)
    rng = np.random.default_rng(0)
    arrays = {spec.name: rng.standard_normal((24, *spec.shape)).astype(np.float32) for spec in specs}
    data = Dataset("noise", ArraySource(arrays, Preprocess(layout="nchw"), specs), tuple(range(24)))
    return run_pipeline(parse_pipeline(text), model, Context(model, folder, data))[-1].model


def test_nodes_of_the_file_stand_for_themselves() -> None:
    found = origins(network())
    assert found["c1"] == Origin(FILE, "c1")
    assert set(found.values()) == {Origin(FILE, name) for name in found}


def test_what_reading_makes_is_told() -> None:
    text = """
    net (float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[4,3,1,1] w, float[4] s, float[4] b, float[4] m, float[4] v = {1, 1, 2, 1}>
    { [conv] h = Conv (x, w) [norm] y = BatchNormalization (h, s, b, m, v) }
    """
    found = origins(canonicalise(named(text)))
    assert len(found) == 1
    (one,) = found.values()
    assert one.source in ("conv", "norm")
    assert one.made_by in (FILE, READING)


def test_marks_in_a_file_are_not_believed() -> None:
    model = named(NET)
    model.graph.node[0].metadata_props.add(key=MADE_BY, value="an enemy")
    model.graph.node[0].metadata_props.add(key=SOURCE, value="elsewhere")
    assert origins(canonicalise(model))["c1"] == Origin(FILE, "c1")


@pytest.mark.parametrize("form", ["spatial", "channel", "tucker", "depthwise"])
def test_every_piece_stands_for_the_layer_that_was_cut(form: str, tmp_path: Path) -> None:
    made = run(f"decompose-{form}{{macs=60% multiple=1 sensitivity=no}}", network(), tmp_path)
    pieces = {name: one for name, one in origins(made).items() if one.made_by != FILE}
    assert pieces
    for name, one in pieces.items():
        assert one.made_by == f"decompose-{form}"
        assert name.startswith(f"{one.source}_piece")


def test_quantisers_stand_for_the_layer_whose_output_or_weight_they_round(tmp_path: Path) -> None:
    made = run("quantize{correct=none equalize=no}", network(), tmp_path)
    found = origins(made)
    assert len(found) == len(list(made.graph))
    for node in made.graph:
        one = found[node.name or ""]
        if node.op_type == "DequantizeLinear" and node.inputs[0].producer() is None:
            assert one == Origin("quantize", node.outputs[0].uses()[0].node.metadata_props[SOURCE])
        elif node.op_type == "QuantizeLinear" and node.inputs[0].producer() is not None:
            assert one == Origin("quantize", node.inputs[0].producer().metadata_props[SOURCE])
        else:
            assert one.source in {"c1", "r1", "c2", "s", "r2", "p", "rs", "fc"}


@pytest.mark.parametrize(
    "text",
    [
        "prune-channels{macs=60% multiple=1} recover-lsq fold",
        "compress{macs=50% multiple=1 pieces=all} recover-lsq quantize",
        "recover-fskd fold-pointwise",
        "remove-blocks{blocks=1} recover-bias",
        "normalise fold cast-fp16",
        "quantize-weights{least=1}",
        "equalize quantize{correct=none} round-weights",
    ],
)
def test_behind_every_pipeline_every_node_has_both(text: str, tmp_path: Path) -> None:
    source = network()
    made = run(text, source, tmp_path)
    names = {node.name for node in source.graph}
    passes = {one.name for one in parse_pipeline(text)} | {FILE}
    for node in made.graph:
        assert node.metadata_props[MADE_BY] in passes
        assert node.metadata_props[SOURCE] in names


def test_no_artifact_carries_them(tmp_path: Path) -> None:
    from edgec.compiler.emit.onnx import emit
    from edgec.compiler.emit.tflite import emit as emit_tflite

    marked = run(
        "decompose-spatial{macs=60% multiple=1 sensitivity=no} quantize{correct=none}", network(), tmp_path
    )
    plain = marked.clone()
    for node in plain.graph:
        node.metadata_props.clear()
    assert origins(marked)
    assert not origins(plain)
    assert emit(marked) == emit(plain)
    assert MADE_BY.encode() not in emit(marked)
    assert emit_tflite(marked, precision="int8") == emit_tflite(plain, precision="int8")


@dataclass(frozen=True)
class Breaks(Pass):
    """Makes a node that nobody can take."""

    name: ClassVar[str] = "breaks"
    summary: ClassVar[str] = "for the test"

    def run(self, model: ir.Model, context: Context) -> PassResult:
        last = next(node for node in model.graph if node.op_type == "Gemm")
        new = ir.node("LSTM", [last.inputs[0]], name="odd")
        new.outputs[0].name = "odd_out"
        model.graph.insert_before(last, new)
        last.replace_input_with(0, new.outputs[0])
        return PassResult(model, True)


def test_errors_name_the_pass_and_the_source(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(EdgecError, match=r"node 'odd' \(LSTM; breaks, from 'rs'\)"):
        run_pipeline([Breaks()], model, Context(model, tmp_path))


def test_a_node_of_the_source_is_named_as_ever() -> None:
    model = network()
    assert place(next(iter(model.graph))) == "node 'c1' (Conv)"
    for node in model.graph:
        node.op_type = "LSTM" if node.name == "c2" else node.op_type
    with pytest.raises(UnsupportedError, match=r"node 'c2' \(LSTM\)"):
        verify(model)
