"""Names in a model are words in every command, table, page, recipe and file name, whatever they are."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from edgec.compiler import cli
from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.output import PlainConsole, table
from edgec.graph.text import markdown, markdown_code, visible
from tests.conftest import ROOT, parse
from tests.hostile_names import HOSTILE, skeleton, steers

NET = (
    "net (float[N,3,16,16] x) => (float[N,10] y) "
    "<float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[10,8] g, float[10] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2, b2)  v = Add(u, r)  s = Relu(v)"
    "  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)


def hostile_model(pattern: str) -> onnx.ModelProto:
    """A net with a residual block whose nodes, tensors, weights, inputs and outputs are all called like that."""
    model = parse(NET)
    for number, node in enumerate(model.graph.node):
        node.name = pattern.format(f"n{number}")
        for names in (node.input, node.output):
            names[:] = [pattern.format(name) for name in names]
    for tensor in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        tensor.name = pattern.format(tensor.name)
    model.graph.name = pattern.format("g")
    return model


@pytest.fixture
def edgec(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in an own folder; (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["edgec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def assert_words(text: str) -> None:
    assert "Traceback" not in text
    for line in text.split("\n"):
        assert not steers(line), repr(line)
        assert not line.startswith("error: all is well")


@pytest.mark.parametrize("kind", HOSTILE)
def test_inspect_shows_words(kind: str, edgec, tmp_path: Path) -> None:
    onnx.save(hostile_model(HOSTILE[kind]), tmp_path / "net.onnx")
    for option in (["--layers", "--groups", "--blocks"], ["--json", "--groups", "--blocks"]):
        code, out, err = edgec("inspect", "net.onnx", *option)
        assert code == 0, err
        assert_words(out + err)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


QUICK = ("markup", "line", "html", "shell")
"""The others of `TAGS` take the same way through a whole run."""
TAGS = (
    "markup",
    "unbalanced",
    "clear",
    "line",
    "bidi",
    "html",
    "attribute",
    "template",
    "path",
    "shell",
    "yaml",
)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in TAGS]
)
def test_a_whole_run_writes_words_and_no_other_files(kind: str, edgec, tmp_path: Path) -> None:
    onnx.save(hostile_model(HOSTILE[kind]), tmp_path / "net.onnx")
    options = ("--data", "random", "--samples", "8", "--budget", "macs=80%", "--no-bench", "-v", "-o", "out")
    code, out, err = edgec("compile", "net.onnx", *options)
    assert code in (0, 1), err
    assert_words(out + err)
    for more in ((), ("--md",), ("--csv",), ("--json",)):
        code, out, err = edgec("report", "out", *more)
        assert code == 0, err
        assert_words(out + err)
    code, out, err = edgec("verify", "net.onnx", "out/model.onnx")
    assert code == 0, err
    assert_words(out + err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "out"]
    names = {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")}
    assert names == {"model.onnx", "recipe.yaml", "report.html", "report.json", "log.jsonl"}
    page = skeleton((tmp_path / "out" / "report.html").read_text())
    assert page.tags <= KNOWN_TAGS
    assert all(link.startswith("#") or link.removeprefix("./") in names for link in page.links), page.links


KNOWN_TAGS = {
    "a",
    "html",
    "head",
    "meta",
    "link",
    "title",
    "style",
    "body",
    "header",
    "div",
    "span",
    "h1",
    "h2",
    "h3",
    "p",
    "b",
    "main",
    "section",
    "table",
    "thead",
    "tr",
    "th",
    "tbody",
    "td",
    "code",
    "figure",
    "figcaption",
    "svg",
    "g",
    "path",
    "defs",
    "use",
    "clippath",
    "rect",
    "text",
    "i",
    "details",
    "summary",
    "ol",
    "ul",
    "li",
    "pre",
    "dl",
    "dt",
    "dd",
    "footer",
}


WORDS = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["[red]", "[/]", "[link=x]a", ":smile:", "\x1b[31m", "\x1b]0;t\x07", "a\nb", "\u202e", "[@click=x]"]
)


@settings(deadline=None, max_examples=100)
@given(st.lists(WORDS, min_size=1, max_size=3), st.booleans())
def test_consoles_show_any_word_and_steer_by_styles_only(words: list[str], colours: bool) -> None:
    stream = io.StringIO()
    console = PlainConsole(stream)
    console.width = 1000
    console._force_terminal = colours
    console.print(words[0], style="bold")
    console.print(Text(words[0].replace("\n", " "), style="red"))
    console.print(table(words[0], [*words], [words]))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert not any(steers(line) for line in shown.split("\n"))
    if "\t" not in words[0]:
        assert shown.split("\n")[0].rstrip() == visible(words[0]).rstrip()


@settings(deadline=None, max_examples=100)
@given(WORDS)
def test_echo_and_markdown_keep_to_one_line(word: str) -> None:
    from contextlib import redirect_stdout

    stream = io.StringIO()
    with redirect_stdout(stream):
        echo(word)
        echo_lines(word)
    assert not any(steers(line) for line in stream.getvalue().split("\n"))
    assert stream.getvalue().count("\n") == 2 + word.count("\n")
    for shown in (markdown(word), markdown_code(word)):
        assert not steers(shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<*_\[]", markdown(word))


def test_no_command_prints_past_the_boundary() -> None:
    for file in sorted((ROOT / "compiler" / "cli").glob("*.py")):
        if file.name not in ("echo.py", "output.py"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"click\.(secho|echo|style)\(|(?<!\.)\bprint\(|\bConsole\(|write\(", text), (
                file.name
            )


def test_wrong_arguments_are_words_too(edgec) -> None:
    for words in (
        ["inspect", "\x1b[2J", "b\nc"],
        ["\x1b[31mx"],
        ["compile", "--\x1b[2J"],
        ["report", "\x1b[2J"],
    ):
        code, out, err = edgec(*words)
        assert code in (2, 3)
        assert_words(out + err)
        assert r"\x1b" in err or "unexpected" in err


def test_a_terminal_without_letters_gets_codes(monkeypatch, edgec, tmp_path: Path) -> None:
    onnx.save(hostile_model("größe層{}"), tmp_path / "net.onnx")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    code, _, err = edgec("inspect", "net.onnx", "--layers")
    assert code == 0, err
    assert rb"gr\xf6\xdfe\u5c64n0" in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["a b", "$(x)", "it's", "-o", "ü", "a;b", "[red]"])
def test_commands_to_copy_are_quoted(folder: str, edgec, tmp_path: Path) -> None:
    onnx.save(parse(NET), tmp_path / "net.onnx")
    code, _, err = edgec("compile", "net.onnx", "--no-bench", "-o", f"./{folder}", "-q")
    assert code == 0, err
    values = yaml.safe_load((tmp_path / folder / "recipe.yaml").read_text())
    assert values["model"]["path"] == "../net.onnx"
    from edgec.runtime.report import read

    words = shlex.split(read(tmp_path / folder).command or "")
    assert words == ["edgec", "compile", "--recipe", f"{folder}/recipe.yaml", "-o", f"{folder}-again"]
    assert (tmp_path / folder / "model.onnx").exists()
