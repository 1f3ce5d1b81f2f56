"""Plots as inline SVG that take their colours from the page, so that they are readable in light and in dark.

matplotlib draws with stand-in colours, which are then replaced by CSS variables of the page. Text stays
text, in the page's own font. Bytes are deterministic: ids are hashed from content with a fixed salt, and
there is no date.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edgec.graph.text import shortened, visible
from edgec.runtime.report.schema import LatencySample, Layer, Tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE = "#010101", "#020202", "#030303"
ACCENT, BEFORE, WARN, PAPER = "#040404", "#050505", "#060606", "#070707"
SERIES = ("#080801", "#080802", "#080803", "#080804", "#080805", "#080806")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    ACCENT: "--accent",
    BEFORE: "--before",
    WARN: "--warn",
    PAPER: "--card",
    **{color: f"--series-{i}" for i, color in enumerate(SERIES)},
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgec",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
}

_LONGEST_LABEL = 40
Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels of a figure of 100 dpi."""


@dataclass(frozen=True)
class Point:
    """One marked point of a scatter plot; ``kind`` 'before' is hollow, 'main' is emphasised."""

    x: float
    y: float
    label: str
    kind: str = "other"
    series: int = 0


def available() -> bool:
    """Whether matplotlib is there (the extra ``edgec[report]``)."""
    return find_spec("matplotlib") is not None


@contextmanager
def _axes(name: str, width: float = 4.5, height: float = 3.0) -> Iterator[tuple[Axes, list[str]]]:
    """One axes to draw on, in matplotlib's default style plus ours; the list receives the SVG at the end."""
    from matplotlib import style
    from matplotlib.figure import Figure

    out: list[str] = []
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's own font draws the text
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(length=0)
        yield axes, out
        text = io.StringIO()
        nothing: dict[str, str | None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
        out.append(_inline(text.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """The ``<svg>`` element for use inside a page: own ids, the page's colours and font, no fixed size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r"<[^>]*>", lambda tag: _inline_tag(tag[0], name), svg
    )  # texts, whose < and > are escaped, stay
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1 aria-hidden='true'>", svg).strip()
    return visible(svg, keep="\n")


def _inline_tag(tag: str, name: str) -> str:
    if tag.startswith("<!--"):
        return ""  # matplotlib repeats each text there
    tag = re.sub(r'^<g id="[^"]*">', "<g>", tag)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font: [\d.]+px [^;\"]*", lambda m: m[0].split("px")[0] + "px var(--sans)", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, f"var({variable})")
    return tag


def scatter(name: str, points: Sequence[Point], xlabel: str, ylabel: str, *, front: bool = False) -> str:
    """Labelled points; ``front`` joins those that no other beats (less x, more y) by a step line. Labels are names of runs."""
    points = [replace(point, label=visible(shortened(point.label, _LONGEST_LABEL))) for point in points]
    with _axes(name) as (axes, out):
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _frame(axes, points)
        line = _front(axes, points) if front else _arrow(axes, points)
        for point in points:
            _dot(axes, point, SERIES[point.series % len(SERIES)] if front else ACCENT)
        _label(axes, points, line)
    return out[0]


def _frame(axes: Axes, points: Sequence[Point]) -> None:
    xs, ys = [point.x for point in points], [point.y for point in points]
    height = max(max(ys) - min(ys), 0.02 * max(map(abs, ys)), 1e-6)
    axes.set_xlim(0, 1.25 * max(xs))
    axes.set_ylim(min(ys) - 0.35 * height, max(ys) + 0.35 * height)


def _dot(axes: Axes, point: Point, color: str) -> None:
    hollow = point.kind == "before"
    edge, size = BEFORE if hollow else color, 70 if point.kind == "main" else 42
    face = PAPER if hollow else color
    axes.scatter([point.x], [point.y], s=size, facecolor=face, edgecolor=edge, linewidth=1.6, zorder=3)


def _front(axes: Axes, points: Sequence[Point]) -> list[tuple[float, float]]:
    """The step line through the points that no other beats; its corners."""
    best = pareto([(point.x, point.y) for point in points])
    line = best[:1]
    for x, y in best[1:]:
        line += [(x, line[-1][1]), (x, y)]
    axes.plot([x for x, _ in line], [y for _, y in line], color=ACCENT, linewidth=1.4, alpha=0.6)
    return line


def _arrow(axes: Axes, points: Sequence[Point]) -> list[tuple[float, float]]:
    """From where the model was to where the headline artifact is; the ends, where both are known."""
    start = next((point for point in points if point.kind == "before"), None)
    end = next((point for point in points if point.kind == "main"), None)
    if start is not None and end is not None:
        style: dict[str, Any] = {
            "arrowstyle": "-|>",
            "color": MUTED,
            "linewidth": 1,
            "shrinkA": 8,
            "shrinkB": 8,
            "linestyle": ":",
        }
        axes.annotate("", (end.x, end.y), (start.x, start.y), arrowprops=style)
        return [(start.x, start.y), (end.x, end.y)]
    return []


_PLACES = tuple(
    (right, up) for far in (0, 15, 30, 45) for right in (1, -1, 0) for up in (far, -far) if right or far > 14
)
"""Where a label may stand: right, left, or centre of its point, and how many pixels up; best first."""


def _label(axes: Axes, points: Sequence[Point], line: Sequence[tuple[float, float]]) -> None:
    """Write each point's label where it hides least of dots, line, labels, and what is beyond the frame."""
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()  # settles the layout, which says where in pixels a point lies
    spots = [tuple(axes.transData.transform((point.x, point.y))) for point in points]
    frame = axes.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    taken = [(x - 7.0, y - 7.0, x + 7.0, y + 7.0) for x, y in spots]
    for start, end in pairwise(axes.transData.transform(spot) for spot in line):
        steps = [start + (end - start) * i / 40 for i in range(41)]
        taken += [(x - 2.0, y - 2.0, x + 2.0, y + 2.0) for x, y in steps]
    main_first = sorted(range(len(points)), key=lambda i: points[i].kind != "main")
    for index in main_first:
        point, (x, y) = points[index], spots[index]
        width = 7.4 * len(point.label) + 4
        boxes = [
            (
                right,
                up,
                (left := x + 9 if right > 0 else x - 9 - width if right < 0 else x - width / 2),
                y + up - 7,
            )
            for right, up in _PLACES
        ]
        costs = [_hidden((left, low, left + width, low + 14), taken, inside) for _, _, left, low in boxes]
        right, up, left, low = boxes[costs.index(min(costs))]
        taken.append((left, low, left + width, low + 14))
        axes.annotate(
            point.label,
            (point.x, point.y),
            (9 * right * 0.72, up * 0.72),
            textcoords="offset points",
            ha={1: "left", 0: "center", -1: "right"}[right],
            va="center",
            fontsize=9,
            color=INK,
            fontweight="bold" if point.kind == "main" else "normal",
        )


def _hidden(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """Area of ``box`` that lies on ``taken`` boxes, and ten times what lies outside the frame."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_overlap(box, other) for other in taken) + 10 * (area - _overlap(box, frame))


def _overlap(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both less x and more y, by rising x."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def tradeoff(name: str, curve: Tradeoff, teacher_macs: int) -> str:
    """Predicted error against MACs, with this run marked."""
    points = sorted((point.macs / 1e6, point.predicted_error) for point in curve.points)
    with _axes(name) as (axes, out):
        axes.set(xlabel="million multiply-adds", ylabel="predicted error, relative")
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=ACCENT, linewidth=1.8)
        axes.fill_between(xs, ys, color=ACCENT, alpha=0.1, linewidth=0)
        axes.axvline(teacher_macs / 1e6, color=BEFORE, linewidth=1.2, linestyle=":")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        top = axes.get_ylim()[1]
        axes.text(teacher_macs / 1e6, top, "original ", ha="right", va="top", fontsize=9, color=MUTED)
        if curve.this is not None:
            x, y = curve.this.macs / 1e6, curve.this.predicted_error
            axes.scatter([x], [y], s=70, color=ACCENT, zorder=3)
            axes.annotate(
                "this run",
                (x, y),
                (8, 10),
                textcoords="offset points",
                fontsize=9,
                color=INK,
                fontweight="bold",
            )
    return out[0]


def sqnr(name: str, layers: Sequence[Layer]) -> str:
    """Signal-to-quantisation-noise ratio of each layer, in graph order; the three lowest are named."""
    values = [(i, layer.sqnr_db) for i, layer in enumerate(layers) if layer.sqnr_db is not None]
    lowest = sorted(values, key=lambda item: item[1])[:3]
    with _axes(name, width=9.4, height=2.5) as (axes, out):
        axes.set(xlabel="layer, input to output", ylabel="SQNR, dB")
        axes.vlines(
            [i for i, _ in values], 0, [db for _, db in values], color=ACCENT, linewidth=1.2, alpha=0.45
        )
        for group, color in ((values, ACCENT), (lowest, WARN)):
            axes.scatter([i for i, _ in group], [db for _, db in group], s=20, color=color, zorder=3)
        axes.set_ylim(min(0.0, lowest[0][1]), 1.15 * max(db for _, db in values))
        axes.set_xlim(-0.8, len(layers) - 0.2)
        axes.grid(visible=False, axis="x")
        axes.locator_params(axis="x", integer=True)
    return out[0]


def sustained(name: str, samples: Sequence[LatencySample]) -> str:
    """Latency over the time of a sustained run, with the temperature beside it where it is known."""
    minutes = [sample.t / 60 for sample in samples]
    with _axes(name, width=9.4, height=2.5) as (axes, out):
        axes.set(xlabel="minutes", ylabel="median latency, ms")
        axes.plot(minutes, [sample.median_ms for sample in samples], color=ACCENT, linewidth=1.4)
        axes.set_ylim(bottom=0)
        warm = [
            (sample.t / 60, sample.temperature_c) for sample in samples if sample.temperature_c is not None
        ]
        if warm:
            heat = axes.twinx()
            heat.plot(*zip(*warm, strict=True), color=WARN, linewidth=1.2, linestyle="--")
            heat.set_ylabel("temperature, °C (dashed)")
            heat.tick_params(length=0)
            heat.grid(visible=False)
    return out[0]
