"""The list of wrong options of `bench/bad_options.py`, in this process: each ends in one message with the right exit code."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import edgec
from edgec.compiler import cli
from edgec.graph.errors import EdgecError

ROOT = Path(__file__).resolve().parent.parent.parent
_SPEC = importlib.util.spec_from_file_location("bad_options", ROOT / "bench" / "bad_options.py")
assert _SPEC is not None
assert _SPEC.loader is not None
bad_options = importlib.util.module_from_spec(_SPEC)
sys.modules["bad_options"] = bad_options
_SPEC.loader.exec_module(bad_options)
CASES = bad_options.cases()
PAGE = (ROOT / "docs" / "options.md").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bad_options.make_files(tmp_path)
    return tmp_path


def answer(arguments: list[str], monkeypatch, capsys) -> tuple[int, str]:
    """(exit code, stderr) of one call."""
    if arguments[0] == "-c":
        call = next(line.strip() for line in arguments[1].splitlines() if line.startswith("    "))
        try:
            exec(call, {"edgec": edgec})
        except EdgecError as error:
            return error.exit_code, f"error: {error}"
        return 0, ""
    monkeypatch.setattr(sys, "argv", ["edgec", *arguments[2:]])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.entry}: {case.shown}")
def test_a_wrong_option_is_refused_in_one_message(case, folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    code, err = answer(case.arguments(folder), monkeypatch, capsys)
    assert bad_options.faults(case, code, err) == [], err
    assert not (folder / "out").exists()
    assert not (folder / "bundle").exists()
    assert bad_options.row(case, code, err) in PAGE, (
        "docs/options.md is stale: bench/bad_options.py prints its table"
    )


def test_the_page_has_no_other_rows() -> None:
    table = PAGE[PAGE.index("| where | given | exit | answer |") + 2 :]
    assert len([line for line in table if line.startswith("|")]) == len(CASES)


def test_the_list_is_long_enough_and_covers_every_entry() -> None:
    assert len(CASES) >= 60
    assert {"recipe", "pipeline", "Python", *cli.COMMANDS} <= {case.entry for case in CASES}
