"""Picture files: what a header promises is judged before a pixel is decoded.

Only common still formats are read, by their content and not by their name: Pillow hands PostScript to an interpreter, for one. Of
several frames the first counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.graph.errors import DataError
from edgec.graph.files import open_regular, reason
from edgec.graph.preprocess import MOST_PIXELS, ORIENTATION, Preprocess
from edgec.graph.text import size

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

IGNORED = 255
"""In a mask: a pixel of no class, as PASCAL VOC and Cityscapes mark them."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
MOST_BYTES = 1 << 30
"""Of one file: twice what `MOST_PIXELS` of 16 bits in three channels take without compression."""
_HINT = "Remove it, or skip bad pictures with --skip-bad."


def check_picture(path: Path) -> None:
    """Read the header. Raises DataError, naming the file, for what is no picture or too large a one; no pixel is decoded."""
    with _opened(path):
        pass


def decode_picture(path: Path, preprocess: Preprocess) -> Array:
    """(height, width, channels), as `Preprocess.picture` makes them. Raises DataError, naming the file."""
    with _opened(path) as image:
        pixels = preprocess.picture(image)
        _check_size(image)  # a later part of the file may have made it larger
        return pixels


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture turned upright, from its header. Raises DataError, naming the file."""
    with _opened(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def decode_mask(path: Path, preprocess: Preprocess) -> Array:
    """(height, width) of class numbers, moved as `Preprocess` moves pictures. Raises DataError, naming the file."""
    with _opened(path) as image:
        if len(image.getbands()) > 1:
            why = f"it has {len(image.getbands())} channels"
            raise DataError("a mask holds one class number for each pixel", why=why)
        return preprocess.mask(image, IGNORED)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    what, where = "the picture cannot be read", str(path)
    try:
        with open_regular(path) as stream:
            length = os.fstat(stream.fileno()).st_size
            if length > MOST_BYTES:
                raise DataError(
                    "the picture is too large", why=f"{size(length)}; {size(MOST_BYTES)} are allowed"
                )
            with Image.open(stream, formats=FORMATS) as image:
                _check_size(image)
                yield image
    except DataError as error:
        raise DataError(error.what, where=where, why=error.why, hint=error.hint or _HINT) from None
    except UnidentifiedImageError:
        why = "it is empty" if not length else f"it is none of {', '.join(FORMATS)}"
        raise DataError(
            what, where=where, why=why, hint=_HINT.replace("Remove it", "Convert or remove it")
        ) from None
    except Image.DecompressionBombError as error:
        why = f"more than {MOST_PIXELS / 1e6:.0f} million pixels"
        raise DataError("the picture is too large", where=where, why=why, hint=_HINT) from error
    except OSError as error:
        raise DataError(what, where=where, why=reason(error), hint=_HINT) from error
    except Exception as error:  # Pillow's decoders raise a dozen of Python's classes over a damaged file
        raise DataError(what, where=where, why=f"{type(error).__name__}: {error}", hint=_HINT) from error


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise DataError("the picture is empty", why=f"{width}x{height} pixels")
    if width * height > MOST_PIXELS:
        why = f"{width}x{height} pixels; {MOST_PIXELS / 1e6:.0f} million are allowed"
        raise DataError("the picture is too large", why=why)
