"""Target files are files from elsewhere: none hangs, kills, or silently changes what the others say."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.cli.targets_command import command
from edgec.graph.errors import UsageError
from edgec.targets import add_target, load_target_file, target, target_names
from edgec.targets.registry import user_folder

GOOD = "extends: rpi5\nname: {name}\n"
BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user_folder().mkdir(parents=True)
    return user_folder()


def huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 30)


FOREIGN = {
    "fifo": (os.mkfifo, "a FIFO"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "folder": (Path.mkdir, "it is a folder"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "loop": (lambda path: path.symlink_to(path.name), "symbolic link"),
    "huge": (huge, "1.07 GB; 262 kB are allowed"),
    "binary": (lambda path: path.write_bytes(bytes(range(128))), "NUL"),
    "latin-1": (lambda path: path.write_bytes(b"title: \xe9\n"), "not UTF-8"),
    "empty": (lambda path: path.write_text(""), "must be a mapping"),
    "bomb": (lambda path: path.write_text(BOMB), "more than 10000 values"),
    "deep": (lambda path: path.write_text("a: " + "[" * 100_000), "nested too deeply"),
    "pickle": (lambda path: path.write_text("a: !!python/object/apply:os.system [true]"), "the tag"),
    "another name": (lambda path: path.write_text(GOOD.format(name="rpi4")), "its name is 'rpi4'"),
    "steering name": (lambda path: path.write_text(GOOD.format(name='"\\e[2J"')), r"\x1b[2J"),
    "path as name": (lambda path: path.write_text(GOOD.format(name="../../x")), "its name is '../../x'"),
}


def test_list_goes_on_and_names_what_it_left_out(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, (make, _) in FOREIGN.items():
        make(own_folder / f"{kind}.yaml")
    (own_folder / "mine.yaml").write_text(GOOD.format(name="mine"))
    command.main(["list"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert "mine " in out
    assert "rpi4 " in out
    assert "\x1b" not in out + err
    for kind, (_, says) in FOREIGN.items():
        (warning,) = (line for line in err.splitlines() if f"/{kind}.yaml" in line)
        assert warning.startswith("skipped: ")
        assert says in warning
        assert kind not in out


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_one_asked_for_is_refused_at_once(kind: str, own_folder: Path) -> None:
    make, says = FOREIGN[kind]
    make(own_folder / "theirs.yaml")
    start = time.process_time()
    with pytest.raises(UsageError) as caught:
        target("theirs")
    assert time.process_time() - start < 15
    assert says in str(caught.value)


FIELDS = {
    "threads: 100000": "threads: ",
    "threads: true": "threads: ",
    "threads: 2.5": "threads: ",
    "threads: -1": "threads: ",
    "memory_mb: 0": "memory_mb: ",
    "memory_mb: 99999999999999999999": "memory_mb: ",
    "memory_mb: 1" + "0" * 5000: "a number of 5001 characters",
    "channel_multiple: 1000000": "channel_multiple: ",
    "core_groups: [{core: x, count: 1000000000}]": "core_groups.0.count: ",
    "core_groups: [{core: x, count: 4, clock_mhz: .inf}]": "core_groups.0.clock_mhz: ",
    "throttle: {soft_c: .nan, readings: []}": "throttle.soft_c: ",
    "throttle: {hard_c: -.inf, readings: []}": "throttle.hard_c: ",
    "isa: neon": "isa: ",
    "arch: arm": "arch: ",
    "default_engine: tensorflow": "default_engine: ",
    "sources: x": "sources: ",
    "sources: [a]": "sources: ",
    "title: {a: 1}": "title: ",
    "title: " + "x" * 3000: "title: ",
    "1: 2": "1: ",
    "systems: [[x]]": "systems.0: ",
    "extends: [rpi4]": "a key twice",
    "systems: [{name: x, title: x, arch: aarch64, python: '3.11', glibc: null, source: x,"
    " runtimes: [{engine: onnxruntime, version: '1; reboot'}]}]": "version: ",
}


@pytest.mark.parametrize("text", FIELDS)
def test_values_are_checked(text: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(GOOD.format(name="x") + text + "\n")
    with pytest.raises(UsageError) as caught:
        load_target_file(file)
    assert FIELDS[text] in str(caught.value)
    assert len(str(caught.value)) < 5000


def test_a_date_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(GOOD.format(name="x") + "sources: {threads: 2024-13-45}\n")
    assert load_target_file(tmp_path / "x.yaml").sources["threads"] == "2024-13-45"


def test_chains_end(own_folder: Path) -> None:
    for number in range(40):
        (own_folder / f"c{number}.yaml").write_text(f"extends: c{number + 1}\nname: c{number}\n")
    (own_folder / "c40.yaml").write_text(GOOD.format(name="c40"))
    with pytest.raises(UsageError, match="too long"):
        target("c0")
    (own_folder / "c40.yaml").write_text("extends: c39\nname: c40\n")
    with pytest.raises(UsageError, match="extends itself"):
        target("c39")


@pytest.mark.parametrize("name", ["../x", "a/b", "x" * 300, "a\nb", "\x1b[2J", "", ".", "-x", "ä"])
def test_a_name_never_becomes_another_path(name: str, own_folder: Path, tmp_path: Path) -> None:
    import yaml

    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"extends": "rpi5", "name": name}))
    with pytest.raises(UsageError, match="name: "):
        add_target(tmp_path / "x.yaml")
    assert not list(own_folder.iterdir())


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    (tmp_path / "other" / "edgec").mkdir(parents=True)
    os.mkfifo(tmp_path / "other" / "edgec" / "targets")
    assert "rpi4" in target_names()


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore"))))
def test_any_bytes_are_a_target_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(b"extends: rpi4\nname: x\n" + data)
    with contextlib.suppress(UsageError):
        load_target_file(file)
