"""Whether doubts about inputs are right: real networks, each with right and wrong preparations of real inputs.

python bench/plausibility.py     a table; needs ../shared/data
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgec.compiler.evaluate.plausibility import doubts_about
from edgec.graph.data import open_data
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess

DATA = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
UNIT: dict[str, Any] = {"scale": 1 / 255}
SYMMETRIC: dict[str, Any] = {"scale": 1 / 127.5, "mean": (1.0,)}
IMAGENET: dict[str, Any] = {**UNIT, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BGR: dict[str, Any] = {"channels": "bgr"}
CROP: dict[str, Any] = {"crop": (224, 224)}
BOX: dict[str, Any] = {"resize": (416, 416), "letterbox": 114}
Ways = tuple[tuple[str, dict[str, Any]], ...]

CIFAR: Ways = (("right", IMAGENET), ("raw", {}), ("1/255", UNIT), ("blue first", {**IMAGENET, **BGR}))

SETS: tuple[tuple[str, str, Ways], ...] = (
    ("resnet20_cifar10", "cifar10/calib.npz", CIFAR),
    ("nin_cifar10", "cifar10/calib.npz", CIFAR),
    ("resnet8_cifar10", "cifar10/calib.npz", (("right", {}), ("1/255", UNIT), ("blue first", BGR))),
    ("vww_mobilenet_v1_0.25_96", "vww/calib.npz", (("right", UNIT), ("raw", {}), ("-1 to 1", SYMMETRIC))),
    ("kws_dscnn", "kws/calib.npz", (("right", {"layout": "nhwc"}),)),
    ("mobilenet_v1_0.75_224", "imagenet/calib", (
        ("right", {**CROP, **SYMMETRIC}), ("raw", CROP), ("1/255", {**CROP, **UNIT}),
        ("blue first", {**CROP, **SYMMETRIC, **BGR}),
    )),
    ("yolox_nano", "detect/coco_val100", (("right", {**BOX, **BGR}), ("red first", BOX), ("1/255", {**BOX, **UNIT}))),
    ("ultraface_rfb320", "detect/coco_val100", (
        ("right", {"resize": (240, 320), "mean": (127.0,), "std": (128.0,)}), ("raw", {"resize": (240, 320)}),
    )),
)  # fmt: skip


def main() -> None:
    print("| network | given | said | s |")
    print("|---|---|---|---:|")
    for network, data, ways in SETS:
        model = load(DATA / "models" / f"{network}.onnx")
        for name, how in ways:
            began = time.perf_counter()
            found = doubts_about(model, open_data(DATA / data, model, Preprocess(**how)), 1)
            told = (
                "; ".join(f"try `{one.options}`" if one.options else one.text for one in found) or "nothing"
            )
            print(f"| {network} | {name} | {told} | {time.perf_counter() - began:.1f} |", flush=True)


if __name__ == "__main__":
    main()
