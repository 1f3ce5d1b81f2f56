"""NVIDIA's ModelOpt on one file, in an environment of its own: called by bench/tensorrt.py, imports nothing of edgec.

usage: PYTHON tensorrt_modelopt.py SOURCE.onnx DATA.npz MADE.onnx max|entropy
"""

from __future__ import annotations

import sys

import numpy as np
from modelopt.onnx.quantization import quantize


def main() -> None:
    """Its own defaults, but for the type of what is not int8: float32, so that quantisation alone is compared."""
    source, data, made, method = sys.argv[1:]
    arrays = dict(np.load(data))
    quantize(
        source,
        quantize_mode="int8",
        calibration_data=arrays,
        calibration_method=method,
        calibration_eps=["cpu"],
        output_path=made,
        high_precision_dtype="fp32",
        log_level="ERROR",
    )


if __name__ == "__main__":
    main()
