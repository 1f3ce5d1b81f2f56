"""The picture of the self-test: from the data where that has one, and never where the network takes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgec.compiler.deploy.picture import save_picture
from edgec.graph.data import open_data
from edgec.graph.inputs import InputSpec
from edgec.graph.preprocess import Preprocess

FIRST = InputSpec("x", (3, 12, 16), np.dtype(np.float32))
LAST = InputSpec("x", (12, 16, 3), np.dtype(np.float32), channels_last=True)
RAW = InputSpec("x", (3, 12, 16), np.dtype(np.uint8))
BGR = Preprocess(channels="bgr", scale=1 / 255, mean=(0.4, 0.5, 0.6))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize("form", ["pictures", "bytes last", "bytes first"])
@pytest.mark.parametrize(("spec", "steps"), [(FIRST, BGR), (LAST, BGR), (RAW, Preprocess(channels="bgr"))])
def test_it_is_a_sample_of_the_data(form: str, spec: InputSpec, steps: Preprocess, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    if form == "pictures":
        for index, pixels in enumerate(PIXELS):
            Image.fromarray(pixels).save(folder / f"{index}.png")
    else:
        np.savez(folder / "x.npz", x=PIXELS if form == "bytes last" else PIXELS.transpose(0, 3, 1, 2))
    data = open_data(folder if form == "pictures" else folder / "x.npz", (spec,), steps)
    made = save_picture(tmp_path / "selftest.png", (spec,), (spec,), steps, data)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "selftest.png")), PIXELS[0])
    np.testing.assert_array_equal(made["x"], next(data.batches(1))["x"])


def test_of_floats_it_is_noise_that_fits(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3, 12, 16), np.float32))
    data = open_data(tmp_path / "x.npz", (FIRST,), Preprocess())
    steps = Preprocess(resize=(14,), crop=(12, 16))
    made = save_picture(tmp_path / "selftest.png", (FIRST,), (FIRST,), steps, data)
    assert made["x"].shape == (1, 3, 12, 16)
    assert made["x"].std() > 10


@pytest.mark.parametrize(
    "specs",
    [
        (InputSpec("x", (10,), np.dtype(np.float32)),),
        (InputSpec("x", (5, 12, 16), np.dtype(np.float32)),),
        (FIRST, InputSpec("k", (1,), np.dtype(np.int64))),
    ],
    ids=["a vector", "five channels", "two inputs"],
)
def test_what_takes_no_picture_has_none(specs: tuple[Any, ...], tmp_path: Path) -> None:
    assert save_picture(tmp_path / "selftest.png", specs, specs, Preprocess(), None) == {}
    assert not (tmp_path / "selftest.png").exists()
