"""Data that cannot carry what passes are to learn from it is refused, or said to be little, before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

RNG = np.random.default_rng(0)
SOME = RNG.standard_normal((64, 3, 16, 16)).astype(np.float32)
FLAT = np.repeat(np.arange(20, dtype=np.float32), 3 * 16 * 16).reshape(20, 3, 16, 16)
CHANNELS = ("--budget", "macs=70%")
PASSES = {
    "a budget": CHANNELS,
    "channels by name": ("--passes", "prune-channels{macs=70%}"),
    "pieces": ("--passes", "decompose-svd{macs=70%}"),
    "a fit alone": ("--passes", "recover-lsq"),
}
LITTLE = {
    "one": (SOME[:1], "of 1 input, 1 differ"),
    "three": (SOME[:3], "of 3 inputs, 3 differ"),
    "seven": (SOME[:7], "of 7 inputs, 7 differ"),
    "black": (np.zeros((20, 3, 16, 16), np.float32), "of 20 inputs, none differ"),
    "flat": (FLAT, "of 20 inputs, none differ"),
    "copies": (np.repeat(SOME[:4], 10, axis=0), "of 40 inputs, 4 differ"),
    "copies and flat": (np.concatenate([np.repeat(SOME[:4], 10, axis=0), FLAT]), "of 60 inputs, 4 differ"),
}


def looked_at(edgec, files: Path, x, *options: object) -> tuple[int, str, str]:
    np.savez(files / "little.npz", x=x)
    return edgec(
        "compile",
        files / "net.onnx",
        "--data",
        files / "little.npz",
        "-o",
        files / "out",
        "--dry-run",
        *options,
    )


@pytest.mark.parametrize("name", LITTLE)
def test_too_few_different_inputs_are_refused(edgec, files: Path, name: str) -> None:
    x, words = LITTLE[name]
    code, _, err = looked_at(edgec, files, x, *CHANNELS)
    said = " ".join(err.split())
    assert (code, words in said, "at least 8 different ones" in said) == (3, True, True), err


@pytest.mark.parametrize("how", PASSES)
def test_whatever_chooses_or_fits_needs_them(edgec, files: Path, how: str) -> None:
    code, _, err = looked_at(edgec, files, SOME[:3], *PASSES[how])
    assert (code, "too few different inputs for" in err) == (3, True), err


@pytest.mark.parametrize(("count", "said"), [(8, True), (31, True), (32, False)])
def test_what_is_enough_and_little_is_said(edgec, files: Path, count: int, said: bool) -> None:
    code, out, err = looked_at(edgec, files, SOME[:count], *CHANNELS)
    assert (code, f"only {count} different inputs for" in " ".join((out + err).split())) == (0, said), err


@pytest.mark.parametrize(
    ("x", "code"), [(SOME[:1], 0), (SOME[:3], 0), (FLAT, 3), (np.zeros((20, 3, 16, 16), np.float32), 3)],
    ids=["one", "three", "flat", "black"],
)  # fmt: skip
def test_ranges_need_one_input_that_is_not_flat(edgec, files: Path, x, code: int) -> None:
    found, _, err = looked_at(edgec, files, x, "--precision", "int8")
    assert (found, "nothing to learn ranges from" in err) == (code, code == 3), err


def test_noise_that_was_asked_for_is_not_counted(edgec, files: Path) -> None:
    code, out, err = edgec(
        "compile", files / "net.onnx", "--data", "random", "--samples", 4, *CHANNELS, "-o", files / "out", "--dry-run"
    )  # fmt: skip
    assert (code, "different inputs" in out + err) == (0, False)
