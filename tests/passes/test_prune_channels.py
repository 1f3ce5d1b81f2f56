"""Pruning to a budget: it is met, cheaply; the best channels stay; what is out of reach is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.channels import groups
from edgec.graph.compare import relative_error
from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor
from edgec.passes import prune_channels
from edgec.passes.base import Context
from edgec.passes.budget import parse_budget
from edgec.passes.channel_pruning import statistics
from edgec.passes.channel_pruning.costs import cost_of
from edgec.passes.channel_pruning.criteria import score_curve
from edgec.passes.channel_pruning.removal import removed
from edgec.passes.channel_pruning.statistics import consumers_of, gather, unit_rows
from edgec.passes.incremental.executor import IncrementalExecutor
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from edgec.passes.prune_channels import PruneChannels
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.channel_map import channel_maps
from edgec.passes.refit.fit import FitOptions
from edgec.passes.refit.layers import layers_of
from edgec.passes.refit.pooled import Pool
from edgec.passes.sensitivity.measure import Sensitivity, output_names, scaled_errors

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
Around = Callable[..., Context]

NETWORK = """
net (float[N,3,8,8] x) => (float[N,5] y)
<float[12,3,3,3] w0, float[12] b0, float[16,12,3,3] w1, float[16] b1, float[12,16,3,3] w2, float[12] b2,
 float[12,1,3,3] w3, float[20,12,1,1] w4, float[20] b4, float[5,20] w5, float[5] b5>
{
  [stem] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
  r = Relu(a)
  [inner] c = Conv<pads=[1,1,1,1]>(r, w1, b1)
  d = Relu(c)
  [branch] e = Conv<pads=[1,1,1,1]>(d, w2, b2)
  s = Add(e, r)
  t = Relu(s)
  [depth] u = Conv<group=12, strides=[2,2], pads=[1,1,1,1]>(t, w3)
  v = Relu(u)
  [point] k = Conv(v, w4, b4)
  l = Relu(k)
  p = GlobalAveragePool(l)
  f = Flatten(p)
  [classify] y = Gemm<transB=1>(f, w5, b5)
}
"""


@pytest.fixture
def teacher(canonical: Canonical) -> ir.Model:
    return canonical(NETWORK)


def output(model: ir.Model, data: Dataset) -> np.ndarray:
    return np.concatenate([Executor(model).run(feeds)["y"] for feeds in data.batches(16)])


def error(teacher: ir.Model, student: ir.Model, data: Dataset) -> float:
    wanted = output(teacher, data)
    mean = wanted.mean(axis=0)
    return relative_error(wanted - mean, output(student, data) - mean)


@pytest.mark.parametrize("budget", [{"macs": "60%"}, {"params": "50%"}, {"size": "9kB"}, {"macs": "100k"}])
def test_budgets_are_met_and_not_by_much(
    teacher: ir.Model, noise: Noise, context: Around, budget: dict[str, str]
) -> None:
    result = PruneChannels(**budget).run(teacher.clone(), context(teacher, noise(teacher, 24)))
    ((unit, text),) = budget.items()
    limit = parse_budget(f"{unit}={text}").limit(
        {"macs": cost(teacher).macs, "params": cost(teacher).params}.get(unit, 1)
    )
    got = {
        "macs": cost(result.model).macs,
        "params": cost(result.model).params,
        "size": 4 * cost(result.model).params,
    }[unit]
    assert 0.85 * limit < got <= limit
    assert result.modified
    assert result.data["budget"]["met"]
    assert output(result.model, noise(teacher, 2)).shape == (2, 5)


def test_redundant_channels_go_first(teacher: ir.Model, noise: Noise, context: Around) -> None:
    inner = layers_of(teacher)["inner"]
    columns = inner.columns()
    for copy in range(8, 16):
        columns[:, :, copy] = (copy - 6) * columns[:, :, copy - 8]
    inner.set_columns(columns)
    around = context(teacher, noise(teacher, 48))
    result = PruneChannels(macs="70%").run(teacher.clone(), around)
    widths = result.data["widths"]
    assert widths["inner"][1] < 12
    assert all(before == after for name, (before, after) in widths.items() if name != "inner")
    kept = channel_maps(result.model)["d"].positions
    assert len({position % 8 for position in kept}) >= 7
    fresh = noise(teacher, 32, seed=5)
    assert error(teacher, result.model, fresh) < 1e-3
    recovered = RecoverLsq().run(result.model, around).model
    assert error(teacher, recovered, fresh) < 1e-3


def test_obs_beats_the_baselines(teacher: ir.Model, noise: Noise, context: Around) -> None:
    around, fresh = context(teacher, noise(teacher, 64)), noise(teacher, 64, seed=5)
    errors = {}
    for criterion in ("obs", "l1", "activation", "random"):
        one = PruneChannels(macs="60%", criterion=criterion)
        errors[criterion] = error(teacher, one.run(teacher.clone(), around).model, fresh)
    assert min(errors, key=errors.__getitem__) == "obs"


def test_baselines_change_no_weight_that_stays(teacher: ir.Model, noise: Noise, context: Around) -> None:
    one = PruneChannels(macs="60%", criterion="l1", allocation="uniform")
    result = one.run(teacher.clone(), context(teacher, noise(teacher, 8)))
    kept = channel_maps(result.model)
    mine, theirs = layers_of(result.model)["branch"].view.weight, layers_of(teacher)["branch"].view.weight
    np.testing.assert_array_equal(mine, theirs[list(kept["s"].positions)][:, list(kept["d"].positions)])
    shares = [after / before for before, after in result.data["widths"].values()]
    assert max(shares) - min(shares) < 0.15


def test_inner_scope_leaves_the_residual_stream(teacher: ir.Model, noise: Noise, context: Around) -> None:
    result = PruneChannels(macs="60%", scope="inner").run(
        teacher.clone(), context(teacher, noise(teacher, 8))
    )
    assert set(result.data["widths"]) == {"inner", "point"}


def test_widths_follow_the_multiple(teacher: ir.Model, noise: Noise, context: Around) -> None:
    around = context(teacher, noise(teacher, 8))
    for multiple, odd in ((1, True), (4, False)):
        result = PruneChannels(macs="65%", multiple=multiple).run(teacher.clone(), around)
        assert result.data["budget"]["met"]
        assert any(after % 4 for _, after in result.data["widths"].values()) == odd


def test_a_budget_out_of_reach_ends_at_the_narrowest_and_says_so(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    result = PruneChannels(macs="1%", minimum=0.5).run(teacher.clone(), context(teacher, noise(teacher, 8)))
    warnings = [note.text for note in result.notes if note.level == "warning"]
    assert len(warnings) == 1
    assert "macs=1% is out of reach" in warnings[0]
    assert "least width" in warnings[0]
    assert not result.data["budget"]["met"]
    assert {name: after for name, (_, after) in result.data["widths"].items()} == {
        name: before // 2 for name, (before, _) in result.data["widths"].items()
    }
    assert len(result.data["widths"]) >= 3
    assert output(result.model, noise(teacher, 2)).shape == (2, 5)


def test_a_budget_that_is_met_already_changes_nothing(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    result = PruneChannels(macs="100%").run(teacher.clone(), context(teacher, noise(teacher, 8)))
    assert not result.modified


def test_nothing_prunable_says_why(canonical: Canonical, noise: Noise, context: Around) -> None:
    model = canonical(
        "net (float[N,3,4,4] x) => (float[N,4,4,4] y) <float[4,3,1,1] w> { [only] y = Conv(x, w) }"
    )
    result = PruneChannels(macs="50%").run(model.clone(), context(model, noise(model, 4)))
    assert not result.modified
    assert result.notes[0].level == "warning"
    assert {note.node for note in result.notes[1:]} == {"x", "only"}


@pytest.mark.parametrize("given", [{}, {"macs": "50%", "params": "50%"}])
def test_exactly_one_budget(teacher: ir.Model, noise: Noise, context: Around, given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="one budget"):
        PruneChannels(**given).run(teacher, context(teacher, noise(teacher, 4)))


def test_latency_needs_a_target(teacher: ir.Model, noise: Noise, context: Around) -> None:
    with pytest.raises(UsageError, match="target"):
        PruneChannels(latency="50%").run(teacher, context(teacher, noise(teacher, 4)))


def test_no_data_is_an_error(teacher: ir.Model, context: Around) -> None:
    with pytest.raises(PassError, match="calibration"):
        PruneChannels(macs="50%").run(teacher, context(teacher))


def test_the_pass_round_trips_as_text() -> None:
    text = "prune-channels{macs=50% criterion=l1 allocation=uniform multiple=8} recover-lsq{rows=20.0} recover-fskd recover-bias"
    assert " ".join(map(print_pass, parse_pipeline(text))) == text


def test_the_tradeoff_curve_passes_through_the_run(teacher: ir.Model, noise: Noise, context: Around) -> None:
    data = PruneChannels(macs="60%").run(teacher.clone(), context(teacher, noise(teacher, 16))).data
    costs = [point[0] for point in data["tradeoff"]]
    assert costs[0] == 1.0
    assert min(costs) < data["budget"]["reached"] <= 0.6
    assert data["predicted_error"] > 0


@pytest.mark.parametrize("unit", ["macs", "params", "size"])
def test_cost_tables_agree_with_the_cost_of_pruned_models(
    teacher: ir.Model, noise: Noise, context: Around, unit: str
) -> None:
    found = groups(teacher)
    table = cost_of(parse_budget(f"{unit}=50%"), teacher, found, None, 4.0)
    truth = {
        "macs": lambda m: cost(m).macs,
        "params": lambda m: cost(m).params,
        "size": lambda m: 4 * cost(m).params,
    }[unit]
    assert table.total({}) == truth(teacher)
    result = PruneChannels(macs="60%").run(teacher.clone(), context(teacher, noise(teacher, 8)))
    widths = {name: after for name, (_, after) in result.data["widths"].items()}
    assert table.total(widths) == truth(result.model)
    saved = table.saved("inner", 3, {"stem": 5})
    assert saved == table.total({"stem": 5}) - table.total({"stem": 5, "inner": 13})
    assert {"inner", "stem"} <= set(table.neighbours("inner"))


def test_a_latency_table_prices_narrower_models_lower(teacher: ir.Model) -> None:
    from edgec.targets import target

    table = cost_of(parse_budget("latency=50%"), teacher, groups(teacher), target("rpi4"), 4.0)
    assert 0 < table.total({"inner": 4, "point": 4}) < table.total({"point": 4}) < table.total({})


def test_statistics_predict_the_damage_of_a_removal(teacher: ir.Model, noise: Noise, context: Around) -> None:
    """The compensated weights' error, measured on the same data, is the curve's."""
    data = noise(teacher, 32)
    around = context(teacher, data)
    group = next(g for g in groups(teacher) if g.name == "inner")
    layers, refused = consumers_of(teacher, [group])
    assert [layer.name for layer in layers] == ["branch"]
    assert not refused
    batches = Batches.of(around, teacher.graph, held_out=0.0, hflip=False)
    found = gather(teacher, layers, batches, FitOptions(rows_per_unknown=1e9), around, "test")["branch"]
    rows = found.units(group)
    assert rows is not None
    gone = rows[[0, 3, 7]].ravel()
    before = Executor(teacher, outputs=["e", "t"]).run(next(iter(data.batches(32))))
    columns = found.compensated(gone)
    assert not columns[gone].any()
    found.set_columns(columns)
    after = Executor(teacher, outputs=["e"]).run(next(iter(data.batches(32))))["e"]
    measured = np.square(after - before["e"]).sum() / np.square(before["t"]).sum()
    gap = columns - found.columns
    assert np.einsum("no,nm,mo->", gap, found.h, gap) / found.energy == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize("images", [12, 40])
@pytest.mark.parametrize("growing", [False, True])
def test_layers_looked_at_in_one_go_have_the_statistics_of_each_alone(
    teacher: ir.Model,
    noise: Noise,
    context: Around,
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    growing: bool,
) -> None:
    """All at once, some at a time, one by one, on one thread and two: the same; and nothing stays on the disk. ``growing``: the
    last layers take more samples than the first."""
    around = context(teacher, noise(teacher, images))
    layers, _ = consumers_of(teacher, groups(teacher))
    assert len(layers) > 3
    batches = Batches.of(around, teacher.graph, held_out=0.1, hflip=True)
    batches = replace(batches, size=5, memory=1e4, largest=0)
    enough = {
        layer.name: 1000.0 if number > 1 or not growing else 10.0 for number, layer in enumerate(layers)
    }
    monkeypatch.setattr(statistics, "enough_samples", lambda some, _: enough[some[-1].name])
    walked: list[int] = []
    advance = IncrementalExecutor.advance

    def counted(self: IncrementalExecutor, *given: Any, **more: Any) -> Any:
        walked.append(1)
        return advance(self, *given, **more)

    monkeypatch.setattr(IncrementalExecutor, "advance", counted)

    def gathered(together: int, threads: int) -> tuple[list[Any], int]:
        monkeypatch.setattr(statistics, "TOGETHER_BYTES", together)
        walked.clear()
        there = replace(around, threads=threads)
        found = gather(teacher, layers, batches, FitOptions(rows_per_unknown=2), there, "test").values()
        assert not list(around.scratch.iterdir())
        return [(one.layer.name, one.rows, one.h, one.energy) for one in found], len(walked)

    alone, most = gathered(0, 1)
    assert [name for name, *_ in alone] == [layer.name for layer in layers]
    assert most >= len(layers)
    for layer, (_, count, *_) in zip(layers, alone, strict=True):
        numbers = batches.enough(enough[layer.name])
        assert growing or numbers == tuple(range(batches.count))
        samples = sum(len(feeds["x"]) for _, feeds in batches.numbered(numbers))
        if Pool.before(layer) is None:  # so few rows are all taken; pixels in front of a pool are rows too
            assert count == layer.rows * samples
    for together in (20_000, 1 << 30):
        found, walks = gathered(together, 1)
        assert walks < most
        twice, _ = gathered(together, 2)
        for one, other, single in zip(found, twice, alone, strict=True):
            assert one[:2] == other[:2] == single[:2]
            np.testing.assert_array_equal(one[2], other[2])
            # The runtime may pick another kernel for a part of another size.
            np.testing.assert_allclose(one[2], single[2], rtol=1e-4, atol=1e-6)
            assert one[3] == other[3] == pytest.approx(single[3], rel=1e-5)


def test_units_of_grouped_layers_lie_in_their_groups(canonical: Canonical) -> None:
    model = canonical("""
net (float[N,6,4,4] x) => (float[N,4,4,4] y) <float[4,3,2,1] w> { [g] y = Conv<group=2>(x, w) }""")
    layer = layers_of(model)["g"]
    assert layer.patches.unknowns == 7
    rows = unit_rows(layer, np.array([[0], [2], [4]]))
    np.testing.assert_array_equal(rows, [[0, 3], [2, 5], [8, 11]])


def test_damage_scales_the_curve_and_never_extrapolates() -> None:
    curve = np.array([0.0, 0.01, 0.02, 0.1, 0.2, 0.4])
    scaled = scaled_errors(curve, (Sensitivity(0.02, 0.2), Sensitivity(0.2, 0.4)))
    np.testing.assert_allclose(scaled[[0, 1, 2, 4, 5]], [0, 0.1, 0.2, 0.4, 0.8])
    assert 0.2 <= scaled[3] <= 0.4
    np.testing.assert_array_equal(scaled_errors(curve, ()), curve)


def test_score_curves_remove_the_smallest_first() -> None:
    curve = score_curve(np.array([3.0, 1.0, 2.0]))
    assert curve.order == (1, 2, 0)
    np.testing.assert_allclose(curve.errors, [0, 1 / 6, 0.5])


def test_probabilities_are_judged_before_the_softmax(canonical: Canonical) -> None:
    model = canonical("""
net (float[N,4] x) => (float[N,3] y) <float[3,4] w, float[3] b> { z = Gemm<transB=1>(x, w, b)  y = Softmax(z) }""")
    assert output_names(model.graph) == ("z",)


def test_damage_is_measured_on_samples_that_no_statistics_saw(
    teacher: ir.Model, noise: Noise, context: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {}

    def spy(name: str, real: Callable[..., object], position: int) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            seen[name] = set(arguments[position].data.indices)  # type: ignore[attr-defined]
            return real(*arguments)

        return call

    monkeypatch.setattr(prune_channels, "gather", spy("statistics", prune_channels.gather, 4))
    monkeypatch.setattr(prune_channels, "measure", spy("damage", prune_channels.measure, 2))
    PruneChannels(macs="50%").run(teacher.clone(), context(teacher, noise(teacher, 60)))
    assert len(seen["damage"]) == 12
    assert seen["statistics"] | seen["damage"] == set(range(60))
    assert not seen["statistics"] & seen["damage"]


@pytest.mark.parametrize(
    ("channels", "count", "said"),
    [
        (0, 0, "no channels removed"),
        (1, 1, "1 channel of 1 group removed"),
        (9, 3, "9 channels of 3 groups removed"),
    ],
)
def test_what_went_is_said_in_words(channels: int, count: int, said: str) -> None:
    assert removed(channels, count) == said
