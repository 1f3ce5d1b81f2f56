"""How an answer looks: one small function for each kind, which gives words, and what is drawn over the picture.

An answer is a JSON object as the task writes it. The first kind of `KINDS` whose key it has draws it; a new kind of answer is one
more function there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Answer = Mapping[str, Any]
NOTHING = Markup("")
SHOWN = 3
"""Boxes, labels or numbers of one answer that are named in words."""
LONGEST_LINE = 40
"""Characters of a line of text that are shown."""
MOST_PIXELS = 1 << 16
"""Of a mask: it is drawn row by row."""
COLOURS = 6
"""Colours of classes in the page's style."""


@dataclass(frozen=True)
class Scene:
    """What an answer is drawn on: the size of the network's picture in pixels, and the names of classes."""

    height: int
    width: int
    names: Sequence[str] = ()

    def name(self, label: Any) -> str:
        """A class in words where the model has them, else its number."""
        known = isinstance(label, int) and 0 <= label < len(self.names)
        return self.names[label] or str(label) if known else f"class {label}"


@dataclass(frozen=True)
class Drawn:
    """``words`` beside the picture, and shapes in the picture's pixels, drawn over it."""

    words: str
    shapes: Markup = NOTHING


def drawn(answer: Answer, scene: Scene) -> Drawn:
    """An answer as it is shown; nothing for a kind that is not known here, or that does not hold what it should."""
    for key, draw in KINDS.items():
        if key in answer:
            try:
                return draw(answer, scene)
            except (TypeError, ValueError, LookupError, ArithmeticError):  # report.json may come from anybody
                return Drawn("?")
    return Drawn("")


def one_class(answer: Answer, scene: Scene) -> Drawn:
    """``{"class": 3, "score": 0.93}``"""
    return Drawn(f"{scene.name(answer['class'])} {_score(answer['score'])}")


def labels(answer: Answer, scene: Scene) -> Drawn:
    """``{"labels": [1, 4], "scores": [0.9, 0.6]}``"""
    ranked = sorted(zip(answer["labels"], answer["scores"], strict=True), key=lambda pair: -pair[1])
    words = [f"{scene.name(label)} {_score(score)}" for label, score in ranked[:SHOWN]]
    return Drawn(_listed(words, len(ranked)) or "no label")


def boxes(answer: Answer, scene: Scene) -> Drawn:
    """``{"boxes": [[x1, y1, x2, y2], ...], "scores": [...], "classes": [...]}``; in pixels, or in shares of the picture."""
    found = list(zip(answer["boxes"], answer["scores"], answer["classes"], strict=True))
    share = max((abs(float(side)) for corners, _, _ in found for side in corners), default=0.0) <= 4
    wide, tall = (scene.width, scene.height) if share else (1, 1)
    shapes = Markup("")
    for corners, _, label in found:
        left, top, right, bottom = (_finite(side) for side in corners)
        place = _attributes(
            x=left * wide,
            y=top * tall,
            width=max(0.0, right - left) * wide,
            height=max(0.0, bottom - top) * tall,
        )
        shapes += Markup('<rect class="c{}" {}/>').format(_colour(label), place)
    ranked = sorted(found, key=lambda one: -one[1])
    words = _listed(
        [f"{scene.name(label)} {_score(score)}" for _, score, label in ranked[:SHOWN]], len(found)
    )
    return Drawn(words or "no box", shapes)


def mask(answer: Answer, scene: Scene) -> Drawn:
    """``{"mask": {"size": [rows, columns], "runs": [[class, pixels], ...]}}``: row by row; class 0 is not painted."""
    rows, columns = (int(side) for side in answer["mask"]["size"])
    if not 0 < rows * columns <= MOST_PIXELS or columns < 1:
        raise ValueError("not the size of a mask")
    across, down = scene.width / columns, scene.height / rows
    shapes, place = NOTHING, 0
    seen: dict[Any, int] = {}
    for label, length in answer["mask"]["runs"]:
        seen[label] = seen.get(label, 0) + int(length)
        for row, start, stop in _rows(place, int(length), columns, rows) if label else ():
            where = _attributes(
                x=start * across, y=row * down, width=(stop - start) * across, height=down * 1.02
            )
            shapes += Markup('<rect class="m c{}" {}/>').format(_colour(label), where)
        place += int(length)
    ranked = sorted((pixels, label) for label, pixels in seen.items())[::-1]
    words = [f"{scene.name(label)} {pixels / max(1, place):.0%}" for pixels, label in ranked[:SHOWN]]
    return Drawn(_listed(words, len(ranked)), shapes)


def keypoints(answer: Answer, scene: Scene) -> Drawn:
    """``{"keypoints": [[x, y, score], ...]}`` in pixels."""
    shapes = Markup("")
    radius = max(scene.width, scene.height) / 60
    for number, (x, y, *_) in enumerate(answer["keypoints"]):
        place = _attributes(cx=_finite(x), cy=_finite(y), r=radius)
        shapes += Markup('<circle class="c{}" {}/>').format(number % COLOURS, place)
    return Drawn(f"{len(answer['keypoints'])} points", shapes)


def numbers(answer: Answer, scene: Scene) -> Drawn:
    """``{"numbers": [1.2, 3.4]}``"""
    found = [f"{float(one):.4g}" for one in answer["numbers"]]
    return Drawn(_listed(found[:SHOWN], len(found)))


def text(answer: Answer, scene: Scene) -> Drawn:
    """``{"text": [17, 4, 4, 31]}``: characters by their number; a number behind the alphabet is a space, as PaddleOCR has it."""
    letters = [int(one) for one in answer["text"]]
    if any(one < 0 for one in letters):
        raise ValueError("not a character")
    if not scene.names:
        return Drawn(f"{len(letters)} characters")
    read = "".join(scene.names[one] if one < len(scene.names) else " " for one in letters)
    return Drawn(f"“{read[:LONGEST_LINE]}{'…' * (len(read) > LONGEST_LINE)}”" if letters else "no text")


def _rows(place: int, length: int, columns: int, rows: int) -> list[tuple[int, int, int]]:
    """A run, cut at the ends of rows: (row, first column, column behind the last)."""
    found, stop = [], min(place + length, columns * rows)
    while place < stop:
        row, column = divmod(place, columns)
        upto = min(columns, column + stop - place)
        found.append((row, column, upto))
        place += upto - column
    return found


def _score(score: Any) -> str:
    return f"{100 * float(score):.0f}%"


def _colour(label: Any) -> int:
    return int(label) % COLOURS


def _finite(side: Any) -> float:
    value = float(side)
    if not math.isfinite(value):
        raise ValueError("not a place in a picture")
    return value


def _attributes(**places: float) -> Markup:
    return Markup(" ").join(Markup('{}="{}"').format(name, f"{value:.1f}") for name, value in places.items())


def _listed(words: Sequence[str], count: int) -> str:
    more = count - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


KINDS: Mapping[str, Callable[[Answer, Scene], Drawn]] = {
    "class": one_class,
    "boxes": boxes,
    "mask": mask,
    "keypoints": keypoints,
    "labels": labels,
    "numbers": numbers,
    "text": text,
}
"""By the key that only this kind of answer has."""


def overlay(shapes: Markup, scene: Scene) -> Markup:
    """The shapes as a picture of their own, to be laid over the input."""
    if not shapes:
        return Markup("")
    return Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>').format(
        escape(scene.width), escape(scene.height), shapes
    )
