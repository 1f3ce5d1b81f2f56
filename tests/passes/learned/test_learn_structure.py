"""The pass `learn-structure`: budgets hold in all and per block, gates mask exactly, and it is the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from edgec.graph.channels import groups, remove
from edgec.graph.cost import cost
from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.views import constant
from edgec.passes.base import Progress
from edgec.passes.learn_structure import LearnStructure
from edgec.passes.learned.gates import SHIFT, GatedModule, gateable
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from edgec.passes.prune_channels import PruneChannels
from edgec.passes.structure.blocks import nodes_of, parse_block_budget
from edgec.passes.structure.gains import curve_of, gains_of
from edgec.passes.structure.limits import limits_of
from edgec.passes.structure.multipliers import Gate, Prices, slope, solve
from tests.passes.kept import Kept

CHAIN = (
    "net (float[N,3,8,8] x) => (float[N,6] y)"
    "<float[12,3,3,3] stem_w, float[12] stem_b, float[16,12,3,3] body_one_w, float[12,16,3,3] body_two_w, float[12] body_two_b,"
    " float[10,12,1,1] head_w, float[6,10] last_w, float[6] last_b>"
    "{ [a] t = Conv<pads=[1,1,1,1]>(x, stem_w, stem_b)  r = Relu(t)  [b] u = Conv<pads=[1,1,1,1]>(r, body_one_w)  s = Relu(u)"
    "  [c] v = Conv<pads=[1,1,1,1]>(s, body_two_w, body_two_b)  z = Add(v, r)  q = Relu(z)  [d] h = Conv(q, head_w)"
    "  k = Relu(h)  p = GlobalAveragePool(k)  f = Flatten(p)  [e] y = Gemm<transB=1>(f, last_w, last_b) }"
)
JOINED = (
    "net (float[N,3,6,6] x) => (float[N,4] y)"
    "<float[6,3,3,3] a_w, float[6] a_b, float[5,3,1,1] b_w, float[11,1,3,3] c_w, float[11] c_b, float[8,11,1,1] d_w, float[288,4] e_w>"
    "{ s = Conv<pads=[1,1,1,1]>(x, a_w, a_b)  t = Conv(x, b_w)  j = Concat<axis=1>(s, t)  u = Conv<group=11, pads=[1,1,1,1]>(j, c_w, c_b)"
    "  r = HardSwish(u)  v = Conv(r, d_w)  q = Sigmoid(v)  f = Flatten(q)  y = MatMul(f, e_w) }"
)
GROUPED = (
    "net (float[N,3,6,6] x) => (float[N,4] y) <float[8,3,3,3] a_w, float[8] a_b, float[6,4,3,3] b_w, float[4,6] c_w>"
    "{ s = Conv<pads=[1,1,1,1]>(x, a_w, a_b)  r = Relu(s)  t = Conv<group=2>(r, b_w)  p = GlobalAveragePool(t)  f = Flatten(p)"
    "  y = Gemm<transB=1>(f, c_w) }"
)
ATTENTION = (
    "net (float[N,5,8] x) => (float[N,5,8] y) <float[8,6] q_w, float[6] q_b, float[8,6] k_w, float[8,7] v_w, float[7,8] o_w>"
    "{ m = MatMul(x, q_w)  q = Add(m, q_b)  k = MatMul(x, k_w)  v = MatMul(x, v_w)  t = Transpose<perm=[0,2,1]>(k)  s = MatMul(q, t)"
    "  w = Softmax<axis=-1>(s)  a = MatMul(w, v)  y = MatMul(a, o_w) }"
)
NETWORKS = {"chain": CHAIN, "joined": JOINED, "grouped": GROUPED, "attention": ATTENTION}
QUICK = {"steps": 10, "batch": 16, "statistics": 48}


@pytest.fixture
def teacher(canonical) -> ir.Model:
    """Its weights are named as exporters do; ONNX text has no dots in names."""
    model = canonical(CHAIN)
    for value in list(model.graph.initializers.values()):
        value.name = value.name.replace("_", ".")
    last = model.graph.initializers["last.w"]
    last.const_value = ir.tensor(20 * constant(last), name="last.w")
    return model


@pytest.fixture
def made(teacher, context, noise):
    return replace(context(teacher, noise(teacher, 96)), task="classification")


def weights(model: ir.Model) -> dict[str, bytes]:
    return {name: value.const_value.numpy().tobytes() for name, value in model.graph.initializers.items()}


def gated(model: ir.Model) -> tuple[GatedModule, list]:
    found = [one for one in groups(model) if one.prunable and not gateable(model, one)]
    return GatedModule(model, found, np.zeros(sum(one.size for one in found))), found


def macs_of(model: ir.Model, nodes: Sequence[str] | None = None) -> int:
    """Counted from the shapes of the weights."""
    return sum(one.macs for one in cost(model).nodes if nodes is None or one.name in nodes)


def feeds_of(model: ir.Model, count: int = 4) -> dict[str, np.ndarray]:
    shape = [one if isinstance(one, int) else count for one in model.graph.inputs[0].shape]
    return {"x": np.random.default_rng(3).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("text", NETWORKS.values(), ids=NETWORKS)
def test_open_gates_change_nothing(canonical, text: str) -> None:
    model = canonical(text)
    module, found = gated(model)
    assert found
    feeds = {name: torch.from_numpy(array) for name, array in feeds_of(model).items()}
    with torch.no_grad():
        assert torch.equal(module.run(feeds, ["y"])["y"], super(GatedModule, module).run(feeds, ["y"])["y"])


@pytest.mark.parametrize("text", NETWORKS.values(), ids=NETWORKS)
def test_removal_is_what_closed_gates_leave(canonical, text: str) -> None:
    model = canonical(text)
    module, found = gated(model)
    rng = np.random.default_rng(5)
    gone = {one.name: sorted(rng.choice(one.size, one.size // 2, replace=False).tolist()) for one in found}
    chosen = [0.0 if unit in gone[one.name] else 1.0 for one in found for unit in range(one.size)]
    module.fix(torch.tensor(chosen))
    feeds = feeds_of(model)
    with torch.no_grad():
        masked = module.run({name: torch.from_numpy(array) for name, array in feeds.items()}, ["y"])["y"]
    remove(model, gone)
    left = Executor(model).run(feeds)["y"]
    assert np.abs(masked.numpy() - left).max() < 1e-5 * np.abs(left).max()


def test_the_gradient_of_a_gate_is_that_of_the_loss(canonical) -> None:
    """Against central differences, in float64."""
    model = canonical(CHAIN)
    module, found = gated(model)
    module.double()
    count = sum(one.size for one in found)
    feeds = {name: torch.from_numpy(array).double() for name, array in feeds_of(model).items()}
    rng = np.random.default_rng(1)
    noise, prices = torch.full((count,), 0.5).double(), torch.from_numpy(rng.uniform(-0.4, 0.4, count))

    def loss(gains: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            module.edgec_gains.copy_(gains)
        module.draw(noise, prices, 1.0)
        return module.run(feeds, ["y"])["y"].square().sum()

    gains = torch.from_numpy(rng.uniform(-0.4, 0.4, count))
    (found_gradient,) = torch.autograd.grad(loss(gains), [module.edgec_gains])
    for unit in range(0, count, 7):
        step = torch.zeros(count).double()
        step[unit] = 1e-5
        wanted = (loss(gains + step).item() - loss(gains - step).item()) / 2e-5
        assert float(found_gradient[unit]) == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_the_price_of_a_unit_is_the_cost_of_one_more(teacher, made, unit: str) -> None:
    """Of every group, against the cost of the network as it is counted with a unit more and less."""
    (limit,) = limits_of(teacher, parse_pipeline(f"prune-channels{{{unit}=50%}}")[0].budget(), (), made)
    sizes = {one.name: one.size for one in groups(teacher) if one.prunable}
    widths = {name: max(3, size // 2) for name, size in sizes.items()}

    def spent(which: str, more: int) -> float:
        model = teacher.clone()
        left = {**widths, which: widths[which] + more}
        remove(model, {name: list(range(size - left[name])) for name, size in sizes.items()})
        return float(getattr(cost(model), unit))

    for name in sizes:
        difference = spent(name, 1) - spent(name, 0)
        assert slope(limit.cost, name, widths) == pytest.approx(difference, rel=1e-9)
        assert spent(name, 0) == limit.cost.total(widths)


def test_multipliers_keep_every_limit(teacher, made) -> None:
    blocks = [parse_block_budget("body: macs=40%")]
    limits = limits_of(teacher, parse_pipeline("prune-channels{macs=70%}")[0].budget(), blocks, made)
    found = [one for one in groups(teacher) if one.prunable]
    sizes = {one.name: one.size for one in found}
    gains = np.random.default_rng(0).normal(size=sum(sizes.values()))
    group_of = np.repeat(np.arange(len(found)), list(sizes.values()))
    prices, most = Prices.at(limits, sizes), np.array([one.most for one in limits])
    for sharpness in (1.5, 6.0):
        gate = Gate(sharpness, SHIFT)
        price = solve(gains, group_of, prices, most, gate)
        counts = np.bincount(group_of, gate.open(gains, price[group_of]))
        spent = prices.expected(counts)
        assert (spent <= most * (1 + 1e-6)).all()
        assert spent[1] == pytest.approx(most[1], rel=1e-3)  # the block's binds: no more went than had to
    free = solve(gains, group_of, prices, prices.spent, Gate(6.0, SHIFT))
    assert Gate(6.0, SHIFT).open(gains, free[group_of]).min() > 0.999


def test_gains_of_a_convex_curve_are_its_steps_and_lead_back_to_it() -> None:
    errors = np.array([0.0, 0.1, 0.3, 0.7])
    curve = curve_of(np.array([0.4, 0.1, 9.0, 0.2]))
    gains = gains_of(type(curve)((1, 3, 0, 2), errors), errors)
    assert gains == pytest.approx([0.4, 0.1, 4.0, 0.2], rel=1e-5)
    again = curve_of(gains)
    assert again.order == (1, 3, 0, 2)
    assert again.errors == pytest.approx(errors, rel=1e-5)
    fell = gains_of(type(curve)((0, 1, 2, 3), errors), np.array([0.0, 0.4, 0.5, 0.6]))
    assert (np.diff(fell) > 0).all()
    assert fell[:3] == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("weighs", ["source", "learned"])
def test_budgets_hold_in_all_and_for_each_block(teacher, made, weighs: str) -> None:
    options = {**QUICK, "weights": weighs, "blocks": ("body: macs=40%", "head:params=70%")}
    result = LearnStructure(macs="60%", **options).run(teacher.clone(), made)
    model = result.model
    assert result.modified
    assert macs_of(model) <= 0.6 * macs_of(teacher)
    body = [
        node.name for node in teacher.graph if "body" in (node.inputs[1].name if len(node.inputs) > 1 else "")
    ]
    assert len(body) == 2
    assert macs_of(model, body) <= 0.4 * macs_of(teacher, body)
    head = [
        sum(v.const_value.size for n, v in one.graph.initializers.items() if n.startswith("head"))
        for one in (model, teacher)
    ]
    assert head[0] <= 0.7 * head[1]
    assert [one["met"] for one in result.data["budgets"]] == [True] * 3
    assert result.data["settled"] == {"steps": 10}
    assert result.notes[0].text.count("of the source") == 3


def test_without_learning_its_widths_are_the_closed_form_s(teacher, made) -> None:
    """Where no gain moves, and every curve is convex enough: the costs are the same, and the widths nearly."""
    result = LearnStructure(macs="50%", gate_rate=0, **QUICK).run(teacher.clone(), made)
    learned, closed = result.data["learned_widths"], result.data["closed_form_widths"]
    assert sum(abs(learned[name] - closed[name]) for name in closed) <= 2
    assert closed.keys() == {one.name for one in groups(teacher) if one.prunable}


def test_its_closed_form_is_prune_channels(teacher, made) -> None:
    """At one budget, on the same samples."""
    options = LearnStructure(macs="50%", **QUICK)
    result = options.run(teacher.clone(), made)
    fit = made.data.split(round(0.1 * 96) / 96, made.seed)[0].take(48, made.seed)
    pruned = PruneChannels(macs="50%").run(teacher.clone(), replace(made, data=fit))
    widths = {name: left for name, (_, left) in pruned.data["widths"].items()}
    assert result.data["closed_form_widths"] == widths


def test_it_is_never_further_from_the_teacher_than_the_closed_form(teacher, made) -> None:
    """A rate that destroys all that is learned leaves the closed form, and is said."""
    result = LearnStructure(macs="50%", weights="learned", rate=1.0, gate_rate=1.0, **QUICK).run(
        teacher.clone(), made
    )
    assert result.data["kept"] == "closed form"
    assert result.data["loss"]["closed form"] < result.data["loss"]["learned"]
    assert any(note.level == "reverted" and "the closed form stays" in note.text for note in result.notes)
    assert macs_of(result.model) <= 0.5 * macs_of(teacher)


def test_widths_are_multiples_where_that_is_asked(teacher, made) -> None:
    result = LearnStructure(macs="60%", multiple=3, **QUICK).run(teacher.clone(), made)
    full = {one.name: one.size for one in groups(teacher)}
    assert all(left % 3 == 0 or left == full[name] for name, (_, left) in result.data["widths"].items())


@pytest.mark.parametrize("weighs", [pytest.param("source", marks=pytest.mark.slow), "learned"])
def test_threads_change_no_byte(teacher, made, weighs: str) -> None:
    one, two = (
        LearnStructure(macs="50%", weights=weighs, gate_rate=0.1, **QUICK).run(
            teacher.clone(), replace(made, threads=threads)
        )
        for threads in (1, 3)
    )
    assert weights(one.model) == weights(two.model)
    assert one.data["loss"] == two.data["loss"]


@pytest.mark.parametrize(
    "cut", [pytest.param(4, id="gates drawn"), pytest.param(9, id="gates fixed", marks=pytest.mark.slow)]
)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(teacher, made, monkeypatch, cut: int) -> None:
    monkeypatch.setattr("edgec.passes.learned.training.SAVED_EVERY", 0.0)
    options = LearnStructure(macs="50%", weights="learned", gate_rate=0.1, **QUICK)
    whole = options.run(teacher.clone(), made)
    kept = Kept(cut=cut)
    with pytest.raises(KeyboardInterrupt):
        options.run(teacher.clone(), replace(made, checkpoint=kept))
    again = options.run(teacher.clone(), replace(made, checkpoint=kept))
    assert weights(again.model) == weights(whole.model)
    assert again.data["loss"] == whole.data["loss"]


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_progress_says_where_the_budget_is(teacher, made) -> None:
    heard = Heard()
    LearnStructure(macs="50%", weights="learned", **QUICK).run(teacher.clone(), replace(made, progress=heard))
    assert heard.lines[0] == "learn-structure: 10 steps"
    assert any("the gates are open for macs=50% at 5" in line for line in heard.lines)
    assert "the gates are fixed: loss" in heard.lines[-1]


def test_what_is_met_already_is_left_as_it_is(teacher, made) -> None:
    result = LearnStructure(macs="100%", **QUICK).run(teacher.clone(), made)
    assert not result.modified
    assert weights(result.model) == weights(teacher)


def test_what_no_widths_can_meet_is_said(teacher, made) -> None:
    result = LearnStructure(macs="0.4%", **QUICK).run(teacher.clone(), made)
    assert result.notes[0].level == "warning"
    assert "macs=0.4% is out of reach" in result.notes[0].text


def test_layers_that_share_a_weight_keep_their_widths(canonical, context, noise) -> None:
    text = CHAIN.replace(
        "float[16,12,3,3] body_one_w, float[12,16,3,3] body_two_w,", "float[12,12,3,3] body_one_w,"
    )
    model = canonical(text.replace("body_two_w,", "body_one_w,"))
    result = LearnStructure(macs="90%", **QUICK).run(model.clone(), context(model, noise(model, 64)))
    assert any("shared by several layers" in note.text for note in result.notes)


@pytest.mark.parametrize("name", ["body", "body.one", "/body", "c"])
def test_blocks_are_beginnings_of_names(teacher, name: str) -> None:
    assert nodes_of(teacher, name) & {"b", "c"}
    assert "a" not in nodes_of(teacher, name)


def test_an_unknown_block_is_refused_with_those_that_are_there(teacher) -> None:
    with pytest.raises(UsageError, match="no block 'bod'") as error:
        LearnStructure(blocks="bod:macs=50%").requires(teacher)
    assert "Known: stem, body, head, last" in str(error.value.hint)


def test_options_are_read_where_they_are_made() -> None:
    text = "learn-structure{macs=50% blocks=layer3:macs=40%,layer2:params=60% weights=source}"
    (one,) = parse_pipeline(text)
    assert print_pass(one) == text
    assert LearnStructure(blocks=["layer3: macs=40%"]).blocks == ("layer3:macs=40%",)
    for wrong in (
        "macs=50% params=50%",
        "macs=0.5",
        "blocks=layer3",
        "blocks=layer3:40%",
        "blocks=layer3:depth=40%",
        "blocks=layer3:macs=40",
        "blocks=a:macs=40%,a:macs=50%",
        "weights=both",
        "gate-rate=2",
        "held-out=0",
        "steps=-1",
        "time=soon",
        "device=tpu",
    ):
        with pytest.raises(UsageError):
            parse_pipeline(f"learn-structure{{{wrong}}}")
    with pytest.raises(UsageError, match="needs one budget"):
        LearnStructure().complete()


def test_a_network_outside_is_refused_by_the_name_of_its_op(canonical) -> None:
    model = canonical("net (float[N,4] x) => (float[N,2] y) <int64[1] k = {2}> { y, i = TopK(x, k) }")
    with pytest.raises(UnsupportedError, match="TopK"):
        LearnStructure(macs="50%").requires(model)


def test_without_torch_one_clear_message(teacher, monkeypatch) -> None:
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="learn-structure needs torch"):
        LearnStructure(macs="50%").requires(teacher)
