"""One small case of every kind of hostile input, through the command line: the right exit code, one message, nothing left.

`bench/fuzz/run.py` looks for new ones. Files are read in this process, as all tests do; what a child does about a crash, a hang, or
memory is in tests/graph/test_foreign.py.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from edgec.compiler import cli
from tests.hostile.corpus_files import FILES, RUN, RUNS, sound
from tests.hostile.corpus_models import MODELS, Case

CASES = {**MODELS, **FILES, **RUNS}
MOST = 4000
"""Characters of a message."""


def call(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["edgec", *argv])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its cache."""
    folder = tmp_path_factory.mktemp("finished")
    sound(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("edgec.graph.foreign.models._child", lambda *_: None)
        assert call(RUN, patch) == 0
    return folder


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_ends_as_documented(
    case: Case,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, code, said = case
    if request.node.callspec.id.startswith("a:"):
        pytest.importorskip("torch")
    folder = tmp_path / "case"
    folder.mkdir()
    if case in RUNS.values():
        shutil.copytree(request.getfixturevalue("finished"), folder, dirs_exist_ok=True, symlinks=True)
    argv = make(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    capsys.readouterr()
    assert call(argv, monkeypatch) == code, capsys.readouterr().err
    err = capsys.readouterr().err
    assert err.count("error: ") == (code != 0), err
    assert re.search(said, err), err
    assert "Traceback" not in err
    assert len(err) < MOST
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case"]
    assert not list(folder.rglob("executed"))
    if code:
        assert not list(folder.glob("out/*.onnx"))


def test_every_kind_of_the_list_has_a_case_or_a_test_of_its_own() -> None:
    assert {name.partition(":")[0] for name in CASES} == {"a", "b", "c", "d", "e", "f", "g", "i", "fuzz"}
