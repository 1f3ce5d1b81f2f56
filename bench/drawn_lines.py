"""Pictures of text, drawn: what networks that find or read text are calibrated and judged on where no set of them is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

HEIGHT, WIDTH = 48, 320
_TEXT = (
    "invoice total amount paid street number train platform north south exit open closed daily fresh bread coffee milk sugar "
    "water please return before after customer service receipt thank you welcome warning high voltage keep out fragile this side "
    "up battery serial model made in weight net price each ticket adult child morning evening monday friday january august"
)
_WORDS = _TEXT.split()


def draw_lines(place: Path, count: int, seed: int) -> Path:
    """``count`` pictures of 48 x 320: words and figures in changing size, ink, paper, slant, sharpness and noise."""
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        file = place / f"{number:03d}.png"
        if not file.exists():
            _line(rng).save(file)
    return place


def draw_pages(place: Path, behind: Sequence[Path], size: int, seed: int) -> Path:
    """Each photograph of ``behind`` cut to ``size`` x ``size``, with three to ten lines of text on it, half of them on signs."""
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for photograph in behind:
        file = place / f"{photograph.stem}.png"
        if not file.exists():
            with Image.open(photograph) as picture:
                _page(ImageOps.fit(picture.convert("RGB"), (size, size)), rng).save(file)
    return place


def _page(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    for _ in range(int(rng.integers(3, 11))):
        font, text = ImageFont.load_default(size=float(rng.uniform(12, 44))), _text(rng)
        left, top, right, bottom = (int(one) for one in font.getbbox(text))
        ink, paper = ((20, 240), (240, 20))[int(rng.random() < 0.5)]
        sign = Image.new(
            "RGBA",
            (right - left + 16, bottom - top + 12),
            (paper, paper, paper, 255 * int(rng.random() < 0.5)),
        )
        tint = tuple(int(np.clip(ink + rng.integers(-60, 61), 0, 255)) for _ in range(3))
        ImageDraw.Draw(sign).text((8 - left, 6 - top), text, fill=tint, font=font)
        turned = sign.rotate(float(rng.uniform(-8, 8)), Image.Resampling.BICUBIC, expand=True)
        place = tuple(
            int(rng.integers(0, max(1, whole - part)))
            for whole, part in zip(picture.size, turned.size, strict=True)
        )
        picture.paste(turned, place, turned)
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.0))))


def _line(rng: np.random.Generator) -> Image.Image:
    """One line, turned by up to three degrees."""
    dark, light = (int(one) for one in (rng.integers(0, 90), rng.integers(150, 256)))
    ink, paper = (dark, light) if rng.random() < 0.8 else (light, dark)
    picture = Image.new("RGB", (WIDTH, HEIGHT), (paper, paper, paper))
    font = ImageFont.load_default(size=float(rng.uniform(16, 34)))
    text = _text(rng)
    while font.getlength(text) > WIDTH - 16:
        text = text[: text.rfind(" ")] if " " in text else text[:-1]
    tall = font.getbbox(text)[3]
    tint = tuple(int(np.clip(ink + rng.integers(-25, 26), 0, 255)) for _ in range(3))
    ImageDraw.Draw(picture).text((8, (HEIGHT - tall) / 2 - 2), text, fill=tint, font=font)
    picture = picture.rotate(float(rng.uniform(-3, 3)), Image.Resampling.BICUBIC, fillcolor=(paper,) * 3)
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.2))))
    noisy = np.asarray(picture, np.float64) + rng.normal(0, rng.uniform(0, 12), (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _text(rng: np.random.Generator) -> str:
    parts = [str(rng.choice(_WORDS)) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.6:
        parts.insert(
            int(rng.integers(0, len(parts) + 1)), f"{rng.integers(0, 10_000) / rng.choice([1, 10, 100]):g}"
        )
    text = " ".join(parts)
    return [text, text.upper(), text.title()][int(rng.integers(0, 3))]
