"""Hostile data, labels, recipes, target files, run folders and caches: see `corpus_models`."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from tests.conftest import parse
from tests.hostile.corpus_models import COMPILE, CONV, Case

Write = Callable[[Path], object]
DRY = ["compile", "--recipe", "recipe.yaml", "-o", "out", "--no-bench", "--dry-run"]
RECIPE = "edgec: 0.2.0\nmodel: {path: net.onnx}\ndata: {path: random, samples: 4}\nprecision: int8\n"
RUN = [
    "compile",
    "net.onnx",
    "--data",
    "random",
    "--samples",
    "4",
    "--precision",
    "int8",
    "--no-bench",
    "-o",
    "run",
]
"""What `run` was made with."""


def sound(folder: Path) -> None:
    onnx.save(parse(CONV.format("")), folder / "net.onnx")


def data(make: Write, name: str, *more: str) -> Callable[[Path], list[str]]:
    """Compile with what ``make`` writes as calibration data."""

    def write(folder: Path) -> list[str]:
        sound(folder)
        make(folder / name)
        return [*COMPILE[:2], "--data", name, "--no-bench", "-o", "out", "--precision", "int8", *more]

    return write


def labels(make: Write) -> Callable[[Path], list[str]]:
    """Pictures that are sound, and labels that are not."""

    def write(folder: Path) -> list[str]:
        sound(folder)
        (folder / "pictures").mkdir()
        Image.new("RGB", (8, 8)).save(folder / "pictures" / "a.png")
        make(folder / "labels.csv")
        return [*COMPILE, "--eval", "pictures", "--eval-labels", "labels.csv"]

    return write


def recipe(content: bytes | str | Write) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        sound(folder)
        path = folder / "recipe.yaml"
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return DRY

    return write


def card(content: str | Write, *argv: str) -> Callable[[Path], list[str]]:
    """The user's own target 'mine'; the folder is XDG_CONFIG_HOME."""

    def write(folder: Path) -> list[str]:
        own = folder / "edgec" / "targets"
        own.mkdir(parents=True)
        if callable(content):
            content(own / "mine.yaml")
        else:
            (own / "mine.yaml").write_text(content, encoding="utf-8")
        return list(argv) or ["targets", "show", "mine"]

    return write


def run(change: Write, *argv: str) -> Callable[[Path], list[str]]:
    """A finished run, changed; it lies in ``run``, put there by the test."""

    def write(folder: Path) -> list[str]:
        change(folder / "run")
        return list(argv) or ["report", "run"]

    return write


def report(edit: Callable[[dict[str, object]], object]) -> Write:
    def change(folder: Path) -> None:
        path = folder / "report.json"
        tree = json.loads(path.read_text(encoding="utf-8"))
        edit(tree)
        path.write_text(json.dumps(tree), encoding="utf-8")

    return change


def npz_bomb(path: Path) -> None:
    """100 kB that claim to be 400 MB for each of 100 samples."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 3, 8, 8)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("x.npy", header.getvalue() + bytes(10**6))


def picture_bomb(path: Path) -> None:
    """A PNG of 40,000 x 40,000 pixels in its header."""
    path.mkdir()
    stream = io.BytesIO()
    Image.new("1", (8, 8)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (path / "a.png").write_bytes(bytes(content))


def linked_cache(folder: Path) -> None:
    shutil.rmtree(folder / ".cache")
    (folder.parent / "elsewhere").mkdir()
    (folder / ".cache").symlink_to("../elsewhere")


def forged_cache(folder: Path) -> None:
    """Another model in the cache, with its right hash beside it."""
    import hashlib

    for path in (folder / ".cache").rglob("*.onnx"):
        model = onnx.load(path)
        model.graph.name = "forged"
        path.write_bytes(model.SerializeToString())
        for beside in path.parent.glob("*.json"):
            tree = json.loads(beside.read_text(encoding="utf-8"))
            tree["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            beside.write_text(json.dumps(tree), encoding="utf-8")


def endless(folder: Path) -> None:
    for path in (folder / ".cache").rglob("*.json"):
        path.unlink()
        path.symlink_to("/dev/zero")


# (f) tests/graph/test_foreign_arrays.py and test_foreign_pictures.py hold each form; (g) tests/compiler/test_foreign_recipes.py and
# tests/targets/test_foreign_cards.py; (h) a full disk: tests/compiler/test_ended_runs.py, tests/graph/test_disk.py and
# tests/passes/test_spill.py; (i) tests/compiler/test_pipeline.py; (j) a board that lies: tests/runtime/test_hostile_board.py;
# (k) folders of other users: tests/runtime/test_own_folders.py; (l) tests/compiler/deploy/test_service.py; (m) signals:
# tests/compiler/test_ended_runs.py. Here the commonest go through the command line.
FILES: dict[str, Case] = {
    "f: 0-d array": (data(lambda p: np.save(p, np.float32(1)), "x.npy"), 3, r"x\.npy"),
    "f: array without samples": (data(lambda p: np.save(p, np.zeros((0, 3, 8, 8), np.float32)), "x.npy"), 3, r"x\.npy"),
    "f: words as samples": (data(lambda p: np.savez(p, x=np.array(["a", "b"])), "x.npz"), 3, r"x\.npz"),
    "f: objects as samples": (data(lambda p: np.save(p, np.array([{}], object), allow_pickle=True), "x.npy"), 3, r"x\.npy"),
    "f: header cut off": (data(lambda p: p.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'"), "x.npy"), 3, r"x\.npy"),
    "f: npz bomb": (data(npz_bomb, "x.npz"), 3, r"x\.npz"),
    "f: picture bomb": (data(picture_bomb, "pictures"), 3, r"a\.png"),
    "f: only a picture bomb, skipped": (data(picture_bomb, "pictures", "--skip-bad"), 3, "pictures"),
    "f: FIFO as data": (data(os.mkfifo, "x.npy"), 3, r"x\.npy"),
    "f: labels in another encoding": (labels(lambda p: p.write_bytes("a.png,é\n".encode("utf-16"))), 3, r"labels\.csv"),
    "f: field of 200,000 letters": (labels(lambda p: p.write_text("a.png," + "1" * 200_000)), 3, r"labels\.csv"),
    "f: labels without an end": (labels(lambda p: p.symlink_to("/dev/zero")), 3, r"labels\.csv"),
    "g: seed of -1": (recipe(RECIPE + "seed: -1\n"), 2, "seed"),
    "g: five means": (recipe(RECIPE + "preprocess: {mean: [1, 2, 3, 4, 5]}\n"), 2, "mean"),
    "g: letterbox of 999999": (recipe(RECIPE + "preprocess: {letterbox: 999999}\n"), 2, "letterbox"),
    "g: 100,000 threads": (recipe(RECIPE + "threads: 100000\n"), 2, "threads"),
    "g: number of 5,000 digits": (recipe(RECIPE + "seed: " + "1" * 5000), 2, r"recipe\.yaml"),
    "g: recipe is a FIFO": (recipe(os.mkfifo), 2, "FIFO"),
    "g: recipe with a Python tag": (recipe("a: !!python/object/apply:os.system [true]"), 2, r"recipe\.yaml"),
    "g: card with a bad date": (card("name: mine\ntitle: x\nmeasured: 2023-13-45\n"), 2, r"mine\.yaml"),
    "g: card that steers the terminal": (card('name: "\\e[2J\\u202e"\n'), 2, r"\\x1b\[2J"),
    "g: card is /dev/zero": (card(lambda p: p.symlink_to("/dev/zero")), 2, "device"),
    "g: a FIFO among the cards": (card(os.mkfifo, "targets", "list"), 0, ""),
}  # fmt: skip

RUNS: dict[str, Case] = {
    "i: cache is a link": (run(linked_cache, *RUN, "--resume"), 3, "symbolic link"),
    "i: cache forged with its hash": (run(forged_cache, *RUN, "--resume"), 0, ""),
    "i: cache without an end": (run(endless, *RUN, "--resume"), 0, ""),
    "fuzz: report is no object": (run(lambda p: (p / "report.json").write_text("[]")), 3, r"report\.json"),
    "fuzz: report in another encoding": (run(lambda p: (p / "report.json").write_bytes(b'{"a": "\xe9"}')), 3, r"report\.json"),
    "fuzz: report nested too deeply": (run(lambda p: (p / "report.json").write_text("[" * 100_000)), 3, r"report\.json"),
    "fuzz: artifacts of another kind": (run(report(lambda r: r.update(artifacts={"a": 1}))), 3, r"report\.json"),
    "fuzz: artifact that is a path": (
        run(report(lambda r: r["artifacts"][0].update(path="../../outside")), "deploy", "run", "-o", "bundle"), 3, "outside",
    ),
}  # fmt: skip
