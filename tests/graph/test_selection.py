"""What selects among a network's answers is parted from it and put back, whatever selects and however it reads the boxes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.emit.onnx import emit
from edgec.graph.batch import is_free
from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import session
from edgec.graph.selection import in_front, joined, parted
from tests.conftest import parse

HEAD = """
  <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] wb, float[3,8,1,1] wc,
   int64[3] to_boxes = {0, 4, 64}, int64[3] to_scores = {0, 3, 64}, int64[1] most = {10}, float[1] limit = {0.5},
   float[1] least = {0.4}, int64 one = {1}, int64 two = {2}, int64[1] axis0 = {0}, int64[1] axis1 = {1}, int64[1] at4 = {4},
   int64[1] at7 = {7}, float least0 = {0.4}, int64 zero = {0}>
{ c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)  r = Relu(c)
  bm = Conv(r, wb)  bf = Reshape(bm, to_boxes)  sm = Conv(r, wc)  sf = Reshape(sm, to_scores)
  boxes = Transpose<perm=[0,2,1]>(bf)  scores = Sigmoid(sf)
"""
SUPPRESSED = "sel = NonMaxSuppression(boxes, scores, most, limit, least)  at = Gather<axis=1>(sel, two)"
CHOSEN = f"{SUPPRESSED}  alone = Squeeze(boxes, axis0)  found = Gather(alone, at)"
BY_THRESHOLD = """
  st = Transpose<perm=[0,2,1]>(scores)  joint = Concat<axis=2>(boxes, st)  rows = Gather(joint, zero)
  sc = Slice(rows, at4, at7, axis1)  best = ReduceMax<keepdims=0>(sc, axis1)  kind = ArgMax<axis=1, keepdims=0>(sc)
  sure = Greater(best, least0)  places = NonZero(sure)  at = Transpose(places)
  found = GatherND(rows, at)  kinds = GatherND(kind, at)
"""
BY_OFFSETS = """
  st = Transpose<perm=[0,2,1]>(scores)  rows = Squeeze(boxes, axis0)  sc = Squeeze(st, axis0)
  best = ReduceMax<keepdims=0>(sc, axis1)  kind = ArgMax<axis=1, keepdims=0>(sc)  far = ReduceMax<keepdims=0>(rows)
  number = Cast<to=1>(kind)  off = Mul(number, far)  column = Unsqueeze(off, axis1)  moved = Add(rows, column)
  moved1 = Unsqueeze(moved, axis0)  best1 = Unsqueeze(best, axis0)  best2 = Unsqueeze(best1, axis0)
  sel = NonMaxSuppression(moved1, best2, most, limit, least)  at = Gather<axis=1>(sel, two)
  found = Gather(rows, at)  kinds = Gather(kind, at)
"""
SECOND_STAGE = f"{CHOSEN}  of = Gather<axis=1>(sel, zero)  crops = RoiAlign<output_height=2, output_width=2>(r, found, of)"
FOUND, BOTH = "float[n,4] found", ["boxes", "scores"]
FORMS: dict[str, tuple[str, str, list[str]]] = {
    "chosen boxes": (CHOSEN, FOUND, BOTH),
    "indices alone": (SUPPRESSED, "int64[n,3] sel", BOTH),
    "the raw answers too": (CHOSEN, f"{FOUND}, float[1,3,64] scores, float[1,64,4] boxes", ["scores", "boxes"]),
    "a threshold (NonZero)": (BY_THRESHOLD, "float[n,7] found, int64[n] kinds", ["joint"]),
    "classes apart by offsets": (BY_OFFSETS, "float[n,4] found, int64[n] kinds", ["boxes", "st"]),
    "boxes of a batch of one": (f"{SUPPRESSED}  found = Gather<axis=1>(boxes, at)", "float[1,n,4] found", BOTH),
    "scores by class of chosen boxes": (f"{SUPPRESSED}  cut = Gather<axis=2>(scores, at)  found = Relu(cut)", "float[1,3,n] found", BOTH),
    "a second stage": (SECOND_STAGE, f"{FOUND}, float[n,8,2,2] crops", ["r", *BOTH]),
}  # fmt: skip


def detector(form: str, size: str = "1") -> onnx.ModelProto:
    body, outputs, _ = FORMS[form]
    return parse(f"net (float[{size},3,16,16] x) => ({outputs}) {HEAD} {body} }}")


@pytest.mark.parametrize("size", ["1", "N"])
@pytest.mark.parametrize("form", FORMS)
def test_a_selection_is_parted_and_put_back(form: str, size: str) -> None:
    source = detector(form, size)
    found = parted(canonicalise(source))
    assert found is not None
    network, selection = found
    assert sorted(value.name or "" for value in network.graph.outputs) == sorted(FORMS[form][2])
    assert is_free(network)  # what selects was all that fixed the batch
    file = emit(joined(network, selection), batch=1)
    ours, theirs = session(file), session(source)
    assert [one.name for one in ours.get_outputs()] == [one.name for one in theirs.get_outputs()]
    counts = set()
    for seed in range(6):
        x = np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32) * (seed / 2)
        for got, wanted in zip(ours.run(None, {"x": x}), theirs.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
            counts.add(wanted.shape)
    assert len(counts) > 1  # how many there are depends on the picture


def test_names_that_a_pass_took_meanwhile_are_kept_apart() -> None:
    network, selection = parted(canonicalise(detector("chosen boxes"))) or pytest.fail("not parted")
    taken = {node.name for node in selection.model.graph}
    for node in network.graph:
        node.name = taken.pop() if taken else node.name
        inner = node.outputs[0]
        if not inner.is_graph_output():
            inner.name = "alone" if node.op_type == "Relu" else inner.name
    whole = joined(network, selection)
    names = [node.name for node in whole.graph]
    values = [value.name for node in whole.graph for value in node.outputs]
    assert len(names) == len(set(names))
    assert len(values) == len(set(values))
    session(ir.to_proto(whole))


@pytest.mark.parametrize(
    "body",
    [
        "y = Flatten(boxes)",
        "kept = TopK<axis=1>(boxes, most)  y = Flatten(kept)",
        "ones = ConstantOfShape<value = float[1] {1.0}>(most)  places = NonZero(ones)  f = Cast<to=1>(places)"
        "  m = ReduceSum(f)  z = Mul(boxes, m)  y = Flatten(z)",
    ],
    ids=["nothing selects", "as many as ever", "only constants are looked at"],
)
def test_a_network_whose_shapes_are_known_stays_whole(body: str) -> None:
    body = body.replace("kept = TopK", "kept, order = TopK")
    source = parse(f"net (float[1,3,16,16] x) => (float[1,m] y) {HEAD} {body} }}")
    model = canonicalise(source)
    assert parted(model) is None
    assert in_front(model) is model
