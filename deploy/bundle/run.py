#!/usr/bin/env python3
"""Run the compiled network on pictures, arrays, or the camera, with the preprocessing that it was compiled with.

    .venv/bin/python run.py cat.jpg                       top classes of one picture
    .venv/bin/python run.py pictures/ --json              one JSON line per picture
    .venv/bin/python run.py x.npy --raw                   raw outputs: shapes and ranges
    .venv/bin/python run.py --camera                      one frame
    .venv/bin/python run.py --watch inbox                 every new file in a folder, for ever (the service does this)

In your own program:

    from run import Model
    model = Model()
    outputs = model("cat.jpg")            # {name: float array}; also a uint8 picture (H, W, C), or a ready float array
    print(model.top(outputs, 3))          # [(class, label, score), ...]
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from contents import AgentError, open_preferred, read_bundle, visible  # noqa: E402
from prepare import Preparation, typed  # noqa: E402

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
ARRAYS = {".npy", ".npz"}


class Model:
    """The bundle's network: preprocessing, inference, and dequantised outputs."""

    def __init__(self, artifact: str = "", engine: str = "", threads: int = 0) -> None:
        self.bundle: Dict[str, Any] = read_bundle()
        self.artifact, self.engine = open_preferred(
            self.bundle, artifact, engine, threads or self.bundle["threads"]
        )
        self.inputs = {spec["name"]: spec for spec in self.bundle["inputs"]}
        lacking = [name for name, _, _ in self.engine.inputs if name not in self.inputs]
        if lacking:
            raise AgentError(
                "data", f"bundle.json is damaged, copy the bundle again: no input {lacking[0]!r}"
            )
        labels = HERE / "labels.txt"
        text = labels.read_text(encoding="utf-8", errors="replace") if labels.is_file() else ""
        self.labels = [visible(line, 200) for line in text.split("\n")[:-1]]

    def __call__(self, source: Any) -> Dict[str, Any]:
        """Outputs for a file, a uint8 picture (H, W, C), a float array for the only input, or a dict of arrays."""
        arrays = self._arrays(source)
        feeds = {}
        for name, shape, dtype in self.engine.inputs:
            if name not in arrays:
                raise AgentError("data", f"no array for the input {name!r}")
            feeds[name] = self._fit(name, np.asarray(arrays[name]), shape, dtype)
        self.engine.feed(feeds)
        self.engine.invoke()
        return {name: self._real(name, array) for name, array in self.engine.outputs().items()}

    def _arrays(self, source: Any) -> Dict[str, Any]:
        """By input name, what each input takes, in the layout of the network that was compiled."""
        steps, first = Preparation(self.bundle["preprocess"]), self.engine.inputs[0][0]
        if isinstance(source, (str, Path)):
            path = Path(source)
            if path.suffix not in ARRAYS:
                return {first: steps.placed(steps.file(path), self.inputs[first])}
            stored = np.load(path, allow_pickle=False)
            if isinstance(stored, np.ndarray):  # whatever the file is called
                return self._arrays(stored)
            with stored:
                names = [name for name in self.inputs if name in stored.files]
                alone = "x" if "x" in stored.files else stored.files[0]
                return self._arrays({name: stored[name] for name in names} if names else stored[alone])
        given = source if isinstance(source, dict) else {first: source}
        return {
            name: steps.array(np.asarray(array), self.inputs[name])
            for name, array in given.items()
            if name in self.inputs
        }

    def top(self, outputs: Dict[str, Any], count: int) -> List[Tuple[int, str, float]]:
        """Best classes of the first output: (class, label, score)."""
        scores = next(iter(outputs.values())).reshape(-1)
        order = np.argsort(-scores, kind="stable")[:count]
        return [(int(i), self.labels[i] if i < len(self.labels) else "", float(scores[i])) for i in order]

    def _fit(self, name: str, array: Any, shape: Tuple[int, ...], dtype: Any) -> Any:
        """A sample in the network's layout, as the artifact wants it: axes in its order, and codes where it takes codes."""
        own = tuple(self.inputs[name]["shape"])
        if array.shape != own:
            raise AgentError("data", f"input {name!r} must be {list(own)}, not {list(array.shape)}")
        axes = self.artifact["axes"].get(name)
        if axes is not None:
            back = [shape[axes.index(axis)] for axis in range(len(axes))]
            array = array.reshape(back).transpose(axes)
        if array.dtype.kind == "f" and dtype.kind in "iu" and name in self.artifact["quantised"]:
            scale, zero = self.artifact["quantised"][name]
            limits = np.iinfo(dtype)
            array = np.clip(np.round(array / np.float32(scale)) + zero, limits.min, limits.max)
        return typed(name, array, dtype).reshape(shape)

    def _real(self, name: str, array: Any) -> Any:
        if name in self.artifact["quantised"] and array.dtype.kind in "iu":
            scale, zero = self.artifact["quantised"][name]
            return (array.astype(np.float32) - zero) * np.float32(scale)
        return np.array(array)


def camera_frame() -> Any:
    """One frame: Raspberry Pi's camera tool, else OpenCV's first camera. Height, width, RGB."""
    for tool in ("rpicam-still", "libcamera-still"):
        if shutil.which(tool):
            from PIL import Image

            command = [tool, "--nopreview", "--immediate", "--encoding", "jpg", "--output", "-"]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True
            )
            return np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB"))
    try:
        import cv2
    except ImportError:
        raise AgentError("data", "no rpicam-still and no OpenCV (cv2) to read a camera with") from None
    camera = cv2.VideoCapture(0)
    good, frame = camera.read()
    camera.release()
    if not good:
        raise AgentError("data", "the camera gives no frame")
    return frame[:, :, ::-1]


def sources(paths: List[str]) -> Iterator[Tuple[str, Any]]:
    """Files, the pictures and arrays in folders, and the samples of an .npz or .npy with several."""
    for text in paths:
        path = Path(text)
        if path.is_dir():
            for item in sorted(path.rglob("*")):
                if item.suffix.lower() in PICTURES | ARRAYS and item.is_file():
                    yield str(item), item
        elif path.is_file():
            yield text, path
        else:
            raise AgentError("data", f"no such file, or no regular one: {text}")


def watch(folder: str, pause: float) -> Iterator[Tuple[str, Any]]:
    """Every file that is new in ``folder``, once it stopped growing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    seen: Dict[str, int] = {}
    while True:
        for item in sorted(Path(folder).iterdir()):
            if not item.is_file():  # gone again, a folder, or a pipe that would hold everything up
                continue
            size = item.stat().st_size
            if item.suffix.lower() in PICTURES | ARRAYS and seen.get(item.name) != -1:
                if seen.get(item.name) == size:
                    seen[item.name] = -1
                    yield str(item), item
                else:
                    seen[item.name] = size
        time.sleep(pause)


def show(name: str, outputs: Dict[str, Any], model: Model, args: argparse.Namespace, spent: float) -> None:
    if args.json:
        best = [
            {"class": i, "label": label, "score": score} for i, label, score in model.top(outputs, args.top)
        ]
        line: Dict[str, Any] = {"input": name, "ms": round(spent * 1e3, 3), "top": best}
        if args.raw:
            line["outputs"] = {key: value.tolist() for key, value in outputs.items()}
        print(json.dumps(line), flush=True)
        return
    print(f"{visible(name)}  ({spent * 1e3:.1f} ms)", flush=True)
    if args.raw or next(iter(outputs.values())).size != next(iter(outputs.values())).shape[-1]:
        for key, value in outputs.items():
            print(f"  {visible(key)}: {list(value.shape)}, {value.min():.6g} to {value.max():.6g}")
        return
    for i, label, score in model.top(outputs, args.top):
        print(f"  {score:10.4f}  class {i}  {label}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the compiled network.")
    parser.add_argument("inputs", nargs="*", help="pictures, .npy, .npz, or folders of them")
    parser.add_argument(
        "--artifact", default="", help="which file of the bundle (default: the preferred one that runs)"
    )
    parser.add_argument("--engine", default="", help="onnxruntime, litert, tflite-runtime, tensorrt, ...")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--raw", action="store_true", help="outputs instead of classes")
    parser.add_argument("--json", action="store_true", help="one JSON line per input")
    parser.add_argument("--camera", action="store_true", help="one frame of the camera")
    parser.add_argument("--watch", metavar="FOLDER", help="run on every new file in FOLDER, for ever")
    args = parser.parse_args()
    if not args.inputs and not args.camera and not args.watch:
        parser.error("give pictures or arrays, --camera, or --watch FOLDER")
    model = Model(args.artifact, args.engine, args.threads)
    given: Iterator[Tuple[str, Any]] = sources(args.inputs)
    if args.watch:
        given = watch(args.watch, 0.5)
    elif args.camera:
        given = iter([("camera", camera_frame())])
    failed = 0
    for name, source in given:
        start = time.perf_counter()
        try:
            outputs = model(source)
        except Exception as error:  # noqa: BLE001  (decoders raise what they like; one bad file must not end the others' run)
            print(
                f"error: {visible(name)}: {visible(str(error) or type(error).__name__, 300)}",
                file=sys.stderr,
                flush=True,
            )
            failed = 3
            continue
        show(name, outputs, model, args, time.perf_counter() - start)
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AgentError as problem:
        print(f"error: {visible(str(problem))}", file=sys.stderr)
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)
