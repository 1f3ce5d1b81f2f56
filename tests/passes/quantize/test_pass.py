"""The pass `quantize` as a user meets it: options, bad input, targets, goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.compare import sqnr_db
from edgec.graph.data import ArraySource, Dataset
from edgec.graph.errors import DataError, EdgecError, PassError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.views import constant
from edgec.passes.base import Context, Progress
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.quantize import Quantize, compose
from edgec.passes.quantize.dialects import DIALECTS
from edgec.passes.quantize.fit import Student, fit
from edgec.passes.quantize.layer import layers
from edgec.passes.solvers.guard import Verdict
from edgec.targets import target

from .test_insert import NET, optimised

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]


@pytest.fixture
def net(canonical: Canonical) -> ir.Model:
    return canonical(NET)


def run(model: ir.Model, data: Dataset | None, folder: Path, options: str = "", **more: object) -> object:
    context = Context(teacher=model, scratch=folder, data=data, **more)  # type: ignore[arg-type]
    return parse_pipeline(f"quantize{{{options}}}" if options else "quantize")[0].run(model.clone(), context)


def test_no_data_is_refused(net: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no calibration data") as caught:
        run(net, None, tmp_path)
    assert caught.value.exit_code == 3
    assert "--data" in str(caught.value)


def test_a_quantised_model_is_refused_by_the_name_of_its_node(
    net: ir.Model, noise: Noise, tmp_path: Path
) -> None:
    result = run(net, noise(net), tmp_path, "correct=none")
    with pytest.raises(PassError, match="quantised already") as caught:
        run(result.model, noise(net), tmp_path)  # type: ignore[attr-defined]
    assert "Linear" in str(caught.value.where)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("method=mso", "mse"),
        ("correct=al", "auto"),
        ("activations=int4", "int8"),
        ("percentile=12", "percentile"),
        ("exclude=nothing*", "nothing"),
        ("fit-samples=0", "fit-samples"),
    ],
)
def test_wrong_options(net: ir.Model, noise: Noise, tmp_path: Path, options: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        run(net, noise(net), tmp_path, options)


def test_nan_activations_name_the_layer(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    broken = constant(net.graph.initializers["b3"]).copy()
    broken[1] = np.inf
    net.graph.initializers["b3"].const_value = ir.tensor(broken, name="b3")
    third = [n.name for n in net.graph if n.op_type == "Conv"][2]
    with pytest.raises(PassError, match="NaN or infinity") as caught:
        run(net, noise(net), tmp_path)
    assert f"'{third}'" in str(caught.value)


def test_a_constant_feature_map_gets_a_valid_scale(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    for name in ("w1", "b1"):
        zeros = np.zeros_like(constant(net.graph.initializers[name]))
        net.graph.initializers[name].const_value = ir.tensor(zeros, name=name)
    data = noise(net)
    result = run(net, data, tmp_path)
    scales = [constant(n.inputs[1]) for n in result.model.graph if n.op_type == "QuantizeLinear"]  # type: ignore[attr-defined]
    assert len(scales) >= 4
    assert all(np.isfinite(s) and s > 0 for s in scales)
    feeds = next(iter(data.batches(8)))
    reference, value = Executor(net).run(feeds)["y"], Executor(result.model).run(feeds)["y"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(reference, value, atol=0.02 * np.abs(reference).max())


def test_odd_data_is_remarked(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    data = noise(net, 20)
    assert isinstance(data.source, ArraySource)
    data.source.arrays["x"][3] = data.source.arrays["x"][4]
    data.source.arrays["x"][7] = 0.5
    text = " ".join(n.text for n in run(net, data, tmp_path, "correct=none").notes)  # type: ignore[attr-defined]
    assert "1 of 20 calibration inputs are constant" in text
    assert "1 of 20 calibration inputs are duplicates" in text
    few = run(net, noise(net, 3), tmp_path, "correct=none")
    assert "only 3 calibration samples" in " ".join(n.text for n in few.notes)  # type: ignore[attr-defined]


def test_outliers_are_remarked(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(
        "g (float[N,4,16,16] x) => (float[N,4,16,16] y) <float[4,4,1,1] w> { y = Conv<kernel_shape=[1,1]>(x, w) }"
    )
    data = noise(model, 16)
    data.source.arrays["x"][0, 0, 0, 0] = 1000.0  # type: ignore[attr-defined]
    text = " ".join(n.text for n in run(model, data, tmp_path).notes)  # type: ignore[attr-defined]
    assert "'x' is set by outliers" in text


def test_random_data_is_remarked(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    result = run(net, replace(noise(net), is_random=True), tmp_path, "correct=none")
    warnings = [n.text for n in result.notes if n.level == "warning"]  # type: ignore[attr-defined]
    assert any("random noise" in text for text in warnings)


@pytest.mark.parametrize(("name", "dtype"), [("rpi4", np.int8), ("host", None)])
def test_the_target_decides_the_activation_type(
    net: ir.Model, noise: Noise, tmp_path: Path, name: str, dtype: type | None
) -> None:
    device = target(name)
    result = run(net, noise(net), tmp_path, "correct=none", target=device)
    zero = next(constant(n.inputs[2]) for n in result.model.graph if n.op_type == "QuantizeLinear")  # type: ignore[attr-defined]
    assert zero.dtype == (dtype or np.dtype(DIALECTS[device.dialect].codes))
    text = " ".join(n.text for n in result.notes)  # type: ignore[attr-defined]
    why = device.precisions.int8.why
    assert (f"int8 on {device.title}: {why}" in text) is not (
        device.precisions.int8.pays and device.dot_product
    )


def test_a_target_without_int8_refuses(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    device = target("jetson-nano")
    none = device.precisions.int8.model_copy(
        update={"supported": False, "pays": False, "why": "no int8 units"}
    )
    lacking = device.model_copy(update={"precisions": device.precisions.model_copy(update={"int8": none})})
    with pytest.raises(EdgecError, match="no int8 units"):
        run(net, noise(net), tmp_path, target=lacking)


def test_seven_bit_weights(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    result = run(net, noise(net), tmp_path, "reduce-range=on")
    codes = [c for n in result.model.graph if (c := constant(n.inputs[0])) is not None and c.dtype == np.int8]  # type: ignore[attr-defined]
    assert codes
    assert all(np.abs(c.astype(int)).max() <= 64 for c in codes)


def test_nothing_to_quantise(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical("g (float[N,4] x) => (float[N,4] y) { y = Exp(x) }")
    result = run(model, noise(model), tmp_path)
    assert not result.modified  # type: ignore[attr-defined]
    assert "nothing to quantise" in result.notes[0].text  # type: ignore[attr-defined]


def test_float_nodes_are_named(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(
        "g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w, float[4,4,1,1] v> "
        "{ c = Conv<kernel_shape=[1,1]>(x, w) e = Exp(c) y = Conv<kernel_shape=[1,1]>(e, v) }"
    )
    text = " ".join(n.text for n in run(model, noise(model), tmp_path).notes)  # type: ignore[attr-defined]
    assert "(Exp) stays float: Exp has no int8 form" in text


@pytest.mark.parametrize(
    ("exclude", "said"), [("", ""), ("small", ""), ("large", "1 of 2 layers stays in float, 90% of the")]
)
def test_much_work_left_in_float_is_said(
    exclude: str, said: str, canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    """Nothing else tells why an int8 file is hardly smaller. ``small`` has 4 * 4 multiply-adds a pixel, ``large`` 4 * 4 * 9."""
    model = canonical(
        "g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w, float[4,4,3,3] v> "
        "{ c = Conv<kernel_shape=[1,1]>(x, w) r = Relu(c) y = Conv<pads=[1,1,1,1]>(r, v) }"
    )
    for node, name in zip((n for n in model.graph if n.op_type == "Conv"), ("small", "large"), strict=True):
        node.name = name
    found = run(
        model, noise(model), tmp_path, f"correct=none exclude={exclude}" if exclude else "correct=none"
    )
    told = [n.text for n in found.notes if n.level == "warning" and "multiply-adds" in n.text]  # type: ignore[attr-defined]
    assert bool(told) == bool(said)
    assert all(text.startswith(said) for text in told)


def hurt(net: ir.Model) -> str:
    """Give one channel of the third convolution a huge range; its name."""
    weight = constant(net.graph.initializers["w3"]).copy()
    weight[0] *= 300.0
    net.graph.initializers["w3"].const_value = ir.tensor(weight, name="w3")
    head = constant(net.graph.initializers["f"]).copy()
    head[:, 0] /= 300.0
    net.graph.initializers["f"].const_value = ir.tensor(head, name="f")
    return str([n.name for n in net.graph if n.op_type == "Conv"][2])


def test_mixed_precision_leaves_the_fewest_layers_in_float(
    net: ir.Model, noise: Noise, tmp_path: Path
) -> None:
    worst = hurt(net)
    data = noise(net, 32)
    plain = run(net, data, tmp_path, "correct=none equalize=off")
    goal = plain.data["sqnr_db"] + 6  # type: ignore[attr-defined]
    result = run(net, data, tmp_path, f"correct=none equalize=off min-sqnr={goal:.2f}")
    floats = result.data["float_nodes"]  # type: ignore[attr-defined]
    assert worst in floats
    layers = [n.name for n in net.graph if n.op_type in ("Conv", "Gemm")]
    assert sum(name in floats for name in layers) < len(layers)
    assert result.data["sqnr_db"] >= goal  # type: ignore[attr-defined]
    assert any("met" in n.text for n in result.notes)  # type: ignore[attr-defined]
    assert next(iter(result.data["sensitivity"])) == worst  # type: ignore[attr-defined]
    feeds = next(iter(data.batches(32)))
    assert sqnr_db(Executor(net).run(feeds)["y"], Executor(result.model).run(feeds)["y"]) >= goal - 0.5  # type: ignore[attr-defined]


def test_a_goal_that_is_met_changes_nothing(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    data = noise(net, 16)
    plain = run(net, data, tmp_path, "correct=none")
    result = run(net, data, tmp_path, "correct=none min-sqnr=3 max-drop=50")
    assert not result.data["float_nodes"]  # type: ignore[attr-defined]
    a, b = (ir.to_proto(r.model).SerializeToString() for r in (plain, result))  # type: ignore[attr-defined]
    assert a == b


def test_equalisation_rescues_an_outlier_channel(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    """One channel of a feature map 100 times wider than the others, undone in its reader."""
    for name, factor in (("w1", 100.0), ("b1", 100.0)):
        array = constant(net.graph.initializers[name]).copy()
        array[0] *= factor
        net.graph.initializers[name].const_value = ir.tensor(array, name=name)
    data = noise(net, 32)
    feeds = next(iter(data.batches(32)))
    reference = Executor(net).run(feeds)["y"]
    found = {
        switch: sqnr_db(
            reference,
            Executor(run(net, data, tmp_path, f"method=minmax correct=none equalize={switch}").model).run(
                feeds
            )["y"],  # type: ignore[attr-defined]
        )
        for switch in ("off", "on")
    }
    assert found["on"] > found["off"]


@pytest.mark.parametrize("harms", [False, True])
def test_what_depthwise_layers_alone_read_is_equalised_though_the_whole_does_not_show_it(
    harms: bool, canonical: Canonical, noise: Noise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the errors of other layers ten samples could not tell, and a stem in front of a depthwise layer kept 12.8 dB."""
    gains = iter([0.5, 9.0 if harms else -1.0])
    monkeypatch.setattr(compose, "nearer", lambda *_, **__: Verdict(next(gains), 0.0, 1.0, 10))
    net = canonical(
        "net (float[N,3,8,8] x) => (float[N,4] y) <float[8,3,3,3] stem, float[8,1,3,3] each, float[8,8,1,1] point, float[4,8] f>"
        "{ a = Conv<pads=[1,1,1,1]>(x, stem)  d = Conv<group=8, pads=[1,1,1,1]>(a, each)  r = Relu(d)  b = Conv(r, point)"
        "  e = Relu(b)  p = GlobalAveragePool(e)  q = Flatten(p)  y = Gemm<transB=1>(q, f) }"
    )
    weight = constant(net.graph.initializers["stem"]).copy()
    weight[0] *= 100.0
    net.graph.initializers["stem"].const_value = ir.tensor(weight, name="stem")
    form = compose.Form(DIALECTS["ort-x86"].on_host(), 127)
    around = Context(net, tmp_path, noise(net, 32), threads=1)
    prepared = compose.prepare(net, around.data, compose.Settings(form), around)
    told = {note.text.split(":")[0]: note.level for note in prepared.notes}
    assert told == {
        "equalisation": "reverted",
        "equalisation in front of depthwise layers": "reverted" if harms else "info",
    }
    scales = {
        name: np.abs(constant(value)).max(axis=(1, 2, 3))
        for name, value in prepared.original.graph.initializers.items()
        if name in ("stem", "point")
    }
    assert (scales["stem"].max() / scales["stem"].min() > 50) == harms
    np.testing.assert_array_equal(
        scales["point"], np.abs(constant(net.graph.initializers["point"])).max(axis=(1, 2, 3))
    )


def test_corrections_help_and_are_reported(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    data = noise(net, 64)
    plain = run(net, data, tmp_path, "correct=none equalize=off per-channel=false")
    fitted = run(net, data, tmp_path, "correct=auto equalize=off per-channel=false")
    assert fitted.data["sqnr_db"] > plain.data["sqnr_db"]  # type: ignore[attr-defined]
    assert len(fitted.layers) == 4  # type: ignore[attr-defined]
    assert all(layer.error_after <= layer.error_before for layer in fitted.layers)  # type: ignore[attr-defined]
    assert not list(tmp_path.glob("*.bin"))


def test_threads_change_no_byte(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    data = noise(net, 64)
    one, three = (run(net, data, tmp_path, threads=threads) for threads in (1, 3))
    assert one.layers == three.layers  # type: ignore[attr-defined]
    first, second = (ir.to_proto(result.model).SerializeToString() for result in (one, three))  # type: ignore[attr-defined]
    assert first == second


def test_a_transposed_convolution_keeps_its_nearest_codes(
    canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    """As many channels out as in: its weights have the shape of those of the convolution that it is, in another order."""
    net = canonical(
        "net (float[N,4,6,6] x) => (float[N,4,13,13] y) <float[4,4,3,3] w, float[4] b, float[4,4,3,3] v, float[4] c> "
        "{ a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) [up] y = ConvTranspose<strides=[2,2]>(r, v, c) }"
    )
    quantised = run(net, noise(net, 40), tmp_path, "equalize=no correct=none").model  # type: ignore[attr-defined]
    assert "v_codes" in quantised.graph.initializers
    assert [one.node.op_type for one in layers(quantised, net)] == ["Conv"]


@pytest.mark.parametrize("where", ["calibrate", "sensitivity", "fit quantised layers"])
def test_interruptions_pass_through(net: ir.Model, noise: Noise, tmp_path: Path, where: str) -> None:
    class Impatient(Progress):
        def step(self, label: str, done: int, total: int) -> None:
            if label == where and done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(net, noise(net), tmp_path, "sensitivity=yes", progress=Impatient())
    assert not list(tmp_path.glob("*.bin"))


def test_the_float_islands_of_excluded_nodes_are_all_there_is(
    net: ir.Model, noise: Noise, tmp_path: Path
) -> None:
    result = run(net, noise(net), tmp_path, "correct=none exclude=*Pool*")
    assert optimised(result.model, tmp_path)["QLinearConv"] == 3  # type: ignore[attr-defined]


def test_options_round_trip() -> None:
    text = "quantize{method=minmax correct=bias exclude=a*|b min-sqnr=20.0}"
    one = parse_pipeline(text)[0]
    assert isinstance(one, Quantize)
    assert (one.method, one.exclude, one.min_sqnr) == ("minmax", "a*|b", 20.0)


@pytest.mark.parametrize("helps", [True, False])
def test_the_plainer_correction_is_tried_where_the_fuller_one_does_not_help(
    net: ir.Model, noise: Noise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    tried = []

    def fitted(student: Student, original: ir.Model, data: Dataset, context: Context) -> object:
        tried.append(student.options.refit)
        done = fit(student, original, data, context)
        for layer in () if helps or not student.options.refit else layers(student.model, original):
            codes, scales, bias = layer.quantised()
            layer.store(0 * codes, scales, bias)
        return done

    monkeypatch.setattr(compose, "fit", fitted)
    result = run(net, noise(net, 96), tmp_path, "reduce-range=yes")
    levels = [note.level for note in result.notes if note.text.startswith("corrections")]  # type: ignore[attr-defined]
    assert tried == ([True] if helps else [True, False])
    assert levels == (["info"] if helps else ["reverted", "info"])
