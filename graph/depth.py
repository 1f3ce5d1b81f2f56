"""Pictures whose pixels are no bytes: 16 bits, as cameras for heat, X-rays and depth write them, and real numbers.

They become real numbers of the range that bytes have: 65535 is 255.0, and what lies between two bytes stays there. Pillow alone
would cut them off at 255. Real numbers stay as they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgec.graph.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

LEVELS = 65535 / 255


def is_deep(image: Image.Image) -> bool:
    """Whether a channel of the picture has more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def real_pixels(image: Image.Image, written_as: str | None) -> Image.Image:
    """The same picture in mode ``F``, its pixels read. ``written_as``: the format of its file.

    Raises DataError for whole numbers of 32 bits, of which nobody can know what stands for white.
    """
    from PIL import Image as Pillow

    if image.mode == "F":
        return image
    if image.mode == "I" and written_as not in (
        "PNG",
        "PPM",
    ):  # there it is what older releases of Pillow call 16 bits
        what, why = "the picture has no known range", "whole numbers of 32 bits, or with a sign"
        raise DataError(
            what, why=why, hint="Write it with 16 bits, or as real numbers, or give arrays (.npz)."
        )
    return Pillow.fromarray(np.asarray(image).astype(np.float32) / np.float32(LEVELS))
