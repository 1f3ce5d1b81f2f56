"""Labels as people have them: COCO, YOLO, masks, arrays; read where they lie, placed as the pictures are, refused by name."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.truth import truth_of
from edgec.graph.annotations.open import open_evaluation
from edgec.graph.data import open_data
from edgec.graph.errors import DataError
from edgec.graph.placement import placement_of
from edgec.graph.preprocess import Preprocess
from tests.compiler.tasks.test_find import net

CELLS = 84
DETECTOR = net(f"float[N,7,{CELLS}] y", "y = Relu (x)")
BOX = Preprocess(resize=(64, 64), letterbox=114)


def pictures(folder, sizes=((80, 40), (32, 48))):
    folder.mkdir(parents=True)
    for number, (width, height) in enumerate(sizes):
        Image.new("RGB", (width, height), (9 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def coco(sizes=((80, 40), (32, 48)), names=("cat", "dog", "cow"), ids=(3, 7, 90)):
    return {
        "images": [
            {"id": 100 + number, "file_name": f"{number}.png", "width": w, "height": h}
            for number, (w, h) in enumerate(sizes)
        ],
        "categories": [{"id": one, "name": name} for one, name in zip(ids, names, strict=True)],
        "annotations": [
            {"id": 1, "image_id": 100, "category_id": 7, "bbox": [10, 5, 20, 30], "area": 500, "iscrowd": 0},
            {"id": 2, "image_id": 100, "category_id": 90, "bbox": [0, 0, 80, 40], "iscrowd": 1},
        ],
    }


@pytest.mark.parametrize(
    ("place", "where"),
    [("annotations/instances_val2017.json", "val2017"), ("annotations/x.json", "images"), ("x.json", "."), ("x.json", "images"),
     ("annotations/instances_val2017.json", "images/val2017")],
)  # fmt: skip
def test_coco_is_read_where_pictures_lie(place, where, tmp_path) -> None:
    pytest.importorskip("faster_coco_eval", reason="the evaluator is an extra")
    pictures(tmp_path / "set" / where if where != "." else tmp_path / "set")
    table = tmp_path / "set" / place
    table.parent.mkdir(exist_ok=True)
    table.write_text(json.dumps(coco()))
    data = open_evaluation(str(table), DETECTOR, BOX, labels=None, names=(), seed=0)
    assert len(data) == 2
    first, second = data.truth
    assert first.corners.tolist() == [[10, 5, 30, 35], [0, 0, 80, 40]]
    assert first.classes.tolist() == [1, 2]
    assert first.crowd.tolist() == [False, True]
    assert first.areas.tolist() == [500, 3200]
    assert len(second) == 0
    assert first.of()["boxes"][0].tolist() == [8, 4, 24, 28]
    assert truth_of(find_task(DETECTOR), DETECTOR, data, 0) == data.truth


def test_classes_go_by_name_where_the_network_knows_them(tmp_path) -> None:
    folder = pictures(tmp_path / "p")
    table = tmp_path / "x.json"
    table.write_text(json.dumps(coco()))
    names = ("person", "Cow", "cat", "dog")
    data = open_evaluation(str(folder), DETECTOR, BOX, labels=str(table), names=names, seed=0)
    assert data.truth[0].classes.tolist() == [3, 1]


YAML = {
    "val: images/val": None,
    "path: .\nval: [images/val]": None,
    "val: list.txt": "images/val/0.png\n\nimages/val/1.png\n",
}


@pytest.mark.parametrize("head", YAML)
def test_yolo(head, tmp_path) -> None:
    pictures(tmp_path / "images" / "val")
    labels = tmp_path / "labels" / "val"
    labels.mkdir(parents=True)
    (labels / "0.txt").write_text("1 0.5 0.5 0.25 0.5\n2 0.25 0.25 0.75 0.25 0.5 1.0\n")
    if YAML[head]:
        (tmp_path / "list.txt").write_text(YAML[head])
    table = tmp_path / "data.yaml"
    table.write_text(f"{head}\nnames: {{0: cat, 1: dog, 2: cow}}\n")
    data = open_evaluation(str(table), DETECTOR, BOX, labels=None, names=(), seed=0)
    first, second = data.truth
    assert first.corners.tolist() == [[30, 10, 50, 30], [20, 10, 60, 40]]
    assert (first.classes.tolist(), len(second)) == ([1, 2], 0)


@pytest.mark.parametrize("kind", ["masks", "pictures"])
def test_a_folder_beside_a_folder(kind, tmp_path) -> None:
    folder = pictures(tmp_path / "p", ((80, 40), (40, 80)))
    other = tmp_path / "other"
    other.mkdir()
    model = net("float[N,5,64,64] y" if kind == "masks" else "float[N,3,128,128] y", "y = Relu (x)")
    for number, (w, h) in enumerate(((80, 40), (40, 80))):
        if kind == "masks":
            mask = np.zeros((h, w), np.uint8)
            mask[h // 2 :] = 3
            image = Image.fromarray(mask).convert("P") if number else Image.fromarray(mask)
            image.putpalette([7] * 768) if number else None
            image.save(other / f"{number}.png")
        else:
            Image.new("RGB", (128, 128), (255, 0, 51)).save(other / f"{number}.png")
    steps = Preprocess(resize=(64, 64), letterbox=0, scale=1 / 255)
    data = open_evaluation(str(folder), model, steps, labels=str(other), names=(), seed=0)
    truth = truth_of(find_task(model), model, data, 0)
    assert len(truth) == len(truth[0:2]) == 2
    if kind == "masks":
        assert truth[0].shape == (64, 64)
        assert [set(truth[0][row].tolist()) for row in (0, 20, 40)] == [{0}, {3}, {255}]
        assert set(truth[1][40].tolist()) == {3, 255}
    else:
        assert truth[1][:, 5, 9].tolist() == pytest.approx([1, 0, 0.2])


WRONG = {
    "not a json": lambda path: path.write_text("{"),
    "not COCO's json of objects": lambda path: path.write_text("[]"),
    "it has no list of categories": lambda path: path.write_text('{"images": [], "annotations": []}'),
    "no pictures in it": lambda path: path.write_text('{"images": [], "annotations": [], "categories": []}'),
    "an annotation is not as COCO has it": lambda path: _changed(path, "annotations", "bbox", [1, 2]),
    "KeyError 5": lambda path: _changed(path, "annotations", "category_id", 5),
    "a picture is not as COCO has it": lambda path: _changed(path, "images", "file_name", None, drop=True),
    "a category is not as COCO has it": lambda path: _changed(path, "categories", "id", None, drop=True),
    "the picture has another size": lambda path: _changed(path, "images", "width", 81),
    "a picture outside the data": lambda path: _changed(path, "images", "file_name", "../../etc/0.png"),
    "Name their folder": lambda path: _changed(path, "images", "file_name", "x.png"),
}


def _changed(path, part, key, value, drop=False):
    table = coco()
    if drop:
        del table[part][0][key]
    else:
        table[part][0][key] = value
    path.write_text(json.dumps(table))


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_json_is_one_sentence(words, tmp_path) -> None:
    pictures(tmp_path / "images")
    WRONG[words](tmp_path / "x.json")
    with pytest.raises(DataError, match=words):
        open_evaluation(str(tmp_path / "x.json"), DETECTOR, BOX, labels=None, names=(), seed=0)


WRONG_YOLO = {
    "it has no key 'val'": ("names: [a]", "0 .5 .5 1 1"),
    "no list under 'names'": ("val: images/val", "0 .5 .5 1 1"),
    "no such folder or list": ("val: nowhere\nnames: [a]", "0 .5 .5 1 1"),
    "0.txt:2: not a line of class": ("val: images/val\nnames: [a]", "0 .5 .5 1 1\n0 .5 .5\n"),
    "0.txt:1: not a line of class": ("val: images/val\nnames: [a]", "4 .5 .5 1 1"),
}


@pytest.mark.parametrize("words", WRONG_YOLO)
def test_a_wrong_data_yaml_is_one_sentence(words, tmp_path) -> None:
    head, lines = WRONG_YOLO[words]
    pictures(tmp_path / "images" / "val")
    (tmp_path / "labels" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val" / "0.txt").write_text(lines)
    (tmp_path / "data.yaml").write_text(head)
    with pytest.raises(DataError, match=words):
        open_evaluation(str(tmp_path / "data.yaml"), DETECTOR, BOX, labels=None, names=(), seed=0)


HEADS: dict[str, ir.Model] = {
    "classes": net("float[N,4] y", "y = Relu (x)"),
    "yes or no": net("float[N,1] y", "y = Sigmoid (x)"),
    "labels": net("float[N,4] y", "y = Sigmoid (x)"),
    "masks": net("float[N,4,64,64] y", "y = Relu (x)"),
    "numbers": net("float[N,1] y", "y = Relu (x)"),
    "picture": net("float[N,3,128,128] y", "y = Relu (x)"),
    "unknown": net("float[N,50,384] y", "y = Relu (x)"),
    "boxes": DETECTOR,
}
GOOD = {
    ("classes", "whole numbers"), ("classes", "one-hot"), ("classes", "whole floats"), ("yes or no", "zeros and ones"),
    ("yes or no", "column of zeros and ones"), ("classes", "zeros and ones"), ("labels", "one-hot"), ("labels", "many ones"),
    ("masks", "masks"), ("numbers", "floats"), ("numbers", "whole floats"), ("numbers", "whole numbers"),
    ("numbers", "zeros and ones"), ("numbers", "column of zeros and ones"), ("picture", "pictures"),
    ("classes", "column of zeros and ones"),
}  # fmt: skip
FORMS = {
    "whole numbers": np.array([0, 1, 2, 3]),
    "zeros and ones": np.array([0, 1, 0, 1]),
    "column of zeros and ones": np.array([[0], [1], [0], [1]]),
    "whole floats": np.array([0.0, 1, 2, 3]),
    "one-hot": np.eye(4, dtype=np.float32),
    "many ones": np.ones((4, 4), bool),
    "floats": np.array([0.5, 1, 2, 3]),
    "masks": np.zeros((4, 64, 64), np.uint8),
    "pictures": np.zeros((4, 3, 128, 128), np.float32),
}


@pytest.mark.parametrize("head", HEADS)
def test_arrays_are_judged_as_what_they_are_or_refused_in_one_sentence(head, tmp_path) -> None:
    model = HEADS[head]
    for form, y in FORMS.items():
        np.savez(tmp_path / "e.npz", x=np.zeros((4, 3, 64, 64), np.float32), y=y)
        data = open_data(tmp_path / "e.npz", model, any_truth=True)
        if (head, form) in GOOD:
            found = truth_of(find_task(model), model, data, 0)
            assert len(found) == 4, (head, form)
            if head == "classes":
                assert (
                    np.asarray(found).tolist() == (y.argmax(1) if form == "one-hot" else y.ravel()).tolist()
                )
        else:
            with pytest.raises(DataError, match="labels"):
                truth_of(find_task(model), model, data, 0)


@pytest.mark.parametrize("offset", [0, 1, -1])
def test_an_offset_counts_for_yes_and_no_too(offset, tmp_path) -> None:
    np.savez(tmp_path / "e.npz", x=np.zeros((2, 3, 64, 64), np.float32), y=np.array([0, 1]) - offset)
    model = HEADS["yes or no"]
    data = open_data(tmp_path / "e.npz", model, any_truth=True)
    assert truth_of(find_task(model), model, data, offset).tolist() == [0, 1]
    with pytest.raises(DataError, match="the model has 2 classes"):
        truth_of(find_task(model), model, data, offset + 1)


PLACES = {
    "as it is": (Preprocess(), (64, 48)),
    "stretched": (Preprocess(resize=(50, 100)), (64, 48)),
    "short side": (Preprocess(resize=(96,)), (64, 48)),
    "short side and crop": (Preprocess(resize=(96,), crop=(90, 80)), (64, 48)),
    "crop": (Preprocess(crop=(40, 40)), (64, 48)),
    "letterbox": (Preprocess(resize=(128, 128), letterbox=0), (64, 48)),
    "letterbox, centred": (Preprocess(resize=(128, 128), letterbox=0, letterbox_at="centre"), (64, 48)),
    "letterbox, high": (Preprocess(resize=(120, 128), letterbox=0, letterbox_at="centre"), (30, 60)),
}


@pytest.mark.parametrize("name", PLACES)
def test_boxes_lie_where_the_pixels_do(name) -> None:
    """A white square on black: its edges in the prepared picture are the placed corners, to a pixel."""
    steps, (width, height) = PLACES[name]
    pixels = np.zeros((height, width, 3), np.uint8)
    corners = np.array([[width * 0.3, height * 0.3, width * 0.7, height * 0.7]]).round()
    x1, y1, x2, y2 = corners[0].astype(int)
    pixels[y1:y2, x1:x2] = 255
    made = steps.picture(Image.fromarray(pixels))[..., 0] > 127
    place = placement_of(steps, width, height)
    rows, columns = np.flatnonzero(made.any(1)), np.flatnonzero(made.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert place.into(corners)[0] == pytest.approx(seen, abs=1.0)
    assert place.back(place.into(corners))[0] == pytest.approx(corners[0])
