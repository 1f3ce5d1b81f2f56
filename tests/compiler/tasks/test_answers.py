"""The samples that a report shows, and the answers to them: chosen by error, run on the file that ships."""

from __future__ import annotations

import base64
import io

import numpy as np
import onnx
import pytest
from PIL import Image

import edgec
from edgec.compiler.evaluate.answers import choose
from edgec.compiler.evaluate.plausibility import about_split
from edgec.graph.data import open_data
from edgec.graph.execute import session
from edgec.graph.sources import InputSpec
from tests.conftest import parse

MASKS = (
    "net (float[N,3,16,16] x) => (float[N,4,16,16] y) <float[4,3,3,3] w>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w)  y = Softmax<axis=1>(t) }"
)


def test_the_worst_the_changed_and_the_typical_are_each_chosen_once() -> None:
    rng = np.random.default_rng(0)
    errors = rng.random(200).tolist()
    changed = [error > 0.8 for error in errors]
    found = choose(errors, changed)
    assert len(found) == 24
    of = {why: [at for at, said in found.items() if said == why] for why in ("worst", "changed", "typical")}
    assert set(of["worst"]) == set(np.argsort(errors)[-8:].tolist())
    assert all(changed[at] for at in of["changed"])
    assert not any(changed[at] for at in of["typical"])
    assert max(abs(errors[at] - np.median(errors)) for at in of["typical"]) < 0.1


def test_of_equal_answers_all_are_typical() -> None:
    assert set(choose([0.0] * 5, [False] * 5).values()) == {"typical"}


def test_a_report_holds_answers_and_pictures_of_the_file_that_ships(tmp_path) -> None:
    model = parse(MASKS)
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=pixels)
    onnx.save(model, tmp_path / "net.onnx")
    report = edgec.compile(
        tmp_path / "net.onnx", tmp_path / "out", data=tmp_path / "d.npz", measure=False, quiet=True, passes="",
        preprocess={"scale": "1/255", "mean": (0.5,), "std": (0.25,), "channels": "bgr"},
    )  # fmt: skip
    answers = edgec.Report.open(tmp_path / "out").answers
    assert answers == report.answers
    assert (answers.task, answers.file, answers.size) == ("segmentation", "model.onnx", (16, 16))
    assert len(answers.samples) == 8
    for one in answers.samples:
        x = ((pixels[one.index][..., ::-1] / 255 - 0.5) / 0.25).astype(np.float32).transpose(2, 0, 1)[None]
        mask = session(model).run(None, {"x": x})[0].argmax(1)[0]
        runs = one.before["mask"]["runs"]
        assert np.concatenate([[label] * size for label, size in runs]).tolist() == mask.ravel().tolist()
        assert one.after == one.before
        head, _, text = one.picture.partition(",")
        assert head == "data:image/jpeg;base64"
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), np.float64)
        assert np.abs(seen.mean(axis=(0, 1)) - pixels[one.index].mean(axis=(0, 1))).max() < 12
    assert report.model.task == "segmentation"
    assert report.quality["float"].measures[0].name == "Mean IoU with the original's masks"


@pytest.mark.parametrize(("shared", "said"), [(0, False), (2, False), (20, True)])
def test_evaluation_data_that_the_run_is_fitted_to_is_said(shared: int, said: bool, tmp_path) -> None:
    rng = np.random.default_rng(0)
    specs = (InputSpec("x", (3, 8, 8)),)
    fitted, other = rng.integers(0, 255, (2, 40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=fitted)
    np.savez(tmp_path / "e.npz", x=np.concatenate([other[: 40 - shared], fitted[:shared]]))
    data, evaluation = (open_data(tmp_path / name, specs) for name in ("d.npz", "e.npz"))
    found = [str(one) for one in about_split(data, evaluation)]
    assert bool(found) == said
    assert not said or found[0].startswith("20 of 40 evaluation inputs looked at are among those")
