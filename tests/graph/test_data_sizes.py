"""The same samples at another size of the input: from files once each, from pixels as pictures are, from numbers only of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgec.graph.data import InputSpec, open_data
from edgec.graph.errors import DataError, UsageError
from edgec.graph.preprocess import Preprocess, resized_numbers

OLD, NEW = (InputSpec("x", (3, 32, 32)),), (InputSpec("x", (3, 24, 24)),)
SIZES = [(48, 40), (64, 80), (32, 32), (120, 60)]


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with edges: (height, width, 3) uint8, the same scene at every size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * f + p) + np.cos(y / height * g) for f, g, p in rng.uniform(2, 9, (3, 3))]
    return np.clip(np.stack(waves, -1) * 50 + 120, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, size in enumerate(SIZES):
        Image.fromarray(scene(*size, seed=index)).save(tmp_path / f"{index}.png")
    return tmp_path


STEPS = {
    "both sides": Preprocess(resize=(32, 32)),
    "letterbox": Preprocess(resize=(32, 32), letterbox=114),
    "letterbox, centred": Preprocess(resize=(32, 32), letterbox=114, letterbox_at="centre"),
    "short side and crop": Preprocess(resize=(40,), crop=(32, 32)),
    "both sides and crop": Preprocess(resize=(40, 44), crop=(32, 32)),
    "crop alone": Preprocess(crop=(32, 32)),
    "bgr": Preprocess(resize=(40,), crop=(32, 32), channels="bgr", scale=1 / 255),
}


@pytest.mark.parametrize("size", [(24, 24), (16, 24), (48, 48)], ids=str)
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_pictures_show_the_same_view(folder: Path, steps: Preprocess, size: tuple[int, int]) -> None:
    """The view at the new size is the old view, resized: up to what one interpolation in place of two changes."""
    data = open_data(folder, OLD, steps)
    if steps.letterbox is not None and size[0] != size[1]:
        with pytest.raises(UsageError, match="a letterbox keeps its shape"):
            data.at((InputSpec("x", (3, *size)),))
        return
    spec = (InputSpec("x", (3, *size)),)
    old, new = next(data.batches(9))["x"], next(data.at(spec).batches(9))["x"]
    assert new.shape == (len(SIZES), 3, *size)
    for before, after in zip(old, new, strict=True):
        wanted = np.moveaxis(resized_numbers(np.moveaxis(before, 0, -1), size), -1, 0)
        assert np.abs(after - wanted).mean() < 0.06 * max(1.0, np.ptp(before))


def test_a_picture_is_resized_once_from_its_own_pixels(folder: Path) -> None:
    data = open_data(folder, OLD, Preprocess(resize=(32, 32))).at(NEW)
    with Image.open(folder / "1.png") as image:
        wanted = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(
        data.source.read([1])["x"][0], np.moveaxis(wanted, -1, 0).astype(np.float32)
    )


def test_resizing_does_not_alias(tmp_path: Path) -> None:
    """Lines of one pixel become grey, not lines."""
    lines = np.zeros((96, 96, 3), np.uint8)
    lines[::2] = 255
    np.savez(tmp_path / "pixels.npz", x=lines[None])
    np.savez(tmp_path / "ready.npz", x=np.moveaxis(lines, -1, 0)[None].astype(np.float32) / 255)
    old, new = (InputSpec("x", (3, 96, 96)),), (InputSpec("x", (3, 32, 32)),)
    for name in ("pixels.npz", "ready.npz"):
        values = open_data(tmp_path / name, old, Preprocess(scale=1 / 255)).at(new).source.read([0])["x"]
        assert np.ptp(values[..., 1:-1, 1:-1]) < 0.2


@pytest.mark.parametrize("layout", ["first", "last"])
def test_arrays_of_pixels_go_the_way_of_pictures(tmp_path: Path, layout: str) -> None:
    pixels = np.stack([scene(32, 32, seed) for seed in range(3)])
    np.savez(tmp_path / "x.npz", x=np.moveaxis(pixels, -1, 1) if layout == "first" else pixels)
    data = open_data(tmp_path / "x.npz", OLD, Preprocess(scale=1 / 255)).at(NEW)
    wanted = Image.fromarray(pixels[2]).resize((24, 24), Image.Resampling.BILINEAR)
    found = data.source.read([2])["x"][0]
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), np.asarray(wanted, np.float32) / 255, rtol=1e-6)
    assert not data.is_resized_numbers


def ready(kind: str) -> tuple[np.ndarray, tuple[InputSpec, ...], tuple[InputSpec, ...]]:
    rng = np.random.default_rng(0)
    pixels = np.stack([scene(32, 32, seed) for seed in range(4)]).astype(np.float32)
    first = np.moveaxis(pixels, -1, 1)
    grey, small = (InputSpec("x", (1, 32, 32)),), (InputSpec("x", (1, 24, 24)),)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    smooth = np.stack([resized_numbers(one, (32, 32)) for one in np.repeat(pixels[:, :29], 1, axis=1)])
    found = {
        "ImageNet's mean and deviation": (np.moveaxis((pixels / 255 - mean) / std, -1, 1), OLD, NEW),
        "0 to 255": (first, OLD, NEW),
        "grey, of a mean of its own": (first[:, :1] / 255 / 0.3081 - 0.4242, grey, small),
        "resized as real numbers": (np.moveaxis(smooth, -1, 1) / 255, OLD, NEW),
        "a spectrum": (rng.normal(-20, 30, (4, 1, 32, 32)).astype(np.float32), grey, small),
        "a spectrum from 0 to 1": (rng.uniform(0, 1, (4, 1, 32, 32)).astype(np.float32), grey, small),
        "three channels of coefficients": (rng.normal(0, 1, (4, 3, 32, 32)).astype(np.float32) * 4, OLD, NEW),
        "two channels": (
            rng.uniform(0, 1, (4, 2, 32, 32)).astype(np.float32),
            (InputSpec("x", (2, 32, 32)),),
            (InputSpec("x", (2, 24, 24)),),
        ),
    }
    return found[kind]


@pytest.mark.parametrize(
    "kind",
    ["ImageNet's mean and deviation", "0 to 255", "grey, of a mean of its own", "resized as real numbers"],
)
def test_prepared_pictures_are_resized_with_a_note(tmp_path: Path, kind: str) -> None:
    array, old, new = ready(kind)
    np.savez(tmp_path / "x.npz", x=array)
    data = open_data(tmp_path / "x.npz", old).at(new)
    assert data.is_resized_numbers
    found = next(data.batches(9))["x"]
    assert found.shape == (4, *new[0].shape)
    assert abs(float(found.mean() - array.mean())) < 0.05 * float(array.std())


@pytest.mark.parametrize(
    "kind", ["a spectrum", "a spectrum from 0 to 1", "three channels of coefficients", "two channels"]
)
def test_what_is_no_picture_is_refused(tmp_path: Path, kind: str) -> None:
    array, old, new = ready(kind)
    np.savez(tmp_path / "x.npz", x=array)
    with pytest.raises(DataError, match="no picture cannot be resized") as caught:
        open_data(tmp_path / "x.npz", old).at(new)
    assert "Give pictures" in str(caught.value)


def test_a_folder_of_arrays_is_resized_file_by_file(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", scene(32, 32, index))
    data = open_data(tmp_path, OLD).at(NEW)
    assert next(data.batches(9))["x"].shape == (3, 3, 24, 24)
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.moveaxis(scene(32, 32, index), -1, 0).astype(np.float32) / 255)
    assert next(open_data(tmp_path, OLD).at(NEW).batches(9))["x"].max() <= 1


def test_noise_is_made_anew() -> None:
    data = open_data("random", OLD, samples=8).at(NEW)
    found = next(data.batches(9))["x"]
    assert found.shape == (8, 3, 24, 24)
    assert 0.9 < found.std() < 1.1


def test_samples_keep_their_order_their_labels_and_their_split(tmp_path: Path) -> None:
    x = np.stack([np.full((32, 32, 3), 10 * value, np.uint8) for value in range(12)])
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(12))
    _, held = open_data(tmp_path / "x.npz", OLD).split(0.5, 3)
    small = held.at(NEW)
    assert small.labels is not None
    assert held.labels is not None
    np.testing.assert_array_equal(small.labels, held.labels)
    np.testing.assert_array_equal(next(small.batches(99))["x"][:, 0, 0, 0], 10 * held.labels)
    assert small.fingerprint != held.fingerprint
    assert held.at(OLD) is held


def test_an_oblong_short_side_keeps_the_view_of_another_shape() -> None:
    """What a short side cannot say is said by a factor."""
    found = Preprocess(resize=(40,), crop=(32, 32)).at((32, 32), (16, 24))
    assert found.zoom == (0.5, 0.75)
    assert found.crop == (16, 24)
    assert Preprocess(**found.to_dict()) == found
    plain = Preprocess(resize=(256,), crop=(224, 224)).at((224, 224), (160, 160))
    assert (plain.resize, plain.crop, plain.zooms) == ((183,), (160, 160), False)


@pytest.mark.parametrize("seed", [0, 3])
def test_noise_at_another_size_is_that_of_its_own_seed(seed: int) -> None:
    data = open_data("random", OLD, samples=5, seed=seed)
    fresh = open_data("random", NEW, samples=5, seed=seed)
    assert np.array_equal(next(data.at(NEW).batches(5))["x"], next(fresh.batches(5))["x"])
    part = data.take(2, seed=1)
    assert np.array_equal(next(part.at(NEW).batches(2))["x"], next(fresh.batches(5))["x"][list(part.indices)])
