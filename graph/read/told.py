"""What a model file, or a file beside it, says of its preprocessing, input size, task and labels.

Ultralytics (`names`, `imgsz`, `task`), OpenVINO ModelAPI (`model_info ...`), PP-OCR (`character`); beside the file Hugging Face's
`preprocessor_config.json` and `config.json` (`id2label`), and timm's `config.json` (`pretrained_cfg`).
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.graph.errors import EdgecError
from edgec.graph.files import read_text

_MOST_TEXT = 1 << 20
_MOST_LABELS = 1 << 16
_MODEL_INFO = "model_info "
_BYTE = 1 / 255


@dataclass(frozen=True)
class Told:
    """``by``: who says so, empty where nobody does. ``preprocess``: settings of `Preprocess`, those that are said.

    ``size``: height and width of the input.
    """

    by: str = ""
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    task: str = ""
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for the user."""
        said = [f"{key} {_shown(value)}" for key, value in self.preprocess.items()]
        said += [f"task {self.task}"] if self.task else []
        said += [f"{len(self.labels)} labels"] if self.labels else []
        return f"{self.by} says: {', '.join(said)}"


def told_by(metadata: Mapping[str, str], path: Path | None = None, size: Sequence[int] = ()) -> Told:
    """What is said of a model: by its own properties, else by files beside ``path``. ``size``: the input's height and width."""
    readers: tuple[Callable[[], Told | None], ...] = (
        lambda: _ultralytics(metadata, size),
        lambda: _model_api(metadata, size),
        lambda: _ocr(metadata),
        lambda: None if path is None else _beside(path.parent),
    )
    for read in readers:
        try:
            found = read()
        except _UNUSABLE:
            continue  # other words under the same keys: nobody's form that is known here
        if found is not None:
            return found
    return Told()


def size_told(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Height and width that a model says of its input, for axes that it leaves open."""
    return told_by(metadata).size


_UNUSABLE = (
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    MemoryError,
    IndexError,
)


def _literal(text: str) -> Any:
    if len(text) > _MOST_TEXT:
        raise ValueError("too long")
    return ast.literal_eval(text)


def _pair(value: Any) -> tuple[int, int]:
    sides = [value, value] if isinstance(value, int) else list(value)
    height, width = (sides * 2)[:2] if len(sides) == 1 else sides
    if not (type(height) is int and type(width) is int and 0 < height <= 1 << 16 and 0 < width <= 1 << 16):
        raise ValueError("not a size")
    return height, width


def _labels(found: Any) -> tuple[str, ...]:
    if isinstance(found, Mapping):
        numbers = {int(key): str(value) for key, value in found.items()}
        if sorted(numbers) != list(range(len(numbers))):
            raise ValueError("classes without numbers in a row")
        found = [numbers[number] for number in range(len(numbers))]
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) > _MOST_LABELS:
        raise ValueError("no list of labels")
    return tuple(map(str, found))


def _ultralytics(metadata: Mapping[str, str], size: Sequence[int]) -> Told | None:
    """/255, RGB; a letterbox of grey 114, centred. Classifiers: the short side, then a square crop."""
    if not {"names", "stride", "task"} <= set(metadata):
        return None
    told = _pair(_literal(metadata["imgsz"])) if "imgsz" in metadata else None
    known = (size[0], size[1]) if len(size) == 2 else told
    steps: dict[str, Any] = {"scale": _BYTE, "channels": "rgb"}
    task = metadata["task"]
    if known is not None and task == "classify":
        steps |= {"resize": (min(known),), "crop": known}
    elif known is not None:
        steps |= {"resize": known, "letterbox": 114, "letterbox_at": "centre"}
    return Told("Ultralytics' metadata", steps, told, task, _labels(_literal(metadata["names"])))


def _model_api(metadata: Mapping[str, str], size: Sequence[int]) -> Told | None:
    """Means and scales are of 0 to 255; pictures come as OpenCV reads them, BGR, unless they are to be reversed."""
    own = {key[len(_MODEL_INFO) :]: value for key, value in metadata.items() if key.startswith(_MODEL_INFO)}
    if not own:
        return None
    steps: dict[str, Any] = {}
    for key, name in (("mean_values", "mean"), ("scale_values", "std")):
        if own.get(key):
            steps[name] = tuple(map(float, own[key].replace(",", " ").split()))
    if "reverse_input_channels" in own:
        steps["channels"] = "rgb" if own["reverse_input_channels"].lower() in ("yes", "true", "1") else "bgr"
    kind = own.get("resize_type", "")
    if len(size) == 2 and kind in ("standard", "fit_to_window", "fit_to_window_letterbox"):
        steps["resize"] = tuple(size)
        if kind != "standard":
            steps["letterbox"] = int(own.get("pad_value") or 0)
            steps["letterbox_at"] = "centre" if kind.endswith("letterbox") else "corner"
    labels = tuple(label.replace("_", " ") for label in own.get("labels", "").split())
    task = own.get("task_type") or own.get("model_type") or ""
    return Told("ModelAPI's metadata", steps, None, task, _labels(labels))


def _ocr(metadata: Mapping[str, str]) -> Told | None:
    """A recogniser of PP-OCR: its alphabet, line by line; BGR in -1 to 1."""
    if "character" not in metadata:
        return None
    labels = tuple(metadata["character"].split("\n"))
    steps = {"scale": _BYTE, "mean": (0.5,), "std": (0.5,), "channels": "bgr"}
    return Told("PP-OCR's metadata", steps, None, "recognise", _labels(labels))


def _beside(folder: Path) -> Told | None:
    steps_file, config_file = _json(folder / "preprocessor_config.json"), _json(folder / "config.json")
    timm = config_file.get("pretrained_cfg")
    if isinstance(timm, Mapping):
        return _timm(timm)
    labels = _labels(config_file["id2label"]) if "id2label" in config_file else ()
    if not labels and "image_mean" not in steps_file:
        return None
    names = config_file.get("architectures") or [""]
    task = next((name for word, name in _TASKS.items() if word in str(names[0])), "")
    by = "preprocessor_config.json" if "image_mean" in steps_file else "config.json"
    return Told(f"{by} beside the model", _hugging_face(steps_file), None, task, labels)


_TASKS = {
    "ImageClassification": "classify",
    "ObjectDetection": "detect",
    "SemanticSegmentation": "segment",
    "DepthEstimation": "depth",
}


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path, _MOST_TEXT, "a description of a model"))
    except (EdgecError, ValueError, RecursionError):
        return {}  # a file of that name that is nobody's description
    return found if isinstance(found, Mapping) else {}


def _timm(cfg: Mapping[str, Any]) -> Told:
    """The short side is the crop over ``crop_pct``, as `timm.data.create_transform` has it."""
    steps: dict[str, Any] = {"scale": _BYTE, "channels": "rgb"}
    steps |= {key: tuple(map(float, cfg[key])) for key in ("mean", "std") if key in cfg}
    size = _pair(cfg["input_size"][1:]) if "input_size" in cfg else None
    if size is not None:
        share = float(cfg.get("crop_pct") or 0.875)
        steps |= {"resize": (math.floor(min(size) / share),), "crop": size}
    labels = _labels(cfg["label_names"]) if cfg.get("label_names") else ()
    return Told("timm's config.json beside the model", steps, size, "classify", labels)


def _hugging_face(given: Mapping[str, Any]) -> dict[str, Any]:
    """Switches that are not written are on; means are of what rescaling leaves."""
    steps: dict[str, Any] = {}
    if "image_mean" not in given:
        return steps
    steps["channels"] = "rgb"
    if given.get("do_rescale", True):
        steps["scale"] = float(given.get("rescale_factor", _BYTE))
    if given.get("do_normalize", True):
        steps |= {
            "mean": tuple(map(float, given["image_mean"])),
            "std": tuple(map(float, given["image_std"])),
        }
    size = given.get("size")
    if isinstance(size, Mapping) and "shortest_edge" in size and "crop_pct" in given:  # ConvNeXt's own form
        edge = int(size["shortest_edge"])
        return {**steps, "resize": (int(edge / float(given["crop_pct"])),), "crop": (edge, edge)}
    if given.get("do_resize", True) and size is not None:
        steps["resize"] = _hf_size(size)
    if given.get("do_center_crop", False) and given.get("crop_size") is not None:
        crop = _hf_size(given["crop_size"])
        steps["crop"] = (crop[0], crop[-1])
    return steps


def _hf_size(size: Any) -> tuple[int, ...]:
    if isinstance(size, Mapping):
        return (
            (int(size["shortest_edge"]),)
            if "shortest_edge" in size
            else _pair((int(size["height"]), int(size["width"])))
        )
    return _pair(int(size))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_shown(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
