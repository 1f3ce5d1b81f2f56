"""A bundle whose copy lost something says what, in one line and with exit code 3, and never computes with what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def program(folder: Path, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        bundle = json.loads((folder / "bundle.json").read_text())
        change(bundle)
        (folder / "bundle.json").write_text(json.dumps(bundle))

    return spoil


def cut(name: str, keep: int | None = None) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2 if keep is None else keep])

    return spoil


def flip(name: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 4
        (folder / name).write_bytes(content)

    return spoil


def artifact(**change: Any) -> Callable[[Path], object]:
    return edit(lambda bundle: bundle["artifacts"][0].update(change))


def steps(**change: Any) -> Callable[[Path], object]:
    return edit(lambda bundle: bundle["preprocess"].update(change))


CARD: dict[str, Callable[[Path], object]] = {
    "gone": lambda folder: (folder / "bundle.json").unlink(),
    "cut": cut("bundle.json"),
    "empty": cut("bundle.json", 0),
    "no text": lambda folder: (folder / "bundle.json").write_bytes(b"\xff\x00"),
    "deep": lambda folder: (folder / "bundle.json").write_text("[" * 100000),
    "endless": lambda folder: (folder / "bundle.json").write_text('{"a": "' + "x" * 2**21 + '"}'),
    "a list": lambda folder: (folder / "bundle.json").write_text("[]"),
    "no artifacts": edit(lambda bundle: bundle.update(artifacts=[])),
    "no threads": edit(lambda bundle: bundle.pop("threads")),
    "threads": edit(lambda bundle: bundle.update(threads="4")),
    "many threads": edit(lambda bundle: bundle.update(threads=10**9)),
    "a path": artifact(file="../model.onnx"),
    "a root": artifact(file="/etc/passwd"),
    "escapes": artifact(file="\x1b[31m.onnx"),
    "format": artifact(format="pt"),
    "precision": artifact(precision="int3"),
    "codes": artifact(quantised={"x": [1.0]}),
    "mean": steps(mean=[]),
    "std": steps(std=[0.0]),
    "scale": steps(scale="1/255"),
    "channels": steps(channels="cmyk"),
    "resize": steps(resize=[-1]),
    "crop": steps(crop=[7]),
    "letterbox": steps(letterbox=999999),
    "letterbox at": steps(letterbox_at="above"),
    "no inputs": edit(lambda bundle: bundle.pop("inputs")),
    "an input": edit(lambda bundle: bundle["inputs"][0].update(shape=["3"])),
    "axes": artifact(axes={"x": [0, 0]}),
}


@pytest.mark.parametrize("how", CARD)
def test_a_damaged_card_is_said(copy: Path, how: str) -> None:
    CARD[how](copy)
    programs = [["contents.py"], ["run.py", "none.npy"], ["selftest.py", "--json"]]
    for words in programs if how in ("cut", "std") else programs[:1]:
        code, out, said = program(copy, *words)
        assert (code, out) == (3, ""), said
        assert said.startswith("error: bundle.json")
        assert said.count("\n") == 1
        assert said.strip().isprintable()


@pytest.mark.parametrize(
    "how", [cut("edgec-agent.pyz"), cut("edgec-agent.pyz", 0), flip("edgec-agent.pyz"), None]
)
def test_a_damaged_agent(copy: Path, how: Callable[[Path], object] | None) -> None:
    how(copy) if how else (copy / "edgec-agent.pyz").unlink()
    for name in ("run.py", "selftest.py", "contents.py"):
        code, out, said = program(copy, name)
        if how is None or code != 0:  # a flipped bit may lie where nobody reads it
            assert code in (2, 3)
        assert "Traceback" not in out + said


@pytest.mark.parametrize(
    "how", [cut("model.int8.onnx"), flip("model.int8.onnx"), cut("model.int8.onnx", 0), None]
)
def test_a_damaged_network_is_not_run(copy: Path, how: Callable[[Path], object] | None) -> None:
    how(copy) if how else (copy / "model.int8.onnx").unlink()
    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        np.save(copy / "one.npy", archive["x"][0])
    code, out, said = program(copy, "run.py", "one.npy", "--artifact", "model.int8.onnx")
    assert (code, out) == (3, "")
    assert "model.int8.onnx is damaged, copy the bundle again" in said
    code, out, _ = program(copy, "selftest.py", "--json")
    lines = {line["artifact"]: line for line in json.loads(out)["artifacts"]}
    assert code == 1
    assert "damaged" in lines["model.int8.onnx"]["result"]
    assert lines["model.onnx"]["passed"]


def _arrays(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        with np.load(folder / "selftest.npz") as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(folder / "selftest.npz", **arrays)

    return spoil


RECORDED: dict[str, Callable[[Path], object]] = {
    "gone": lambda folder: (folder / "selftest.npz").unlink(),
    "cut": cut("selftest.npz"),
    "empty": cut("selftest.npz", 0),
    "an array": lambda folder: (folder / "selftest.npz").write_bytes((folder / "one.npy").read_bytes()),
    "no arrays": _arrays(dict.clear),
    "no samples": _arrays(lambda arrays: arrays.update({key: value[:0] for key, value in arrays.items()})),
    "no outputs": _arrays(lambda arrays: [arrays.pop(key) for key in list(arrays) if "/out/" in key]),
}


@pytest.mark.parametrize("how", RECORDED)
def test_damaged_recordings(copy: Path, how: str) -> None:
    np.save(copy / "one.npy", np.zeros(3))
    RECORDED[how](copy)
    code, out, said = program(copy, "selftest.py", "--json")
    assert (code, out) == (3, "")
    assert said.splitlines()[-1].startswith("error: selftest.npz is damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_does_not_pass(copy: Path, value: float) -> None:
    """A device that computes NaN where the host recorded numbers, and the other way round, in a float file."""

    def spoil(arrays: dict[str, Any]) -> None:
        key = next(name for name in arrays if name.startswith("model.onnx/out/"))
        arrays[key] = np.full_like(arrays[key], value)

    _arrays(spoil)(copy)
    code, out, _ = program(copy, "selftest.py", "--json")
    found = {
        line["artifact"]: line
        for line in json.loads(out, parse_constant=lambda text: pytest.fail(text))["artifacts"]
    }
    assert code == 1
    assert not found["model.onnx"]["passed"]
    assert found["model.int8.onnx"]["passed"]


def test_one_bad_file_does_not_end_the_others(copy: Path) -> None:
    """Whatever a decoder raises, and whatever a file is called; pipes do not hold the run up."""
    inbox = copy / "inbox"
    inbox.mkdir()
    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        np.save(inbox / "z-good.npy", archive["x"][0])
    (inbox / "a.npz").write_bytes(b"PK\x03\x04" + bytes(60))
    np.savez(inbox / "b.npz")
    (inbox / "c.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': [[[[[")
    np.save(inbox / "d.npy", np.array([None]), allow_pickle=True)
    np.save(inbox / "e.npy", np.array("words"))
    Image.new("1", (20000, 20000)).save(inbox / "f.png")
    (inbox / "g\x1b[31m\n.png").write_bytes(b"no picture")
    os.mkfifo(inbox / "h.png")
    code, out, said = program(copy, "run.py", "inbox", "--json")
    assert code == 3
    assert [json.loads(line)["input"] for line in out.splitlines()] == ["inbox/z-good.npy"]
    assert said.replace("\n", "").isprintable()
    assert said.count("error: ") == 7


def test_bench_says_what_is_damaged(copy: Path) -> None:
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "python").symlink_to(sys.executable)
    cut("bundle.json")(copy)
    done = subprocess.run(
        ["sh", "bench.sh"], cwd=copy, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: bundle.json is damaged")
