"""Target files: every one that ships is valid, and every mistake in one is named."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgec.graph.errors import UsageError
from edgec.passes.quantize.dialects import DIALECTS
from edgec.targets import add_target, load_target_file, target, target_names, targets
from edgec.targets.probe import host_fields
from edgec.targets.schema import Target

SHIPPED = {
    "generic-arm64",
    "host",
    "jetson-agx-orin",
    "jetson-agx-xavier",
    "jetson-nano",
    "jetson-orin-nano",
    "rk3588",
    "rpi-zero2w",
    "rpi3",
    "rpi4",
    "rpi5",
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "edgec" / "targets"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_target_loads() -> None:
    assert {t.name for t in targets()} == SHIPPED
    for found in targets():
        assert found.systems, found.name
        assert found.precisions.of("int8").why


def test_facts_that_compiling_depends_on() -> None:
    assert target("rpi4").dialect == "ort-arm"
    assert not target("rpi4").dot_product
    assert target("rpi5").dot_product
    gpu = target("jetson-nano").accelerators[0]
    assert not gpu.precisions.int8.supported
    assert "no int8" in gpu.precisions.int8.why
    bits32 = target("rpi4").system("rpi-os-bookworm-32")
    assert bits32 is not None
    assert bits32.runtime("onnxruntime") is None
    assert bits32.runtime("tflite-runtime") is not None


def test_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    with pytest.raises(UsageError) as caught:
        target("rpi44")
    assert "Did you mean 'rpi4'?" in str(caught.value)
    assert "jetson-nano" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("flags", "multiple", "dot"),
    [("avx2 fma", 8, False), ("avx2 avx512f avx512_vnni", 16, True), ("avx2 avx_vnni", 8, True)],
)
def test_x86_host_takes_uint8(flags: str, multiple: int, dot: bool) -> None:
    fields = host_fields(f"model name : Some CPU\nflags : {flags}\n", "x86_64")
    assert (fields["dialect"], fields["channel_multiple"]) == ("ort-x86", multiple)
    assert ("VNNI, the int8" in fields["precisions"]["int8"]["why"]) == dot


def test_arm_host_takes_int8() -> None:
    fields = host_fields("Features : fp asimd asimdhp asimddp\n", "aarch64")
    assert fields["dialect"] == "ort-arm"
    assert fields["precisions"]["fp16"]["pays"]


def test_extends_gives_only_what_differs(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.yaml",
        "extends: rpi4\nname: my-pi\nmemory_mb: 8192\nsources: {memory_mb: the box}\n",
    )
    mine = load_target_file(file)
    assert (mine.memory_mb, mine.cores, mine.estimates_from) == (8192, 4, "rpi4")
    assert mine.sources["memory_mb"] == "the box"
    assert target(str(file)) == mine


@pytest.mark.parametrize(("old", "dialect"), [("uint8", "ort-x86"), ("int8", "ort-arm")])
def test_a_card_of_0_1_names_an_activation_type(tmp_path: Path, old: str, dialect: str) -> None:
    text = f"extends: rpi4\nname: my-pi\nactivation_dtype: {old}\nsources: {{activation_dtype: tried}}\n"
    mine = load_target_file(write(tmp_path / "mine.yaml", text))
    assert mine.dialect == dialect
    assert mine.sources["dialect"] == "tried"


def test_every_dialect_that_a_card_may_name_has_a_table() -> None:
    names = get_args(Target.model_fields["dialect"].annotation)
    assert names
    assert set(names) <= set(DIALECTS)


def test_added_target_is_found_by_name(tmp_path: Path, own_folder: Path) -> None:
    add_target(write(tmp_path / "mine.yaml", "extends: rpi5\nname: my-pi\n"))
    assert target("my-pi").soc == target("rpi5").soc
    assert "my-pi" in target_names()
    assert [p.name for p in own_folder.iterdir()] == ["my-pi.yaml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: rpi9\nname: x\n", "Did you mean 'rpi"),
        ("extends: rpi4\nname: x\ncorse: 3\n", "corse: unknown field"),
        ("extends: rpi4\nname: x\nthreads: 9\n", "threads is 9, but there are 4 cores"),
        ("extends: rpi4\nname: X y\n", "name: "),
        ("extends: rpi4\nname: x\nsystems: [bookworm]\n", "no system 'bookworm'"),
        ("extends: rpi4\nname: x\nsystems: 3\n", "must be a list"),
        ("extends: rpi4\nname: x\nactivation_dtype: float\n", "activation_dtype: "),
        ("name: x\n", "title: Field required"),
        ("- 1\n", "must be a mapping"),
        ("{", "not YAML"),
    ],
)
def test_mistakes_in_a_target_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path / "x.yaml", text)
    with pytest.raises(UsageError) as caught:
        load_target_file(file)
    assert says in str(caught.value)
    assert "x.yaml" in str(caught.value)


def test_a_missing_file_and_a_shipped_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        target(str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match="ships with edgec"):
        add_target(write(tmp_path / "x.yaml", "extends: rpi4\nname: rpi5\n"))


def test_a_number_without_a_source_is_refused(tmp_path: Path) -> None:
    text = """
name: x
title: x
arch: aarch64
soc: x
core_groups: [{core: x, count: 1}]
isa: []
memory_mb: 100
dialect: ort-arm
channel_multiple: 8
threads: 1
throttle: {readings: []}
sources: {cores: the box}
precisions:
  fp32: &runs {supported: true, why: it does}
  fp16: *runs
  int8: *runs
"""
    with pytest.raises(UsageError, match="sources lacks channel_multiple, dialect, isa, memory_mb"):
        load_target_file(write(tmp_path / "x.yaml", text))
