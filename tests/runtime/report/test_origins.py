"""The table of layers says where each comes from: on the terminal, on the page, in JSON."""

from __future__ import annotations

import io
import json

from rich.console import Console

from edgec.runtime.report import page, render_layers
from edgec.runtime.report.schema import Layer, Report

LAYERS = (
    Layer(name="conv1", op="Conv", macs_before=10, macs_after=10, made_by="source", source="conv1"),
    Layer(name="conv2_piece1", op="Conv", macs_after=5, made_by="decompose-svd", source="conv2"),
    Layer(name="y", op="Conv", macs_after=5, made_by="reading", source="conv<3>"),
    Layer(name="old", op="Conv", macs_before=5),
)


def test_words_for_each_kind() -> None:
    assert [layer.origin for layer in LAYERS] == [
        "",
        "decompose-svd, from 'conv2'",
        "reading, from 'conv<3>'",
        "",
    ]


def test_the_terminal_the_page_and_json(minimal: Report) -> None:
    report = minimal.model_copy(update={"layers": LAYERS})
    console = Console(width=160, record=True, file=io.StringIO())
    render_layers(report, console)
    told = console.export_text()
    html = page(report)
    assert "conv2_piece1" in told
    assert "decompose-svd, from 'conv2'" in told
    assert "decompose-svd, from &#39;conv2&#39;" in html
    assert "conv&lt;3&gt;" in html
    written = json.loads(report.to_json())["layers"][1]
    assert (written["made_by"], written["source"]) == ("decompose-svd", "conv2")


def test_reports_of_before_have_no_origins() -> None:
    assert Layer.model_validate({"name": "conv1", "op": "Conv"}).origin == ""
