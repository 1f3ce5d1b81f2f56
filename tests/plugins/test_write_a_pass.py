"""docs/write-a-pass.md ends in something that runs: every block of it is run here as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.conftest import EXAMPLE, ROOT

PAGE = (ROOT / "docs" / "write-a-pass.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_pass_on_the_page_is_the_one_in_the_example() -> None:
    assert blocks("python")[0] == (EXAMPLE / "edgec_example" / "drop_bias.py").read_text(encoding="utf-8")


def test_the_script_runs() -> None:
    script = blocks("python")[1]
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ biases removed\n", done.stdout)


@pytest.mark.slow
def test_the_commands_run(site: Path, tmp_path: Path) -> None:
    """Each but the installation, which the fixture has done."""
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    (lines,) = (block.splitlines() for block in blocks("sh"))
    assert lines[0] == "pip install -e examples/plugin"
    said = []
    for line in lines[1:]:
        words = shlex.split(line)
        assert words[0] == "edgec"
        words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "edgec-example 0.1.0" in said[0]
    assert "below" in said[1]
    assert (tmp_path / "out" / "report.html").is_file()
