"""The bytes of an ``.npz``: ``np.savez`` cannot take an array called 'file', and on a full disk complains twice."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np


def npz_bytes(arrays: Mapping[str, np.ndarray[Any, np.dtype[Any]]], *, compressed: bool = False) -> bytes:
    """``arrays`` by name, as ``np.load`` reads them; without dates, so that equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.save(stream, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()
