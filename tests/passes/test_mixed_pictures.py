"""Mixing calibration pictures: what the network takes is what it gets."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.refit.layer_fits import blended


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint8", "int64"])
def test_mixed_pictures_keep_their_type(kind: str) -> None:
    pictures = np.random.default_rng(0).integers(0, 9, (4, 3, 5, 5)).astype(kind)
    mixed = blended({"x": pictures}, 0)["x"]
    assert mixed.dtype == pictures.dtype
    assert not np.array_equal(mixed, pictures)
