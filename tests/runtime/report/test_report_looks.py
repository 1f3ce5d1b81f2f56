"""How pages look at the width of a phone and of a desk, in a browser that playwright drives; skipped where there is none.

``EDGEC_CHROMIUM`` names another executable than playwright's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgec.runtime.report import compare, page
from edgec.runtime.report.schema import Report
from tests.runtime.report.pages import with_strip

KINDS = ("classification", "detection", "segmentation", "board", "minimal", "compare")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        own = {"executable_path": found} if (found := os.environ.get("EDGEC_CHROMIUM")) else {}
        try:
            started = play.chromium.launch(args=["--no-sandbox", "--no-zygote", "--disable-gpu"], **own)
        except api.Error as error:
            pytest.skip(f"playwright has no browser here: {str(error).splitlines()[0]}")
        yield started
        started.close()


def html_of(kind: str, mobilenet: Report, estimated: Report, minimal: Report) -> str:
    if kind == "compare":
        return compare([("a", mobilenet), ("b", estimated)]).html()
    if kind == "minimal":
        return page(minimal, "run")
    report = with_strip(estimated, "detection") if kind == "board" else with_strip(mobilenet, kind)
    long = "onnxruntime taken as 1.92 times XNNPACK, as on 2 networks of a board; " * 6
    if kind == "board":
        latency = report.artifacts[0].latency
        assert latency is not None
        slow = report.artifacts[0].model_copy(update={"latency": latency.model_copy(update={"basis": long})})
        report = report.model_copy(update={"artifacts": (slow, *report.artifacts[1:])})
    return page(report, "run")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_browser(
    browser: Any, kind: str, width: int, tmp_path: Path, mobilenet: Report, estimated: Report, minimal: Report
) -> None:
    file, shot = tmp_path / "page.html", tmp_path / "shot.png"
    file.write_text(html_of(kind, mobilenet, estimated, minimal), encoding="utf-8")
    opened = browser.new_page(viewport={"width": width, "height": 900})
    told: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(file.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    headline = opened.evaluate(
        "(r => [r.left, r.right])(document.querySelector('h1').getBoundingClientRect())"
    )
    assert 0 <= headline[0] < headline[1] <= width
    opened.screenshot(path=str(shot), full_page=True)
    opened.close()
    assert told == []
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    colours = Image.open(shot).convert("RGB").resize((130, 400)).getcolors(maxcolors=130 * 400)
    assert colours is not None
    assert len(colours) > 60
    assert max(count for count, _ in colours) < 0.9 * 130 * 400
