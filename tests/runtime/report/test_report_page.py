"""The page: what is on it, that it is well-formed and alone, and how it looks in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from edgec.runtime.report import compare, page, plots
from edgec.runtime.report.schema import LatencySample, Layer, Report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
VOID = {"meta", "link", "br", "img"}


class Checker(HTMLParser):
    """Fails on an unbalanced tag; gathers ids, attributes that load something, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action") and not (value or "").startswith(
                "#"
            ):
                self.loads += [] if _is_own(tag, value or "") else [value or ""]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _is_own(tag: str, value: str) -> bool:
    """A link to a file beside the page, which is fetched when it is clicked, or a picture inside the page."""
    if tag == "a":
        return value.startswith("./") and ".." not in value
    return tag == "img" and value.startswith("data:image/jpeg;base64,")


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.loads == ["data:,"]  # the icon, which is empty
    assert "<script" not in html
    assert not re.search(r"url\((?!#)|@import", html)
    return checker


def test_full_page(mobilenet: Report) -> None:
    html = page(mobilenet, "mobilenet-80")
    text = checked(html).text
    for words in (
        "1.8 points less accurate",
        "all 3 gates passed",
        "output SQNR fell from 21.3 to 20.8 dB",
        "10 layers fitted, 1 undone",
        "12 more layers",
        "edgec compile mobilenet_v1_0.75_224.onnx --recipe",
        "versions.onnxruntime",
        "budget macs",
    ):
        assert words in text
    for section in (
        "artifacts",
        "tradeoff",
        "quantisation",
        "layers",
        "passes",
        "gates",
        "again",
        "environment",
    ):
        assert f'<section id="{section}">' in html


def test_minimal_page_leaves_out_what_is_not_there(minimal: Report) -> None:
    html = page(minimal)
    checked(html)
    for section in ("tradeoff", "quantisation", "layers", "passes", "gates", "sustained"):
        assert f'<section id="{section}">' not in html
    assert "None" not in html
    assert "nan" not in checked(html).text


def test_random_data_and_failed_gates_are_alerts(estimated: Report) -> None:
    html = page(estimated)
    alerts = re.findall(r'<div class="alert" role="alert">([^<]*)', html)
    assert len(alerts) == 2
    assert "random noise" in alerts[0]
    assert "Gate failed: latency" in alerts[1]
    assert "1 of 4 gates failed" in checked(html).text


def test_names_are_escaped(mobilenet: Report) -> None:
    evil = '<script>alert(1)</script>"$x^2$&'
    layers = (Layer(name=evil, op="Conv", macs_before=5, sqnr_db=9.0), *mobilenet.layers)
    changes = {
        "layers": layers,
        "target_title": evil,
        "command": evil,
        "recipe": {"a": evil},
        "warnings": (evil,),
    }
    report = mobilenet.model_copy(
        update={**changes, "model": mobilenet.model.model_copy(update={"name": evil})}
    )
    checked(page(report, evil))
    checked(compare([(evil, report), ("b", mobilenet)]).html())


def test_same_report_same_bytes(mobilenet: Report) -> None:
    assert page(mobilenet, "a") == page(mobilenet, "a")


def test_sustained_plot(mobilenet: Report) -> None:
    samples = tuple(LatencySample(t=5.0 * i, median_ms=5 + 0.1 * i, temperature_c=50 + i) for i in range(30))
    first = mobilenet.artifacts[0]
    assert first.latency is not None
    latency = first.latency.model_copy(update={"samples": samples})
    report = mobilenet.model_copy(update={"artifacts": (first.model_copy(update={"latency": latency}),)})
    assert "temperature, °C" in checked(page(report)).text


def test_page_without_matplotlib(mobilenet: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    html = page(mobilenet)
    assert "<svg" not in html
    assert "edgec[report]" in checked(html).text


def test_import_is_light() -> None:
    code = "import edgec.runtime.report, sys; print({'pydantic', 'jinja2', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def browse(html: str, folder: Path, width: int) -> tuple[Image.Image, list[str], list[str]]:
    """Open the page in headless Chromium: screenshot, console messages, and requests that the page made."""
    assert CHROMIUM is not None
    folder.mkdir()
    file, shot, log = folder / "page.html", folder / "shot.png", folder / "net.json"
    file.write_text(html, encoding="utf-8")
    own = [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1600", f"--log-net-log={log}"]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [CHROMIUM, *FLAGS, *own, offline, f"--screenshot={shot}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # What the browser asks for by itself has no origin; what the page asks for has the page's.
    events = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    urls = [event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"]
    return Image.open(shot).convert("RGB"), console, urls


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["mobilenet", "estimated", "compare"])
def test_in_a_browser(kind: str, width: int, tmp_path: Path, mobilenet: Report, estimated: Report) -> None:
    pages = {
        "mobilenet": lambda: page(mobilenet, "mobilenet-80"),
        "estimated": lambda: page(estimated, "pi4"),
        "compare": lambda: compare([("a", mobilenet), ("b", estimated)]).html(),
    }
    shot, console, requests = browse(pages[kind](), tmp_path / "run", width)
    assert console == []
    assert requests == []
    assert shot.width == width
    colors = shot.resize((130, 400)).getcolors(maxcolors=130 * 400)
    assert colors is not None
    assert len(colors) > 100
    assert max(count for count, _ in colors) < 0.9 * 130 * 400


@needs_chromium
def test_the_browser_check_sees_what_it_must_see(tmp_path: Path, minimal: Report) -> None:
    html = page(minimal).replace("<main>", '<main><img src="http://example.invalid/a.png">')
    _, console, requests = browse(html, tmp_path / "blocked", 390)
    assert len(console) == 1  # the page's own policy forbids it
    assert requests == []
    open_policy = re.sub(r"<meta http-equiv=[^>]*>", "", html)
    assert browse(open_policy, tmp_path / "open", 390)[2] == ["http://example.invalid/a.png"]


@needs_chromium
@pytest.mark.parametrize("kind", ["report", "compare"])
def test_nothing_sticks_out_on_a_phone(kind: str, tmp_path: Path, mobilenet: Report) -> None:
    html = page(mobilenet, "x") if kind == "report" else compare([("a", mobilenet), ("b", mobilenet)]).html()
    measure = "<script>console.log('wide ' + document.documentElement.scrollWidth)</script></body>"
    html = re.sub(r"<meta http-equiv=[^>]*>", "", html).replace("</body>", measure)
    # Chromium's own window is never laid out narrower than 500 px; a frame is.
    frame = f'<iframe style="border:0;width:390px;height:900px" srcdoc="{escape(html)}"></iframe>'
    (line,) = browse(frame, tmp_path / "run", 600)[1]
    assert '"wide 390"' in line
