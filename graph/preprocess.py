"""From a picture or a stored array to the network's input, the same way here and on the device.

Order: decode, channels (RGB, BGR, grey), resize, crop, then ``(pixel * scale - mean) / std``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from edgec.graph import values
from edgec.graph.depth import is_deep, real_pixels
from edgec.graph.errors import DataError, UsageError
from edgec.graph.values import NotAdmitted, Range, several

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
Layout = Literal["auto", "nchw", "nhwc"]
Channels = Literal["rgb", "bgr", "gray", "rgba"]
Place = Literal["corner", "centre"]

MOST_PIXELS = 89_478_485
"""Of a picture, before and after resizing: 256 MiB in three channels, which is where Pillow begins to suspect a bomb."""
ORIENTATION = 0x0112
MEAN = Range(-1e9, 1e9)
FACTOR = Range(1e-9, 1e9)
"""Of ``scale`` and ``std``: neither turns float32 pixels into zeros or infinities."""
GREY = Range(0, 255)
ZOOM = Range(1e-4, 1e4)
_SAME_SHAPE = 0.02
"""Ratios of sides that differ by less are the same shape: sides are whole pixels."""


def read_numbers(raw: Any, within: Range) -> tuple[float, ...]:
    """``0.485,0.456,0.406``: one number, or one per channel; a fraction such as ``1/255`` is a number too."""
    found = several(raw, partial(values.number, within=within))
    if not found:
        raise NotAdmitted(raw, f"one number {within}, or one per channel")
    return found


def read_crop(raw: Any) -> tuple[int, int]:
    """``224`` or ``224x320``: height and width."""
    found = values.sizes(raw)
    return found[0], found[-1]


READERS: Mapping[str, Callable[[Any], Any]] = {
    "mean": partial(read_numbers, within=MEAN),
    "std": partial(read_numbers, within=FACTOR),
    "scale": partial(values.number, within=FACTOR),
    "layout": partial(values.word, words=get_args(Layout)),
    "resize": values.sizes,
    "crop": read_crop,
    "channels": partial(values.word, words=get_args(Channels)),
    "letterbox": partial(values.whole, within=GREY),
    "letterbox_at": partial(values.word, words=get_args(Place)),
    "zoom": lambda raw: values.several(raw, partial(values.number, within=ZOOM)),
}
"""What each setting is read by, here, in recipes, and on the command line."""


@dataclass(frozen=True)
class Preprocess:
    """What happens to raw pixels. Floating-point arrays are taken as already preprocessed; only ``layout`` applies to them.

    ``mean`` and ``std`` have one entry, or one per channel, in the order of ``channels``. ``resize`` is one number (the short
    side) or height and width; ``crop`` is the centre crop's height and width. With ``letterbox``, resizing keeps the aspect
    ratio and fills the rest with that grey level: at the bottom and the right (``letterbox_at`` ``corner``), or on both sides
    alike, rounded as Ultralytics does (``centre``).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    layout: Layout = "auto"
    resize: tuple[int, ...] | None = None
    crop: tuple[int, int] | None = None
    channels: Channels = "rgb"
    letterbox: int | None = None
    letterbox_at: Place = "corner"
    zoom: tuple[float, ...] = (1.0, 1.0)
    """Height and width before the crop are multiplied by these; nobody sets them: see `at`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            raw = getattr(self, item.name)
            if raw is None and item.default is None:
                continue
            try:
                object.__setattr__(self, item.name, READERS[item.name](raw))
            except NotAdmitted as error:
                raise UsageError(f"preprocessing: {item.name}: {error}") from None
        self._goes_together()

    def _goes_together(self) -> None:
        """Raise UsageError for settings of which one makes the other impossible."""
        if self.letterbox is None and self.letterbox_at != "corner":
            raise UsageError("--letterbox-at needs --letterbox", hint="Write --letterbox 114.")
        if self.letterbox is not None and (self.resize is None or len(self.resize) != 2):
            hint = "Write --resize 416x416."
            raise UsageError(
                "--letterbox needs --resize HEIGHTxWIDTH", why=f"resize is {self.resize}", hint=hint
            )
        if self.resize is None or self.crop is None or self.zooms:
            return
        # One size is the short side: of an oblong picture the other one may be long enough.
        lacks = (
            min(self.crop) > self.resize[0]
            if len(self.resize) == 1
            else any(part > size for part, size in zip(self.crop, self.resize, strict=True))
        )
        if lacks:
            what = "the crop is larger than what is left by --resize"
            hint = "Crop at most what --resize gives."
            raise UsageError(what, why=f"crop {_by(self.crop)} of {_by(self.resize)}", hint=hint)

    @property
    def zooms(self) -> bool:
        """Whether pictures are resized by a factor."""
        return self.zoom != (1.0, 1.0)

    def words(self) -> list[str]:
        """The command line's options that stand for this; what is the default is left out."""
        found: list[str] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value == item.default or item.name == "zoom":
                continue
            if isinstance(value, tuple):
                joint = "x" if item.name in ("resize", "crop") else ","
                value = joint.join(f"{one:.9g}" for one in value)
            text = f"{value:.9g}" if isinstance(value, float) else str(value)
            found += [f"--{item.name.replace('_', '-')}", text]
        return found

    @property
    def is_raw(self) -> bool:
        """Whether normalising changes nothing."""
        return self.scale == 1.0 and not any(self.mean) and all(value == 1.0 for value in self.std)

    def check_inputs(self, channels: Sequence[int]) -> None:
        """Raise UsageError where mean or std have neither one entry nor one per channel of an input.

        ``channels``: how many each input has.
        """
        counts = sorted(set(channels))
        for what, entries in (("mean", self.mean), ("std", self.std)):
            if counts and len(entries) not in (1, *counts):
                why = f"the model's input has {' or '.join(map(str, counts))} channels"
                hint = "Give one number, or one per channel."
                raise UsageError(f"--{what} has {len(entries)} entries", why=why, hint=hint)

    def at(self, old: tuple[int, int], new: tuple[int, int]) -> Preprocess:
        """The same view of a picture for an input of height and width ``new`` in place of ``old``.

        1. Without a crop, what is left has the input's size: it gets the new one (also in a letterbox).
        2. A crop is scaled, and with it what it is cut from: both sides, or the short one.
        3. A crop of pictures as they are, or another shape of one from a short side: what it is cut from is multiplied.

        Each picture is resized once, from its own pixels. Raises UsageError for a letterbox of another shape: places in it are
        not those of the old one.
        """
        if new == old:
            return self
        tall, wide = new[0] / old[0], new[1] / old[1]
        if self.letterbox is not None and abs(tall / wide - 1) > _SAME_SHAPE:
            hint = "Give a size of the same shape, or leave --letterbox out."
            raise UsageError("a letterbox keeps its shape", why=f"{_by(old)} becomes {_by(new)}", hint=hint)
        if self.crop is None:
            return replace(self, resize=new)
        sizes = self.resize
        if sizes is None or (len(sizes) == 1 and abs(tall / wide - 1) > _SAME_SHAPE):
            return replace(self, crop=new, zoom=(tall, wide))
        if len(sizes) == 2:
            resize = (max(round(sizes[0] * tall), new[0]), max(round(sizes[1] * wide), new[1]))
            return replace(self, resize=resize, crop=new)
        return replace(self, resize=(max(round(sizes[0] * max(tall, wide)), min(new)),), crop=new)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, as in the recipe."""
        found = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        if self.letterbox_at == "corner":
            del found["letterbox_at"]  # files of edgec 0.1 say the same without it
        if not self.zooms:
            del found["zoom"]
        return found

    def picture(self, image: Image.Image) -> Array:
        """Decode one picture to (height, width, channels): uint8, or float32 up to 255 where it has more bits (`depth`)."""
        from PIL import Image as Pillow

        written_as, image = image.format, _upright(image)
        mode = {"gray": "L", "rgba": "RGBA"}.get(self.channels, "RGB")
        deep = is_deep(image)
        if deep:
            image = real_pixels(image, written_as)
        elif image.mode != mode:  # each step that has nothing to do would copy all pixels
            image = image.convert(mode)
        if self.resize is not None or self.zooms:
            image = self._resized(image, Pillow.Resampling.BILINEAR)
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if deep and mode != "L":
            opaque = [np.full_like(pixels, 255)] if mode == "RGBA" else []
            pixels = np.concatenate([pixels] * 3 + opaque, axis=2)
        if self.crop is not None:
            pixels = self._cropped(pixels)
        return pixels[:, :, ::-1] if self.channels == "bgr" else pixels

    def normalise(self, pixels: Array) -> Array:
        """Raw values (..., channels) to float32, channels last. Raises UsageError where mean or std are for other channels."""
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != 1 and len(numbers) != pixels.shape[-1]:
                why = f"{len(numbers)} numbers for {pixels.shape[-1]} channels"
                raise UsageError(f"--{what} does not fit the data", why=why)
        out = pixels.astype(np.float32)
        if self.scale != 1.0:
            out *= np.float32(self.scale)
        if any(self.mean):
            out -= np.asarray(self.mean, np.float32)
        if any(value != 1.0 for value in self.std):
            out /= np.asarray(self.std, np.float32)
        return out

    def resized_to(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Of a picture: its new width and height, its corner (x, y) on the canvas, and the canvas's width and height."""
        sizes = self.resize or (height, width)
        if len(sizes) == 1:
            short = sizes[0]
            ratio = short / min(width, height)
            sizes = (max(short, round(height * ratio)), max(short, round(width * ratio)))
        if self.zooms and self.crop is not None:
            sides = zip(sizes, self.zoom, self.crop, strict=True)
            sizes = tuple(
                max(round(side * zoom), part if side * zoom > part - 1 else 1) for side, zoom, part in sides
            )
        canvas = (sizes[1], sizes[0])
        if self.letterbox is None:
            return canvas, (0, 0), canvas
        ratio = min(canvas[0] / width, canvas[1] / height)
        if self.letterbox_at == "centre":
            wide, high = max(1, round(width * ratio)), max(1, round(height * ratio))
            corner = (round((canvas[0] - wide) / 2 - 0.1), round((canvas[1] - high) / 2 - 0.1))
            return (wide, high), corner, canvas
        return (max(1, int(width * ratio)), max(1, int(height * ratio))), (0, 0), canvas

    def _resized(self, image: Image.Image, how: Any, grey: int | None = None) -> Image.Image:
        from PIL import Image as Pillow

        made, corner, canvas = self.resized_to(image.width, image.height)
        _check_pixels(image, *canvas)
        # By channel where one of them is alpha: together, Pillow weighs colours with it, and what it hides is lost.
        bands = image.split() if image.mode == "RGBA" else (image,)
        resized = [band.resize(made, how) for band in bands]
        fitted = Pillow.merge("RGBA", resized) if len(resized) > 1 else resized[0]
        if self.letterbox is None:
            return fitted
        level = self.letterbox if grey is None else grey
        colours = (level,) * min(len(image.getbands()), 3) + (255,) * (image.mode == "RGBA")
        ground = Pillow.new(image.mode, canvas, level if len(colours) == 1 else colours)
        ground.paste(fitted, corner)
        return ground

    def mask(self, image: Image.Image, ignored: int) -> Array:
        """A mask of class numbers (one band), moved as the picture that it belongs to is; what no pixel covers is ``ignored``."""
        from PIL import Image as Pillow

        image = _upright(image)
        if self.resize is not None or self.zooms:
            image = self._resized(image, Pillow.Resampling.NEAREST, ignored)
        pixels = np.asarray(image)
        return pixels if self.crop is None else self._cropped(pixels)

    def _cropped(self, pixels: Array) -> Array:
        height, width = cast("tuple[int, int]", self.crop)
        if pixels.shape[0] < height or pixels.shape[1] < width:
            why = f"the picture has {pixels.shape[0]}x{pixels.shape[1]}, the crop needs {height}x{width}"
            raise DataError("too small to crop", why=why, hint="Add --resize.")
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        return pixels[top : top + height, left : left + width]


def resized_numbers(pixels: Array, size: tuple[int, int]) -> Array:
    """Prepared float32 pixels (height, width, channels) at another height and width: as pictures are, without rounding."""
    from PIL import Image as Pillow

    height, width = size
    planes = [
        np.asarray(
            Pillow.fromarray(np.ascontiguousarray(plane)).resize((width, height), Pillow.Resampling.BILINEAR)
        )
        for plane in np.moveaxis(pixels, -1, 0)
    ]
    return np.stack(planes, axis=-1)


def _upright(image: Image.Image) -> Image.Image:
    """The picture with its pixels read, turned as its header says."""
    from PIL import ImageOps

    image.getexif()  # while the file is open: Pillow 10.0 closes a TIFF once its pixels are read
    image.load()
    return image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)


def _check_pixels(image: Image.Image, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        why = f"{image.width}x{image.height} becomes {width}x{height} pixels; {MOST_PIXELS / 1e6:.0f} million are allowed"
        raise DataError("the resized picture is too large", why=why)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
