"""Walking a network: live values, spilling, sites and what they hand out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.channels import groups, remove
from edgec.graph.data import Dataset
from edgec.graph.errors import PassError
from edgec.graph.execute import Executor
from edgec.passes.base import Context
from edgec.passes.incremental.executor import IncrementalExecutor, batch_size, visits
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.refit.batches import Batches, spread, wants_flips
from edgec.passes.refit.channel_map import channel_maps, record_removal
from edgec.passes.refit.fit_target import chain_before, fit_target_of
from edgec.passes.refit.layer_fits import LayerFits, touched_layers
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.solvers.rectified import Clipping

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]

RESIDUAL = """
net (float[N,3,8,8] x) => (float[N,5] y)
<float[6,3,3,3] w0, float[6] b0, float[8,6,3,3] w1, float[8] b1, float[6,8,3,3] w2, float[6] b2,
 float[10,6,1,1] w3, float[5,10] w4, float[5] b4>
{
  [stem] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
  [stem_relu] r = Relu(a)
  [inner] c = Conv<pads=[1,1,1,1]>(r, w1, b1)
  [inner_relu] d = Relu(c)
  [branch] e = Conv<pads=[1,1,1,1]>(d, w2, b2)
  [sum] s = Add(e, r)
  [sum_relu] t = Relu(s)
  [head] u = Conv(t, w3)
  [pool] p = GlobalAveragePool(u)
  [flat] f = Flatten(p)
  [classify] y = Gemm<transB=1>(f, w4, b4)
}
"""


@pytest.fixture
def model(canonical: Canonical) -> ir.Model:
    return canonical(RESIDUAL)


def test_stops_hold_what_the_whole_network_computes(model: ir.Model, noise: Noise, tmp_path: Path) -> None:
    data = noise(model, 10)
    nodes = list(model.graph)
    names = [value.name or "" for node in nodes for value in node.outputs]
    whole = Executor(model, outputs=names).run(next(iter(data.batches(10))))
    walk = IncrementalExecutor(model, data.batches(4), ActivationStore(tmp_path, 1 << 20), 1)
    assert walk.sizes == {0: 4, 1: 4, 2: 2}
    for position in range(1, len(nodes)):
        walk.go(position)
        assert set(walk.live) == {
            v.name for n in nodes[position:] for v in n.inputs if v is not None and v.name in (*names, "x")
        } & {*names[:position], "x"}
        for name in walk.live:
            if name != "x":
                held = np.concatenate([found[name] for found in walk.values([name])])
                np.testing.assert_allclose(held, whole[name], rtol=1e-5, atol=1e-5)
        ahead = np.concatenate([found["y"] for found in walk.values(["y"])])
        np.testing.assert_allclose(ahead, whole["y"], rtol=1e-4, atol=1e-5)


def test_weights_behind_the_stop_are_those_of_the_moment(
    model: ir.Model, noise: Noise, tmp_path: Path
) -> None:
    walk = IncrementalExecutor(model, noise(model, 4).batches(4), ActivationStore(tmp_path, 1 << 20), 1)
    walk.go(2)
    before = next(walk.values(["c"]))["c"]
    layers_of(model)["inner"].view.set(bias=np.full(8, 5, np.float32))
    after = next(walk.values(["c"]))["c"]
    assert np.abs(after - before).min() > 1


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize(
    "wanted",
    [["r", "d", "s", "y"], ["a", "a", "t", "a", "f"], ["x", "e", "r", "x"], ["y"], ["r", "e", "e", "s", "s"]],
    ids=",".join,
)
def test_what_is_visited_is_what_the_whole_network_computes(
    model: ir.Model, noise: Noise, tmp_path: Path, wanted: list[str], limit: int
) -> None:
    """In any order, again and again; what no later visit needs is let go of."""
    data = noise(model, 10)
    whole = Executor(model, outputs=wanted).run(next(iter(data.batches(10))))
    with ActivationStore(tmp_path, limit) as store:
        walk = IncrementalExecutor(model, data.batches(4), store, 1)
        for number, (name, held) in enumerate(zip(wanted, visits(model, wanted), strict=True)):
            found = np.concatenate([one[name] for one in walk.move(held, [name])])
            np.testing.assert_allclose(found, whole[name], rtol=1e-4, atol=1e-5)
            assert set(walk.live) <= {"x", *wanted[: number + 1]}
        assert not walk.live
        assert not len(store)
        assert not store.held
    assert not list(tmp_path.iterdir())


def test_what_is_visited_runs_no_node_twice(model: ir.Model) -> None:
    """The second branch of the residual begins where the first did; `r` is held until the sum."""
    held = visits(model, ["r", "d", "s", "u"])
    assert list(map(set, held)) == [{"r"}, {"d", "r"}, {"s"}, set()]


def test_the_store_is_empty_behind_its_context(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ActivationStore(tmp_path, 0) as store:  # noqa: PT012
        store.put("a", 0, np.ones(3))
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_the_store_spills_and_forgets(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, limit=100)
    small, large = np.arange(10, dtype=np.float32), np.arange(100, dtype=np.float32)
    store.put("a", 0, small)
    store.put("b", 0, large)
    assert (store.held, store.spilled) == (40, 400)
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(store.get("b", 0), large)
    store.put("a", 0, small + 1)
    np.testing.assert_array_equal(store.get("a", 0), small + 1)
    store.drop_one("b", 0)
    with pytest.raises(KeyError):
        store.get("b", 0)
    assert len(store) == 1
    store.clear()
    assert not list(tmp_path.iterdir())
    assert store.held == 0


def test_goals(model: ir.Model) -> None:
    position = {node: number for number, node in enumerate(model.graph)}
    goals = {name: fit_target_of(layer, position) for name, layer in layers_of(model).items()}
    assert goals["inner"].value == "c"
    assert goals["inner"].clipping == Clipping(0.0, None)
    assert (goals["branch"].value, goals["branch"].others) == ("s", ("r",))
    assert goals["branch"].clipping == Clipping(0.0, None)
    assert goals["head"].clipping is None
    assert goals["stem"].others == ()


def test_the_second_of_two_branches_makes_up_for_the_first(canonical: Canonical) -> None:
    model = canonical("""
net (float[N,3,4,4] x) => (float[N,4,4,4] y)
<float[4,3,1,1] w0, float[4,3,1,1] w1> {
  [first] a = Conv(x, w0)
  [second] b = Conv(x, w1)
  y = Add(a, b)
}""")
    position = {node: number for number, node in enumerate(model.graph)}
    layers = layers_of(model)
    assert fit_target_of(layers["first"], position).others == ()
    assert fit_target_of(layers["second"], position).others == ("a",)


def test_layers_round_trip_their_weights(model: ir.Model) -> None:
    data = {name: layer.columns() for name, layer in layers_of(model).items()}
    assert set(data) == {"stem", "inner", "branch", "head", "classify"}
    for name, layer in layers_of(model).items():
        layer.set_columns(data[name] * 2)
        np.testing.assert_allclose(layer.columns(), data[name] * 2, rtol=1e-6)


def prune(model: ir.Model, removals: dict[str, list[int]]) -> None:
    record_removal(model, groups(model), removals)
    remove(model, removals)


def test_kept_channels_compose_over_prunings(model: ir.Model) -> None:
    teacher = model.clone()
    prune(model, {"inner": [0, 3]})
    prune(model, {"inner": [0, 4], "stem": [5]})
    kept = channel_maps(model)
    assert kept["c"].positions == (2, 4, 5, 7)
    assert kept["d"].positions == kept["c"].positions
    assert kept["s"].positions == (0, 1, 2, 3, 4)
    mine, theirs = layers_of(model)["inner"].view.weight, layers_of(teacher)["inner"].view.weight
    np.testing.assert_array_equal(mine, theirs[[2, 4, 5, 7]][:, :5])


def test_only_layers_behind_a_change_are_touched(model: ir.Model) -> None:
    teacher = model.clone()
    assert touched_layers(model, teacher) == ()
    prune(model, {"inner": [1]})
    assert touched_layers(model, teacher) == ("branch", "head", "classify")
    other = teacher.clone()
    layers_of(other)["head"].view.set(weight=layers_of(other)["head"].view.weight * 2)
    assert touched_layers(other, teacher) == ("classify",)


def test_sites_hand_out_student_inputs_and_teacher_targets(
    model: ir.Model, noise: Noise, context: Callable[..., Context]
) -> None:
    teacher = model.clone()
    prune(model, {"inner": [0, 1]})
    data = noise(model, 12)
    around = context(teacher, data)
    batches = Batches(data.take(8), data.take(4, seed=1), 4, hflip=True)
    assert (batches.first_held, batches.samples) == (4, 16)
    names = ["branch", "classify"]
    x = np.concatenate([feeds["x"] for feeds in batches])
    assert len(x) == 20
    np.testing.assert_array_equal(x[4:8], x[:4, ..., ::-1])
    clean = Executor(teacher, outputs=["s", "y"]).run({"x": x})
    seen = 0
    for site in LayerFits(model, around, names, batches):
        samples = list(site.samples)
        assert [sample.held for sample in samples] == [False] * 4 + [True]
        own = Executor(model, outputs=["d", "r", "f"]).run({"x": x})
        got = np.concatenate([sample.x for sample in samples])
        target = np.concatenate([sample.target for sample in samples])
        if site.layer.name == "branch":
            np.testing.assert_allclose(got, own["d"], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(target, clean["s"] - own["r"], rtol=1e-4, atol=1e-4)
            site.layer.view.set(bias=np.ones(6, np.float32))
            assert site.rows == 16 * 64
        else:
            np.testing.assert_allclose(got, own["f"], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(target, clean["y"], rtol=1e-4, atol=1e-4)
            assert site.rows == 16
        seen += 1
    assert seen == 2


def test_data_is_needed(model: ir.Model, context: Callable[..., Context]) -> None:
    with pytest.raises(PassError, match="calibration"):
        Batches.of(context(model), model.graph, held_out=0.1, hflip=False)


def test_batches_shrink_with_the_largest_activation(model: ir.Model) -> None:
    assert batch_size(model.graph) == 100
    assert batch_size(model.graph, megabytes=0.02) == 7


def test_pictures_are_mirrored_only_where_that_makes_sense(model: ir.Model, canonical: Canonical) -> None:
    gray = canonical("net (float[N,1,4,4] x) => (float[N,1,4,4] y) { y = Relu(x) }")
    assert wants_flips("auto", model)
    assert not wants_flips("auto", gray)
    assert wants_flips("yes", gray)
    assert not wants_flips("no", model)


def test_matmul_over_the_last_axis_is_a_layer(canonical: Canonical) -> None:
    model = canonical("net (float[N,6,3] x) => (float[N,6,4] y) <float[3,4] w> { [m] y = MatMul(x, w) }")
    layer = Layer.of(next(node for node in model.graph if node.op_type == "MatMul"))
    assert layer is not None
    assert layer.channels_last
    assert layer.first(np.zeros((2, 6, 3))).shape == (2, 3, 6)
    assert layer.columns().shape == (1, 3, 4)


def test_chains_reach_back_over_activations_and_depthwise_layers(
    canonical: Canonical, model: ir.Model
) -> None:
    layers = layers_of(model)
    assert [inner.layer.name for inner in chain_before(layers["branch"], 1)] == ["inner"]
    assert [inner.layer.name for inner in chain_before(layers["branch"], 3)] == [
        "inner"
    ]  # the stem feeds the skip too
    assert chain_before(layers["inner"], 1) == ()
    assert chain_before(layers["classify"], 1) == ()  # a pooling lies between
    mobile = canonical("""
net (float[N,3,8,8] x) => (float[N,5,4,4] y)
<float[4,3,1,1] w0, float[4,1,3,3] w1, float[6,4,1,1] w2, float[5,6,1,1] w3> {
  [a] p = Conv(x, w0)
  q = Relu(p)
  [b] r = Conv<group=4, strides=[2,2], pads=[1,1,1,1]>(q, w1)
  s = Relu(r)
  [c] t = Conv(s, w2)
  [d] y = Conv(t, w3)
}""")
    layers = layers_of(mobile)
    chain = chain_before(layers["c"], 1)
    assert [(inner.layer.name, inner.clipping) for inner in chain] == [("a", Clipping()), ("b", Clipping())]
    assert [(inner.layer.name, inner.clipping) for inner in chain_before(layers["d"], 1)] == [("c", None)]
    assert [inner.layer.name for inner in chain_before(layers["d"], 2)] == ["a", "b", "c"]
    assert chain_before(layers["b"], 0) == ()


def test_layers_that_change_together_are_computed_again(
    model: ir.Model, noise: Noise, context: Callable[..., Context]
) -> None:
    teacher = model.clone()
    prune(model, {"inner": [0, 1]})
    data = noise(model, 6)
    batches = Batches(data, data.take(0), 4)
    feeds = {"x": np.concatenate([one["x"] for one in data.batches(6)])}
    seen = []
    for site in LayerFits(model, context(teacher, data), ["branch", "head"], batches, depth=1):
        samples = list(site.samples)
        seen.append(site.layer.name)
        if site.layer.name == "branch":
            assert [inner.layer.name for inner in site.chain] == ["inner"]
            own = Executor(model, outputs=["r"]).run(feeds)
            np.testing.assert_allclose(
                np.concatenate([s.start for s in samples]), own["r"], rtol=1e-4, atol=1e-5
            )
            site.chain[0].layer.view.set(bias=np.ones(6, np.float32))
        else:
            assert site.chain == ()
            own = Executor(model, outputs=["t"]).run(feeds)
            np.testing.assert_allclose(np.concatenate([s.x for s in samples]), own["t"], rtol=1e-4, atol=1e-4)
    assert seen == ["branch", "head"]


def test_samples_join_where_a_layer_needs_them_first(
    model: ir.Model, noise: Noise, context: Callable[..., Context]
) -> None:
    teacher = model.clone()
    prune(model, {"inner": [0, 1]})
    data = noise(model, 24)
    around = context(teacher, data)
    batches = Batches(data.take(20), data.take(4, seed=1), 4, hflip=True)
    wanted = {"branch": 9.0, "classify": 30.0}
    sites = LayerFits(model, around, list(wanted), batches, enough=lambda layers: wanted[layers[-1].name])
    for site in sites:
        # Pairs of four as they are and mirrored: 16 are the first that hold 9, 32 the first that hold 30.
        numbers = {"branch": [0, 1, 8, 9, 10], "classify": [0, 1, 2, 3, 4, 5, 8, 9, 10]}[site.layer.name]
        x = np.concatenate([feeds["x"] for number, feeds in batches.numbered(numbers)])
        samples = list(site.samples)
        assert [sample.held for sample in samples] == [number == 10 for number in numbers]
        assert (site.images, site.rows) == (len(x) - 4, (len(x) - 4) * site.layer.rows)
        own = Executor(model, outputs=["d", "f"]).run({"x": x})
        got = np.concatenate([sample.x for sample in samples])
        if site.layer.name == "branch":
            np.testing.assert_allclose(got, own["d"], rtol=1e-4, atol=1e-5)
            site.layer.view.set(bias=np.ones(6, np.float32))
        else:  # those that came later went through the layers as they are by now
            np.testing.assert_allclose(got, own["f"], rtol=1e-4, atol=1e-4)
            clean = Executor(teacher, outputs=["y"]).run({"x": x})
            target = np.concatenate([sample.target for sample in samples])
            np.testing.assert_allclose(target, clean["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("count", [1, 7, 16, 33])
def test_some_batches_are_a_part_of_more_and_spread_over_all(
    model: ir.Model, noise: Noise, count: int, hflip: bool
) -> None:
    data = noise(model, count + 3)
    batches = Batches(data.only(range(count)), data.only(range(count, count + 3)), 2, hflip)
    whole = list(batches)
    assert len(whole) == batches.count
    before: set[int] = set()
    for samples in (0.0, 1.0, count / 3, count, 2 * count, np.inf):
        numbers = batches.enough(samples)
        assert before <= set(numbers)
        before = set(numbers)
        assert set(range(batches.first_held, batches.count)) <= before
        fitted = [number for number in numbers if number < batches.first_held]
        held = sum(len(whole[number]["x"]) for number in fitted)
        assert held >= min(samples, batches.samples)
        for number, feeds in batches.numbered(numbers):
            np.testing.assert_array_equal(feeds["x"], whole[number]["x"])
    assert before == set(range(batches.count))


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33, 100])
def test_the_first_of_an_order_are_spread(count: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    for taken in range(1, count + 1):
        gaps = np.diff([0, *sorted(order[:taken]), count])
        assert gaps.max() <= np.ceil(4 * count / taken)


def test_maps_that_stay_in_memory_need_no_choice(model: ir.Model, noise: Noise) -> None:
    data = noise(model, 16)
    batches = Batches(data, data.take(0), 2, largest=1000, memory=32_000)
    assert batches.enough(1) == tuple(range(8))
    assert batches.enough(1) != Batches(data, data.take(0), 2, largest=1001, memory=32_000).enough(1)
