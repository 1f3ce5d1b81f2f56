"""Second moments of a layer's inputs and targets: all that the corrections need to know of the data.

For output pixel rows with input patch ``p`` (and a constant 1 behind it) and target ``t``: ``H = sum p p'``,
``G = sum p t'``, ``T = sum t^2``. The squared error of any weights follows from them, so held-out moments judge a fit
without its rows. Grouped convolutions have one ``H`` per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Geometry:
    """How a linear layer reads its input; a fully connected layer is a 1x1 convolution on one pixel."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int

    def rows(self, x: Array, chosen: Array) -> Array:
        """Patches of ``x`` (n, c, h, w) at output pixels ``chosen`` (flat over n, oh, ow): (r, c, k)."""
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        height, width = self.output(x.shape[2], x.shape[3])
        image, pixel = np.divmod(chosen, height * width)
        y, z = np.divmod(pixel, width)
        ky, kx = (a.ravel() for a in np.indices(self.kernel))
        rows = y[:, None] * self.strides[0] + ky * self.dilations[0]
        columns = z[:, None] * self.strides[1] + kx * self.dilations[1]
        return padded[image[:, None], :, rows, columns].transpose(0, 2, 1)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Output size for an input size."""
        top, left, bottom, right = self.pads
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        return (
            (height + top + bottom - spans[0]) // self.strides[0] + 1,
            (width + left + right - spans[1]) // self.strides[1] + 1,
        )


class Moments:
    """``H`` (g, d+1, d+1), ``G`` (g, d+1, o) and ``T`` (g, o) in float64, ``d`` inputs per group, the constant last."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self.H = np.zeros((groups, inputs + 1, inputs + 1))
        self.G = np.zeros((groups, inputs + 1, outputs))
        self.T = np.zeros((groups, outputs))
        self.rows = 0

    def add(self, patches: Array, targets: Array) -> None:
        """Patches (r, g, d) and targets (r, g, o), float32."""
        ones = np.ones((*patches.shape[:2], 1), np.float32)
        p = np.ascontiguousarray(np.concatenate([patches, ones], axis=2).transpose(1, 2, 0))
        t = np.ascontiguousarray(targets.transpose(1, 0, 2))
        self.H += p @ p.transpose(0, 2, 1)
        self.G += p @ t
        self.T += np.einsum("gro,gro->go", t, t, dtype=np.float64)
        self.rows += len(patches)

    def error(self, W: Array) -> Array:
        """Sum of squared errors of ``W`` (g, o, d+1) per group and output."""
        quadratic = np.einsum("god,god->go", W @ self.H, W)
        return quadratic - 2.0 * np.einsum("god,gdo->go", W, self.G) + self.T

    def centred(self) -> tuple[Array, Array, Array]:
        """Covariances over the rows with the constant taken out: (Hc, mean input, mean target)."""
        n = max(self.rows, 1)
        mean = self.H[:, :-1, -1] / n
        Hc = self.H[:, :-1, :-1] - n * mean[:, :, None] * mean[:, None, :]
        return Hc, mean, self.G[:, -1, :] / n
