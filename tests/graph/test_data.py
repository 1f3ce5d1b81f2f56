"""Data: every form that is taken gives the network's input exactly, and every fault is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgec.graph.data import open_data
from edgec.graph.errors import DataError, UsageError
from edgec.graph.inputs import InputSpec
from edgec.graph.preprocess import Preprocess

NET = "net (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu(x) }"


@pytest.fixture
def model(canonical):
    return canonical(NET)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def pictures(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for index, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{index:03}.png")
    return folder


def read(data) -> np.ndarray:
    return np.concatenate([batch["x"] for batch in data.batches(4)])


def test_all_forms_give_the_same_input(model, pixels, tmp_path) -> None:
    preprocess = Preprocess(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = ((pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).transpose(0, 3, 1, 2)
    np.savez(tmp_path / "last.npz", x=pixels)
    np.savez(tmp_path / "first.npz", x=pixels.transpose(0, 3, 1, 2))
    np.save(tmp_path / "plain.npy", pixels)
    np.savez(tmp_path / "ready.npz", x=expected.astype(np.float32))
    folder = tmp_path / "arrays"
    folder.mkdir()
    for index, one in enumerate(pixels):
        np.save(folder / f"{index}.npy", one)
    for path in (
        tmp_path / "last.npz", tmp_path / "first.npz", tmp_path / "plain.npy", tmp_path / "ready.npz", folder,
        pictures(tmp_path / "pictures", pixels),
    ):  # fmt: skip
        np.testing.assert_allclose(
            read(open_data(path, model, preprocess)), expected, atol=1e-5, err_msg=str(path)
        )


def test_bgr_crop_and_letterbox(model, tmp_path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[..., 0] = 200
    folder = pictures(tmp_path / "p", wide[None])
    bgr = read(open_data(folder, model, Preprocess(channels="bgr", crop=(8, 8))))
    assert bgr[0, 2].min() == 200
    assert bgr[0, 0].max() == 0
    boxed = read(open_data(folder, model, Preprocess(resize=(8, 8), letterbox=114)))
    assert (boxed[0, 0, :4] == 200).all()
    assert (boxed[0, :, 4:] == 114).all()


def test_samples_are_chosen_by_seed(model, pixels, tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=pixels)
    some = [open_data(tmp_path / "d.npz", model, samples=3, seed=seed) for seed in (0, 0, 1)]
    assert some[0].indices == some[1].indices
    assert some[0].fingerprint == some[1].fingerprint
    assert len(some[0]) == 3
    assert some[0].fingerprint != some[2].fingerprint


def test_the_fingerprint_knows_content_and_preprocessing(model, pixels, tmp_path) -> None:
    folder = pictures(tmp_path / "p", pixels)
    first = open_data(folder, model).fingerprint
    assert open_data(folder, model, Preprocess(scale=2.0)).fingerprint != first
    changed = pixels.copy()
    changed[0, 0, 0, 0] ^= 1
    assert open_data(pictures(folder, changed), model).fingerprint != first


def test_split_is_disjoint_and_complete(model, pixels, tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=pixels)
    data = open_data(tmp_path / "d.npz", model)
    fit, held = data.split(0.3, seed=1)
    assert sorted(fit.indices + held.indices) == list(range(6))
    assert not set(fit.indices) & set(held.indices)


def test_labels_from_npz_and_csv(model, pixels, tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=pixels, y=np.arange(6))
    assert open_data(tmp_path / "d.npz", model, samples=2).labels.tolist() == list(
        open_data(tmp_path / "d.npz", model, samples=2).indices
    )
    folder = pictures(tmp_path / "p", pixels)
    (tmp_path / "p_labels.csv").write_text(
        "file,label\n" + "".join(f"{i:03}.png,{9 - i}\n" for i in range(6))
    )
    assert open_data(folder, model).labels.tolist() == [9, 8, 7, 6, 5, 4]


def test_noise_is_asked_for_and_marked(model) -> None:
    data = open_data("random", model, samples=5)
    assert data.is_random
    assert len(data) == 5


def fault(name: str, tmp_path: Path, pixels: np.ndarray) -> Path:
    """One broken data set per name."""
    path = tmp_path / "d.npz"
    if name == "missing":
        return tmp_path / "nothing"
    if name == "empty folder":
        (tmp_path / "e").mkdir()
        return tmp_path / "e"
    if name == "not data":
        (tmp_path / "notes.txt").write_text("hello")
        return tmp_path / "notes.txt"
    if name == "damaged npz":
        path.write_bytes(b"PK\x03\x04 and then nothing")
        return path
    if name == "damaged picture":
        folder = pictures(tmp_path / "p", pixels)
        (folder / "004.png").write_bytes(b"\x89PNG broken")
        return folder
    if name == "labels missing":
        folder = pictures(tmp_path / "p", pixels)
        (folder / "labels.csv").write_text("000.png,1\n")
        return folder
    arrays = {
        "wrong shape": {"x": pixels[:, :7]},
        "nan": {"x": np.full((2, 3, 8, 8), np.nan, np.float32)},
        "text": {"x": np.array(["a", "b"])},
        "labels too short": {"x": pixels, "y": np.arange(5)},
        "no samples": {"x": pixels[:0]},
    }[name]
    np.savez(path, **arrays)
    return path


FAULTS = {
    "missing": "no such file", "empty folder": "it is empty", "not data": "not a data set",
    "damaged npz": "not a readable", "damaged picture": "004.png", "labels missing": "has no label",
    "wrong shape": "does not fit", "nan": "NaN", "text": "numbers are needed", "labels too short": "labels",
    "no samples": "no samples",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name: str, model, pixels, tmp_path) -> None:
    path = fault(name, tmp_path, pixels)
    with pytest.raises(DataError) as caught:
        open_data(path, model)
    assert FAULTS[name] in str(caught.value)
    assert caught.value.where is not None
    assert "Traceback" not in str(caught.value)


def test_a_damaged_picture_is_skipped_on_request_and_named(model, pixels, tmp_path) -> None:
    folder = fault("damaged picture", tmp_path, pixels)
    data = open_data(folder, model, skip_bad=True)
    assert len(data) == 5
    assert "004.png" in data.skipped[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"std": (0.0,)}, "std: 0.0 is not"),
        ({"std": (0.2, -0.2, 0.2)}, "std: -0.2 is not"),
        ({"std": ()}, "one per channel"),
        ({"mean": (float("nan"),)}, "mean: nan is not a finite number"),
        ({"mean": "a,b"}, "mean: 'a' is not a number"),
        ({"scale": 0}, "scale: 0 is not"),
        ({"scale": "1/0"}, "scale: '1/0' is not"),
        ({"scale": float("inf")}, "finite"),
        ({"layout": "chwn"}, "one of auto, nchw, nhwc"),
        ({"channels": "rbg"}, "Did you mean 'rgb'"),
        ({"resize": (1, 2, 3)}, "one or two sizes from 1 to 8192"),
        ({"resize": 100_000}, "one or two sizes from 1 to 8192"),
        ({"crop": (0, 4)}, "one or two sizes"),
        ({"crop": "big"}, "'big' is not one or two sizes"),
        ({"resize": 224, "crop": (256, 256)}, "crop 256x256 of 224"),
        ({"resize": (200, 300), "crop": (200, 301)}, "crop 200x301 of 200x300"),
        ({"letterbox": 3}, "needs --resize"),
        ({"letterbox": 999999, "resize": (8, 8)}, "from 0 to 255"),
        ({"letterbox": 114, "resize": (8,)}, "needs --resize"),
    ],
)
def test_wrong_preprocessing_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Preprocess(**wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize("entries", [1, 3])
def test_one_number_or_one_per_channel(entries: int) -> None:
    Preprocess(mean=(0.5,) * entries).check_inputs([3])


@pytest.mark.parametrize(("key", "entries", "channels"), [("mean", 5, 3), ("std", 2, 1), ("mean", 3, 4)])
def test_entries_must_fit_the_models_channels(key: str, entries: int, channels: int) -> None:
    with pytest.raises(UsageError, match=f"--{key} has {entries} entries"):
        Preprocess(**{key: (0.5,) * entries}).check_inputs([channels])


def test_settings_are_read_from_text_as_from_values() -> None:
    read = Preprocess(
        mean="1/255, 0.5,0", std=0.5, resize="224x320", crop="200", scale="1/127.5", channels="BGR"
    )
    assert read == Preprocess(
        mean=(1 / 255, 0.5, 0.0),
        std=(0.5,),
        resize=(224, 320),
        crop=(200, 200),
        scale=1 / 127.5,
        channels="bgr",
    )


@pytest.mark.parametrize("given", [(), (1,), (1, 1)])
@pytest.mark.parametrize("taken", [(), (1,), (1, 1)])
def test_a_number_is_a_number_under_whatever_shape(
    given: tuple[int, ...], taken: tuple[int, ...], tmp_path: Path
) -> None:
    """A threshold, one for each sample: exporters declare it () or (1,), and arrays hold it either way."""
    values = np.arange(5, dtype=np.float32)
    np.savez(tmp_path / "x.npz", x=values.reshape(5, *given))
    found = next(open_data(tmp_path / "x.npz", (InputSpec("x", taken),)).batches(5))["x"]
    np.testing.assert_array_equal(found, values.reshape(5, *taken))


PREPARED = {
    "levels": "a = Mul(x, s) p = Sub(a, s)",
    "a mean of each channel": "a = Div(x, s) p = Add(a, means)",
    "blue first": "p = Slice(x, m1, low, ax, m1)",
    "blue first by places": "p = Gather<axis=3>(x, order)",
    "a margin": "p = Pad(x, pads)",
    "bounds": "p = Clip(x, s)",
}


@pytest.mark.parametrize("body", PREPARED.values(), ids=PREPARED)
def test_pictures_prepared_inside_the_network_lie_channels_last(body: str, canonical) -> None:
    text = (
        "net (float[N,8,12,3] x) => (float[N,3,h,w] y) <float s = {0.5}, float[3] means = {1, 2, 3}, int64[1] m1 = {-1}, "
        "int64[1] low = {-9}, int64[1] ax = {3}, int64[3] order = {2, 1, 0}, int64[8] pads = {0, 1, 1, 0, 0, 1, 1, 0}> { "
    )
    (spec,) = InputSpec.of(canonical(text + body + " t = Transpose<perm=[0,3,1,2]>(p) y = Relu(t) }"))
    assert spec.channels_last
    assert spec.picture == (8, 12, 3)


def test_what_mixes_two_inputs_says_nothing_of_their_layout(canonical) -> None:
    text = "net (float[N,8,12,3] x, float[N,8,12,3] z) => (float[N,3,8,12] y) { p = Add(x, z) y = Transpose<perm=[0,3,1,2]>(p) }"
    assert not any(spec.channels_last for spec in InputSpec.of(canonical(text)))
