"""From a picture or an array to the network's input, as at compile time: the same steps, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np
from contents import AgentError

Json = Dict[str, Any]


class Preparation:
    """``steps``: the preprocessing of bundle.json. A floating-point array is taken as prepared already: only its layout is
    looked at."""

    def __init__(self, steps: Json) -> None:
        self.steps = steps

    def file(self, path: Path) -> Any:
        """Pixels of a picture file, normalised, (height, width, channels)."""
        from PIL import Image

        # Not by name: then Pillow maps an uncompressed TIFF, and garbles one that is turned on its side.
        with path.open("rb") as stream, Image.open(stream) as image:
            return self.normalise(self.picture(image))

    def array(self, array: Any, spec: Json) -> Any:
        """One sample, with or without a leading axis of 1, as the input ``spec`` of bundle.json takes it."""
        shape = tuple(spec["shape"])
        array = array[0] if array.ndim == len(shape) + 1 and len(array) == 1 else array
        if len(shape) != 3:
            if array.size == 1 and all(size == 1 for size in shape):
                array = array.reshape(shape)  # a number, under whatever shape
            whole = spec["dtype"].startswith("float") and array.dtype.kind in "iu"
            return self.normalise(array) if whole else array
        if array.ndim == 4:
            raise AgentError(
                "data", f"one sample at a time: the array has {len(array)} of {list(array.shape[1:])}"
            )
        if array.ndim != 3:
            raise AgentError("data", f"input {spec['name']!r} must be {list(shape)}, not {list(array.shape)}")
        if array.dtype.kind == "f":
            return self.placed(
                np.moveaxis(array, 0, -1) if self._is_first(array.shape, spec) else array, spec
            )
        if self.steps["resize"] or self.steps["crop"]:
            from PIL import Image

            if array.dtype != np.uint8:
                raise AgentError("data", f"only uint8 pictures can be resized, not {array.dtype}")
            first = self.steps["layout"] == "nchw" or (
                self.steps["layout"] == "auto"
                and array.shape[0] in ((1, 4) if self.steps["channels"] == "rgba" else (1, 3))
            )
            pixels = np.ascontiguousarray(np.moveaxis(array, 0, -1) if first else array)
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            return self.placed(self.normalise(self.picture(image)), spec)
        pixels = np.moveaxis(array, 0, -1) if self._is_first(array.shape, spec) else array
        pixels = pixels[..., ::-1] if self.steps["channels"] == "bgr" else pixels
        return self.placed(self.normalise(pixels), spec)

    def placed(self, pixels: Any, spec: Json) -> Any:
        """(height, width, channels) in the network's own layout."""
        return pixels if spec["channels_last"] else np.moveaxis(pixels, -1, 0)

    def _is_first(self, shape: Tuple[int, ...], spec: Json) -> bool:
        """Whether a sample of this shape is (channels, height, width). What the network itself takes is tried first."""
        own = tuple(spec["shape"])
        last = own if spec["channels_last"] else (*own[1:], own[0])
        fits_first, fits_last = shape == (last[2], *last[:2]), shape == last
        layout = self.steps["layout"]
        if layout == "auto" and (fits_first or fits_last):
            return not fits_last if spec["channels_last"] else fits_first
        if (layout == "nchw" and fits_first) or (layout == "nhwc" and fits_last):
            return bool(layout == "nchw")
        raise AgentError("data", f"input {spec['name']!r} must be {list(own)}, not {list(shape)}")

    def picture(self, image: Any) -> Any:
        """Decode as at compile time: rotate as the camera says, channels, resize, centre crop."""
        from PIL import Image, ImageOps

        steps = self.steps
        written_as, image = image.format, ImageOps.exif_transpose(image)
        mode = {"gray": "L", "rgba": "RGBA"}.get(steps["channels"], "RGB")
        deep = image.mode == "F" or image.mode.startswith("I")
        image = self._real(image, written_as) if deep else image.convert(mode)
        sizes, bilinear = steps["resize"], getattr(Image, "Resampling", Image).BILINEAR
        if steps.get("zoom") or (sizes and len(sizes) == 1):
            image = _resized(image, self._sides(image.size)[::-1], bilinear)
        elif sizes and steps["letterbox"] is None:
            image = _resized(image, (sizes[1], sizes[0]), bilinear)
        elif sizes:
            image = self._letterboxed(image, sizes[0], sizes[1], bilinear)
        pixels = np.asarray(image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if deep and mode != "L":
            opaque = [np.full_like(pixels, 255)] if mode == "RGBA" else []
            pixels = np.concatenate([pixels] * 3 + opaque, axis=2)
        if steps["crop"]:
            height, width = steps["crop"]
            top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
            if top < 0 or left < 0:
                raise AgentError("data", f"the picture is smaller than the crop of {height}x{width}")
            pixels = pixels[top : top + height, left : left + width]
        return pixels[:, :, ::-1] if steps["channels"] == "bgr" else pixels

    def _real(self, image: Any, written_as: Any) -> Any:
        """Pixels of 16 bits as real numbers up to 255; real numbers as they stand."""
        from PIL import Image

        if image.mode == "F":
            return image
        if image.mode == "I" and written_as not in ("PNG", "PPM"):
            raise AgentError(
                "data", "a picture of whole numbers of 32 bits, or with a sign, has no known range"
            )
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))

    def _sides(self, size: Tuple[int, int]) -> Tuple[int, int]:
        """Height and width that a picture of this width and height is resized to, before the crop."""
        sizes = self.steps["resize"] or size[::-1]
        if len(sizes) == 1:
            ratio = sizes[0] / min(size)
            sizes = [max(sizes[0], round(side * ratio)) for side in size[::-1]]
        if self.steps.get("zoom"):
            sides = zip(sizes, self.steps["zoom"], self.steps["crop"])
            sizes = [
                max(round(one * zoom), part if one * zoom > part - 1 else 1) for one, zoom, part in sides
            ]
        return sizes[0], sizes[1]

    def _letterboxed(self, image: Any, height: int, width: int, how: Any) -> Any:
        """Fitted into height and width, the rest grey: at the bottom and the right, or on both sides alike."""
        from PIL import Image

        ratio = min(width / image.width, height / image.height)
        bands = len(image.getbands())
        grey = (self.steps["letterbox"],) * min(bands, 3) + (255,) * (bands == 4)
        canvas = Image.new(image.mode, (width, height), grey[0] if bands == 1 else grey)
        if self.steps.get("letterbox_at") == "centre":
            size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
            corner = (round((width - size[0]) / 2 - 0.1), round((height - size[1]) / 2 - 0.1))
        else:
            size, corner = (max(1, int(image.width * ratio)), max(1, int(image.height * ratio))), (0, 0)
        canvas.paste(_resized(image, size, how), corner)
        return canvas

    def normalise(self, pixels: Any) -> Any:
        """Raw values, channels last, to (value * scale - mean) / std; whole numbers stay where that changes nothing."""
        mean, std = (np.asarray(self.steps[key], np.float32) for key in ("mean", "std"))
        if self.steps["scale"] == 1 and not mean.any() and (std == 1).all():
            return pixels
        return (pixels.astype(np.float32) * np.float32(self.steps["scale"]) - mean) / std


def _resized(image: Any, size: Tuple[int, int], how: Any) -> Any:
    """By channel where one of them is alpha: together, Pillow weighs colours with it."""
    from PIL import Image

    if image.mode != "RGBA":
        return image.resize(size, how)
    return Image.merge("RGBA", [band.resize(size, how) for band in image.split()])


def typed(name: str, array: Any, dtype: Any) -> Any:
    """``array`` in the type that an input takes. Raises AgentError for what it cannot hold."""
    if dtype.kind == "f" or array.dtype == dtype:
        return np.ascontiguousarray(array, dtype)
    held = array.astype(dtype)
    if not np.array_equal(held.astype(np.float64), array.astype(np.float64)):
        raise AgentError("data", f"input {name!r} takes {dtype}, and the sample holds other numbers")
    return np.ascontiguousarray(held)
