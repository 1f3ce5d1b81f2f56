"""The recovery passes: they restore what can be restored, keep what helps, and say what they did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.channels import groups, remove
from edgec.graph.compare import relative_error
from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.passes.base import Context, Pass
from edgec.passes.fold_pointwise import FoldPointwise
from edgec.passes.recover_bias import RecoverBias
from edgec.passes.recover_fskd import RecoverFskd, insert_after
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.refit import joint
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.channel_map import record_removal
from edgec.passes.refit.fit import FitOptions, enough_samples, row_fraction
from edgec.passes.refit.joint import Maps
from edgec.passes.refit.layer_fits import Sample
from edgec.passes.refit.layers import layers_of
from edgec.passes.solvers.chain import Link, Refined, Target
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.guard import Verdict

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
Around = Callable[..., Context]

NETWORK = """
net (float[N,3,8,8] x) => (float[N,5] y)
<float[6,3,3,3] w0, float[6] b0, float[8,6,3,3] w1, float[8] b1, float[6,8,3,3] w2, float[6] b2,
 float[6,1,3,3] w3, float[10,6,1,1] w4, float[10] b4, float[5,10] w5, float[5] b5>
{
  [stem] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
  r = Relu(a)
  [inner] c = Conv<pads=[1,1,1,1]>(r, w1, b1)
  d = Relu(c)
  [branch] e = Conv<pads=[1,1,1,1]>(d, w2, b2)
  s = Add(e, r)
  t = Relu(s)
  [depth] u = Conv<group=6, strides=[2,2], pads=[1,1,1,1]>(t, w3)
  v = Relu(u)
  [point] k = Conv(v, w4, b4)
  l = Relu(k)
  p = GlobalAveragePool(l)
  f = Flatten(p)
  [classify] y = Gemm<transB=1>(f, w5, b5)
}
"""


def pruned(teacher: ir.Model, removals: dict[str, list[int]]) -> ir.Model:
    student = teacher.clone()
    record_removal(student, groups(student), removals)
    remove(student, removals)
    return student


def output(model: ir.Model, data: Dataset) -> np.ndarray:
    return np.concatenate([next(iter(Executor(model).run(feeds).values())) for feeds in data.batches(16)])


def error(teacher: ir.Model, student: ir.Model, data: Dataset) -> float:
    """Squared error over the variance of the teacher's output."""
    wanted = output(teacher, data)
    mean = wanted.mean(axis=0)
    return relative_error(wanted - mean, output(student, data) - mean)


@pytest.fixture
def teacher(canonical: Canonical) -> ir.Model:
    return canonical(NETWORK)


@pytest.mark.parametrize("clipped", [0, 4])
def test_redundant_channels_cost_nothing_after_a_refit(
    teacher: ir.Model, noise: Noise, context: Around, clipped: int
) -> None:
    inner = layers_of(teacher)["inner"]
    columns = inner.columns()
    # Channels 6 and 7 are positive multiples of 0 and 1, through the Relu as well.
    columns[:, :, 6], columns[:, :, 7] = 2 * columns[:, :, 0], 0.5 * columns[:, :, 1]
    inner.set_columns(columns)
    student = pruned(teacher, {"inner": [6, 7]})
    data, fresh = noise(teacher, 48), noise(teacher, 32, seed=9)
    assert error(teacher, student, fresh) > 1e-3
    result = RecoverLsq(ridge=1e-8, clipped=clipped, mixup=False).run(student.clone(), context(teacher, data))
    assert result.modified
    assert error(teacher, result.model, fresh) < 1e-6
    report = next(layer for layer in result.layers if layer.node == "branch")
    assert report.kept
    assert report.error_after < 1e-6 < report.error_before
    assert report.unknowns == 6 * 9 + 1


PASSES = [RecoverLsq(), RecoverFskd(), RecoverFskd(after="conv", sweeps=2), RecoverBias()]


@pytest.mark.parametrize("one", PASSES, ids=lambda one: one.name)
def test_each_recovery_lowers_the_error_on_fresh_samples(
    teacher: ir.Model, noise: Noise, context: Around, one: Pass
) -> None:
    student = pruned(teacher, {"inner": [0, 2, 5]})
    data, fresh = noise(teacher, 64), noise(teacher, 64, seed=9)
    result = one.run(student.clone(), context(teacher, data))
    assert error(teacher, result.model, fresh) < 0.9 * error(teacher, student, fresh)
    assert {layer.node for layer in result.layers if layer.kept}
    assert [v.name for v in result.model.graph.outputs] == ["y"]


def test_the_full_refit_beats_the_corrective_convolution_and_the_bias(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    student = pruned(teacher, {"inner": [0, 2, 5]})
    data, fresh = noise(teacher, 128), noise(teacher, 64, seed=9)
    errors = [
        error(teacher, one.run(student.clone(), context(teacher, data)).model, fresh)
        for one in (RecoverLsq(), RecoverFskd(), RecoverBias())
    ]
    assert errors[0] < min(errors[1:])


def test_recovery_is_reproducible(teacher: ir.Model, noise: Noise, context: Around) -> None:
    student = pruned(teacher, {"inner": [0, 2]})
    around = context(teacher, noise(teacher, 32))
    runs = [RecoverLsq().run(student.clone(), around).model for _ in range(2)]
    np.testing.assert_array_equal(output(runs[0], around.data), output(runs[1], around.data))
    other = RecoverLsq().run(student.clone(), replace(around, seed=1)).model
    assert np.abs(output(other, around.data) - output(runs[0], around.data)).max() > 0


def test_fits_that_do_not_generalise_are_taken_back(teacher: ir.Model, noise: Noise, context: Around) -> None:
    """Two samples of 64 pixels for 55 unknowns, hardly any ridge: held-out rows veto, and the network is no worse."""
    student = pruned(teacher, {"inner": [0]})
    data, fresh = noise(teacher, 4), noise(teacher, 64, seed=9)
    result = RecoverLsq(ridge=1e-9, clipped=0, held_out=0.5).run(student.clone(), context(teacher, data))
    vetoed = [layer for layer in result.layers if not layer.kept]
    assert vetoed
    assert all("no better on held-out rows" in layer.note for layer in vetoed)
    assert {note.node for note in result.notes if note.level == "reverted"} == {
        layer.node for layer in vetoed
    }
    assert error(teacher, result.model, fresh) < 2 * error(teacher, student, fresh)


def test_few_rows_are_said_to_be_few(canonical: Canonical, noise: Noise, context: Around) -> None:
    teacher = canonical(
        """net (float[N,3,8,8] x) => (float[N,5] y) <float[6,3,3,3] w0, float[6] b0, float[5,384] w1, float[5] b1>
        { [stem] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
          r = Relu(a)
          f = Flatten(r)
          [classify] y = Gemm<transB=1>(f, w1, b1) }"""
    )
    student = pruned(teacher, {"stem": [0]})
    result = RecoverLsq(hflip="no").run(student, context(teacher, noise(teacher, 6)))
    classify = next(layer for layer in result.layers if layer.node == "classify")
    assert classify.rows < classify.unknowns
    assert "fewer rows than unknowns" in classify.note


def test_pixels_in_front_of_a_global_pool_are_rows_too(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    # Channel 0 is never open: without it there would be nothing to recover.
    student = pruned(teacher, {"point": [1]})
    result = RecoverLsq(hflip="no").run(student, context(teacher, noise(teacher, 6)))
    classify = next(layer for layer in result.layers if layer.node == "classify")
    # Five samples fit, with 16 pixels each; the sixth, which judged, joins at the end.
    assert classify.rows == 6 + 5 * 16


def test_an_untouched_network_stays_as_it_is(teacher: ir.Model, noise: Noise, context: Around) -> None:
    for one in PASSES:
        result = one.run(teacher.clone(), context(teacher, noise(teacher, 8)))
        assert not result.modified
        assert result.layers == ()
        assert cost(result.model) == cost(teacher)


def test_depthwise_kernels_are_refitted_only_when_asked(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    student = pruned(teacher, {"inner": [0, 1]})
    around = context(teacher, noise(teacher, 32))
    names = [
        {layer.node for layer in RecoverLsq(depthwise=wanted).run(student.clone(), around).layers}
        for wanted in (True, False)
    ]
    assert names[0] - names[1] == {"depth"}


def test_folded_corrections_leave_the_pruned_network(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    student = pruned(teacher, {"inner": [0, 2, 5]})
    around = context(teacher, noise(teacher, 64))
    corrected = RecoverFskd(after="conv").run(student.clone(), around).model
    assert len(list(corrected.graph)) > len(list(student.graph))
    folded = FoldPointwise().run(corrected.clone(), around).model
    assert [node.op_type for node in folded.graph] == [node.op_type for node in student.graph]
    assert cost(folded).macs == cost(student).macs
    before, after = output(corrected, around.data), output(folded, around.data)
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()


def test_blocks_are_corrected_at_their_ends(teacher: ir.Model, noise: Noise, context: Around) -> None:
    student = pruned(teacher, {"stem": [0], "inner": [0, 2]})
    result = RecoverFskd().run(student.clone(), context(teacher, noise(teacher, 16)))
    assert [layer.node for layer in result.layers] == ["branch_fskd", "depth_fskd", "point_fskd"]
    shapes = [layers_of(result.model)[layer.node].view.weight.shape for layer in result.layers]
    assert shapes == [(5, 5, 1, 1), (5, 1, 1, 1), (10, 10, 1, 1)]


def test_an_inserted_identity_changes_nothing(teacher: ir.Model, noise: Noise) -> None:
    student, data = teacher.clone(), noise(teacher, 4)
    for conv in [node for node in student.graph if node.op_type == "Conv"]:
        insert_after(student, conv)
    np.testing.assert_allclose(output(student, data), output(teacher, data), rtol=1e-5, atol=1e-6)


def test_the_bias_correction_restores_means(teacher: ir.Model, noise: Noise, context: Around) -> None:
    student = pruned(teacher, {"point": [1, 2, 3]})
    data = noise(teacher, 64)
    result = RecoverBias(hflip="no", held_out=0.0).run(student, context(teacher, data))
    gap = output(teacher, data).mean(axis=0) - output(result.model, data).mean(axis=0)
    assert np.abs(gap).max() < 1e-5


def test_layers_fitted_together_reach_further(teacher: ir.Model, noise: Noise, context: Around) -> None:
    student = pruned(teacher, {"inner": [0, 2, 5, 6]})
    data, fresh = noise(teacher, 128), noise(teacher, 64, seed=9)
    errors = []
    for steps in (0, 8):
        result = RecoverLsq(joint=steps).run(student.clone(), context(teacher, data))
        errors.append(error(teacher, result.model, fresh))
        branch = next(layer for layer in result.layers if layer.node == "branch")
        assert ("fitted together with inner" in branch.note) == bool(steps)
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize(
    ("patches", "rows"),
    [
        (Patches(24, (1, 1)), 16384),
        (Patches(512, (3, 3)), 40 * 4609),
        (Patches(48, (3, 3), group=48), 16384),
        (Patches(960, (3, 3), group=960), (32 << 20) / 9600),
        (Patches(1 << 17, (3, 3), group=1 << 17), 40 * 10),
    ],
    ids=["few channels", "many", "depthwise", "wide depthwise", "never fewer than its unknowns ask for"],
)
def test_rows_are_as_many_as_a_layer_needs(patches: Patches, rows: float) -> None:
    total = 100_000_000
    assert row_fraction(patches, total, FitOptions()) == pytest.approx(rows / total)
    assert row_fraction(patches, 100, FitOptions()) == 1.0
    room = (400 << 20) / (4 * (patches.unknowns * patches.group + 10))
    assert row_fraction(patches, total, FitOptions(), kept=10) == pytest.approx(min(rows, room) / total)


@pytest.mark.parametrize("share", [0.03, 0.25, 1.0])
def test_joint_fits_keep_the_share_of_images_that_memory_allows(share: float) -> None:
    maps = Maps(share)
    for number in range(20):
        zeros = np.zeros((10, 2, 4, 4), np.float32)
        maps.add(Sample(zeros, zeros, None, held=number >= 16, start=zeros))
    assert sum(len(one.value) for one in maps.fit) == int(np.ceil(160 * share))
    assert sum(len(one.value) for one in maps.held) == int(np.ceil(40 * share))


def test_small_maps_need_more_samples_than_large_ones() -> None:
    patches = Patches(96, (1, 1), (1, 1), (0,) * 4, (1, 1))
    large, small, pooled = (SimpleNamespace(patches=patches, rows=rows) for rows in (112 * 112, 14 * 14, 1))
    needed = [enough_samples([one], FitOptions()) for one in (large, small, pooled)]  # type: ignore[list-item]
    assert needed == [512, 16 * 16384 / (14 * 14), 16 * 16384]
    # Together with a layer of more unknowns in front, as many as their whole maps call for.
    wide = SimpleNamespace(patches=Patches(40_000, (1, 1), (1, 1), (0,) * 4, (1, 1)), rows=112 * 112)
    assert enough_samples([wide, large], FitOptions(joint=4)) == 512  # type: ignore[list-item]
    assert enough_samples([wide, small], FitOptions(joint=4)) > 60 * 40_000 / (14 * 14)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("gain", "noise", "steps", "ends"),
    [
        *((-2.0, 0.1, 1, False), (-2.0, 0.1, 2, True), (-4.0, 0.1, 1, True), (0.5, 0.1, 2, False)),
        # What three times the gain leaves within the noise of the arithmetic stays there; what is lost may be won back.
        *((0.1, 1.0, 1, True), (0.4, 1.0, 1, False), (-0.1, 1.0, 1, True), (-0.4, 1.0, 1, False)),
        (0.0, 0.0, 3, False),
    ],
)
def test_a_joint_fit_ends_where_held_out_samples_are_worse_or_nothing_can_be_told(
    monkeypatch: pytest.MonkeyPatch, gain: float, noise: float, steps: int, ends: bool
) -> None:
    heard: list[bool] = []

    def refine(links: list[Link], *_: object, hopeless: Callable[..., bool], **__: object) -> Refined:
        heard.append(hopeless(links, 1.0, steps))
        return Refined(links, [1.0], 1.0)

    monkeypatch.setattr(joint, "refine", refine)
    monkeypatch.setattr(joint, "chain_errors", lambda *_: (np.ones(3), 1.0))
    monkeypatch.setattr(joint, "judge", lambda *_, **__: Verdict(gain, noise, 1.0, 3))
    layer = SimpleNamespace(patches=SimpleNamespace(unknowns=3), columns=lambda: np.zeros((1, 3, 1)))
    site = SimpleNamespace(chain=(), layer=layer, goal=SimpleNamespace(clipping=None))
    pieces = [Target(np.zeros((3, 1, 1, 3), np.float32), np.zeros((3, 1, 1, 1), np.float32))]
    found = joint.fit_chain(site, joint.Maps(1.0, fit=pieces), 1e-3, 4)  # type: ignore[arg-type]
    assert heard == [ends]
    assert not found.verdict.kept


def test_blends_are_pictures_between_two_and_the_same_every_time(canonical: Canonical, noise: Noise) -> None:
    model = canonical(NETWORK)
    data = noise(model, 6)
    plain, mixed = (list(Batches(data, data.take(0), 6, hflip=True, mixup=mixup)) for mixup in (False, True))
    np.testing.assert_array_equal(mixed[0]["x"], plain[0]["x"])
    turned, blends = plain[1]["x"], mixed[1]["x"]
    others = np.roll(turned, 1, axis=0)
    shares = [
        np.vdot(b - o, t - o) / np.vdot(t - o, t - o) for b, t, o in zip(blends, turned, others, strict=True)
    ]
    assert all(0.3 <= share <= 0.7 for share in shares)
    again = list(Batches(data, data.take(0), 6, hflip=True, mixup=True))
    np.testing.assert_array_equal(again[1]["x"], blends)
