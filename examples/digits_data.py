"""Write the data of the demo from scikit-learn's digits: examples/digits/calib.npz and examples/digits/eval.npz.

    pip install scikit-learn
    python examples/digits_data.py

The demo itself reads only the two files, so that it needs neither scikit-learn nor a download.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "digits"
HELD_OUT = 500
"""Pictures kept for evaluation; the network never sees them in training."""
CALIBRATION = 400
"""Pictures, out of the training part and without labels, that edgec gets."""


class Split(NamedTuple):
    """Pictures (n, 1, 8, 8), float32 from 0 to 1, and labels (n,), int64."""

    train_x: np.ndarray[Any, Any]
    train_y: np.ndarray[Any, Any]
    eval_x: np.ndarray[Any, Any]
    eval_y: np.ndarray[Any, Any]


def load_split() -> Split:
    """The 1797 digits in a fixed shuffled order, cut into training and evaluation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = (digits.images[:, None] / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return Split(pictures[rest], labels[rest], pictures[held], labels[held])


def main() -> None:
    """Write both files."""
    split = load_split()
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "calib.npz", x=split.train_x[:CALIBRATION])
    np.savez_compressed(FOLDER / "eval.npz", x=split.eval_x, y=split.eval_y)
    for name in ("calib.npz", "eval.npz"):
        print(f"{FOLDER.name}/{name}: {(FOLDER / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
