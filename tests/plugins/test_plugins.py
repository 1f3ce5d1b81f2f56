"""Plug-ins: the example of the documentation, installed and used; broken ones, which name themselves and harm nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.face.metric import Metric
from edgec.compiler.face.named_metric import metric_names, resolved
from edgec.compiler.pipeline.cache import KeyMaker
from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.plugins import survey
from edgec.graph.canonicalise import canonicalise
from edgec.graph.channels import groups
from edgec.graph.errors import EdgecError, PassError, UsageError
from edgec.graph.plugins import fingerprint, plugin
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.table import pass_class, pass_names
from edgec.targets import add_target, target, target_names
from tests.conftest import parse
from tests.plugins.conftest import EXAMPLE, ROOT

NET = """
net (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[6,3,3,3] w, float[6] b = {1e-9, 0, 0, 0, 0, 0}, float[4,6,1,1] v>
{
  h = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w, b)
  s = Shrink <lambd=0.1, bias=0.1> (h)
  y = Conv (s, v)
}
"""


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(site))
    return site


def bring(folder: Path, name: str, group: str, entry: str, code: str, version: str = "1.0") -> Path:
    """An installed distribution of one module, as pip leaves it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry.format(module=module)}\n")
    (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n")
    return folder / f"{module}.py"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def network() -> ir.Model:
    return canonicalise(parse(NET))


def test_the_example_is_found_and_sound(installed: Path) -> None:
    found = {(one.plugin.group, one.plugin.name): one.problem for one in survey()}
    assert found == {
        ("edgec.passes", "drop-bias"): "",
        ("edgec.targets", "greenhouse"): "",
        ("edgec.channel_rules", "Shrink"): "",
    }


def test_the_pass_of_the_example_runs_in_a_pipeline(installed: Path, tmp_path: Path) -> None:
    model = network()
    (step,) = run_pipeline(parse_pipeline("drop-bias{below=1e-7}"), model, Context(model, tmp_path))
    assert step.modified
    assert all(len(node.inputs) == 2 for node in step.model.graph if node.op_type == "Conv")


def test_the_target_of_the_example_extends_one_of_edgec(installed: Path) -> None:
    assert "greenhouse" in target_names()
    found = target("greenhouse")
    assert (found.threads, found.memory_mb) == (2, 2048)
    assert found.core_groups == target("rpi4").core_groups
    assert found.estimates_from == "rpi4"


def test_the_rule_of_the_example_lets_channels_through(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [group.prunable for group in groups(network())]
    monkeypatch.syspath_prepend(str(site))
    after = [group.prunable for group in groups(network())]
    assert (any(before), any(after)) == (False, True)


def test_the_example_on_the_command_line(site: Path, tmp_path: Path) -> None:
    """All three at once, in another process: the pass and the target by name, the rule by pruning behind a Shrink."""
    import onnx

    onnx.save(parse(NET), tmp_path / "net.onnx")
    np.savez(
        tmp_path / "calib.npz", x=np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    )
    passes = "drop-bias prune-channels{macs=60% multiple=1}"
    command = [
        sys.executable,
        "-m",
        "edgec",
        "compile",
        "net.onnx",
        "--data",
        "calib.npz",
        "--target",
        "greenhouse",
    ]
    done = subprocess.run(
        [*command, "--passes", passes, "-o", "out", "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["target"] == "greenhouse"
    assert [one["name"] for one in report["passes"]] == ["drop-bias", "prune-channels"]
    assert report["compressed"]["macs"] <= 0.6 * report["model"]["macs"]
    assert report["recipe"]["versions"]["edgec-example"] == "0.1.0"


GOOD = """
    from dataclasses import dataclass
    from typing import ClassVar
    from edgec.passes.base import Pass, PassResult

    @dataclass(frozen=True)
    class Mine(Pass):
        name: ClassVar[str] = "mine"
        summary: ClassVar[str] = "a pass"

        def run(self, model, context):
            return PassResult(model, False)
"""
BROKEN_PASSES = {
    "import": ("import a_module_that_is_not_there", "ModuleNotFoundError"),
    "syntax": ("class", "SyntaxError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit"),
    "attribute": ("Other = 1", "AttributeError"),
    "no class": ("Mine = 1", "no subclass"),
    "another class": ("class Mine: pass", "no subclass"),
    "abstract": (GOOD.replace("def run", "def ran"), "lacks run"),
    "no dataclass": (GOOD.replace("@dataclass(frozen=True)", ""), "not decorated"),
    "no summary": (GOOD.replace("summary: ClassVar[str] =", "told ="), "lacks its summary"),
    "another name": (GOOD.replace('"mine"', '"yours"'), "'yours'"),
    "bad types": (GOOD.replace("summary:", 'x: "Nothing" = 1; summary:'), "NameError"),
}


@pytest.mark.parametrize("kind", BROKEN_PASSES)
def test_a_broken_pass_names_its_distribution_and_breaks_nothing_else(empty: Path, kind: str) -> None:
    code, words = BROKEN_PASSES[kind]
    bring(empty, f"broken-{kind.replace(' ', '-')}", "edgec.passes", "mine = {module}:Mine", code)
    assert "mine" in pass_names()
    assert parse_pipeline("fold quantize")
    with pytest.raises(UsageError, match="broken-") as caught:
        parse_pipeline("mine")
    assert words in str(caught.value)
    (found,) = survey()
    assert words in found.problem


@pytest.mark.parametrize("place", ["check", "complete", "requires", "run", "ensures"])
def test_a_pass_that_fails_names_its_distribution(empty: Path, tmp_path: Path, place: str) -> None:
    code = GOOD + f"\n        def {place}(self, *given):\n            raise KeyError('lost')\n"
    bring(empty, f"fails-{place}", "edgec.passes", "mine = {module}:Mine", code)
    from edgec.compiler.read.asked import resolve_passes
    from edgec.compiler.read.recipe import make_recipe

    def use() -> None:
        passes = resolve_passes(make_recipe({"model": {"path": "net.onnx"}, "passes": "mine"}))
        run_pipeline(passes, model, Context(model, tmp_path))

    model = network()
    with pytest.raises(EdgecError, match=rf"fails-{place} 1\.0.*KeyError"):
        use()


def test_names_of_edgec_stay_its_own(empty: Path) -> None:
    bring(empty, "clash-pass", "edgec.passes", "fold = {module}:Mine", GOOD.replace('"mine"', '"fold"'))
    bring(empty, "clash-target", "edgec.targets", "rpi4 = {module}:CARD", "CARD = 1")
    bring(empty, "clash-rule", "edgec.channel_rules", "Relu = {module}:rule", "rule = 1")
    assert pass_class("fold").__module__ == "edgec.passes.fold"
    assert target("rpi4").name == "rpi4"
    assert groups(network())
    assert len(pass_names()) == len(set(pass_names()))
    assert ["edgec's own" in one.problem for one in survey()] == [True, True, True]


@pytest.mark.parametrize("group", ["edgec.passes", "edgec.targets", "edgec.channel_rules", "edgec.metrics"])
def test_two_distributions_with_one_name(empty: Path, group: str) -> None:
    bring(empty, "one-of-two", group, "Shrink = {module}:thing", "thing = 1")
    bring(empty, "two-of-two", group, "Shrink = {module}:thing", "thing = 1")
    with pytest.raises(UsageError, match=r"one-of-two 1\.0 and two-of-two 1\.0"):
        use(group, "Shrink")
    assert target("rpi4")
    assert pass_class("fold")


def use(group: str, name: str) -> None:
    if group == "edgec.passes":
        pass_class(name)
    elif group == "edgec.targets":
        target(name)
    elif group == "edgec.channel_rules":
        groups(network())
    else:
        resolved(name)


@pytest.mark.parametrize(
    ("group", "code", "words"),
    [
        ("edgec.targets", "thing = 1", "not the Path"),
        ("edgec.targets", "from pathlib import Path; thing = Path('nowhere.yaml')", "nowhere.yaml"),
        ("edgec.targets", "from pathlib import Path; thing = Path(__file__)", "a target file"),
        ("edgec.channel_rules", "thing = 1", "not a function"),
        ("edgec.channel_rules", "class thing: pass", "not a function"),
        ("edgec.channel_rules", "def thing(trace, node): return 1 / 0", "ZeroDivisionError"),
        ("edgec.channel_rules", "def thing(): pass", "TypeError"),
        ("edgec.channel_rules", "import nothing_like_it", "ModuleNotFoundError"),
        ("edgec.metrics", "thing = 1", "not a function"),
        ("edgec.metrics", "import nothing_like_it", "ModuleNotFoundError"),
    ],
)  # fmt: skip
def test_other_broken_plugins(
    empty: Path, group: str, code: str, words: str, request: pytest.FixtureRequest
) -> None:
    name = f"odd-{abs(hash(request.node.name))}"
    bring(empty, name, group, "Shrink = {module}:thing", code)
    assert groups(canonicalise(parse(NET.replace("Shrink <lambd=0.1, bias=0.1>", "Relu"))))
    with pytest.raises((UsageError, PassError), match=name) as caught:
        use(group, "Shrink")
    assert words in str(caught.value)


def test_a_card_under_another_name(empty: Path) -> None:
    (empty / "card.yaml").write_text("extends: rpi4\nname: other\n")
    code = "from pathlib import Path\nCARD = Path(__file__).parent / 'card.yaml'"
    bring(empty, "renamed-card", "edgec.targets", "board = {module}:CARD", code)
    with pytest.raises(UsageError, match=r"renamed-card.*'other'"):
        target("board")


def test_an_own_target_may_not_take_the_name_of_a_plugin(installed: Path, tmp_path: Path) -> None:
    path = tmp_path / "greenhouse.yaml"
    path.write_text((EXAMPLE / "edgec_example" / "greenhouse.yaml").read_text())
    with pytest.raises(UsageError, match="edgec-example"):
        add_target(path)


def test_a_metric_is_found_by_name(empty: Path) -> None:
    bring(
        empty, "metric-one", "edgec.metrics", "ones = {module}:ones", "def ones(predict, samples): return 1.0"
    )
    assert metric_names() == ("ones",)
    function = resolved("ones")
    assert callable(function)
    assert function(None, None) == 1.0
    assert resolved("top1") == "top1"
    assert resolved(len) is len
    assert resolved("onez") == "onez"
    with pytest.raises(UsageError, match="Did you mean 'ones'"):
        Metric("onez")


@pytest.mark.parametrize("group", ["edgec.passes", "edgec.channel_rules"])
def test_keys_of_the_cache_cover_the_code(empty: Path, tmp_path: Path, group: str) -> None:
    path = bring(empty, f"keyed-{group[-5:]}", group, "mine = {module}:Mine", GOOD)
    found = plugin(group, "mine")
    assert found is not None
    model = network()
    one = parse_pipeline("mine" if group == "edgec.passes" else "fold")[0]
    before = fingerprint(found), KeyMaker.of(Context(model, tmp_path)).key(model, one)
    assert before == (fingerprint(found), KeyMaker.of(Context(model, tmp_path)).key(model, one))
    path.write_text(path.read_text() + "\n# changed\n")
    after = fingerprint(found), KeyMaker.of(Context(model, tmp_path)).key(model, one)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_an_editable_install_is_keyed_by_its_source(empty: Path) -> None:
    """Its distribution lists no source file; the module that the entry point names is looked up."""
    path = bring(empty, "editable-one", "edgec.passes", "mine = {module}:Mine", GOOD)
    record = next(empty.glob("editable_one-*")) / "RECORD"
    record.write_text("")
    found = plugin("edgec.passes", "mine")
    assert found is not None
    before = fingerprint(found)
    path.write_text(path.read_text() + "\n# changed\n")
    assert fingerprint(found) != before
