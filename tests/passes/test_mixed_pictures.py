"""Mixing calibration pictures: what the network takes is what it gets."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.refit.batches import blended, mirrored


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint8", "int64"])
def test_mixed_pictures_keep_their_type(kind: str) -> None:
    pictures = np.random.default_rng(0).integers(0, 9, (4, 3, 5, 5)).astype(kind)
    mixed = blended({"x": pictures}, 0)["x"]
    assert mixed.dtype == pictures.dtype
    assert not np.array_equal(mixed, pictures)


def test_pictures_are_mirrored_left_to_right_in_either_layout() -> None:
    first = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    feeds = {"first": first, "last": first.transpose(0, 2, 3, 1), "ids": np.arange(2)}
    turned = mirrored(feeds, frozenset({"last"}))
    np.testing.assert_array_equal(turned["first"], first[..., ::-1])
    np.testing.assert_array_equal(turned["last"].transpose(0, 3, 1, 2), first[..., ::-1])
    np.testing.assert_array_equal(turned["ids"], np.arange(2))
