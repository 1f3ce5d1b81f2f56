"""From a clone where edgec is not installed: no package metadata, no console script, only the folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiler.conftest import compile_args, write_files

ROOT = Path(__file__).resolve().parent.parent
UNINSTALLED = """
import sys
from importlib import metadata

found = metadata.Distribution.from_name

def from_name(name):
    if name == "edgec":
        raise metadata.PackageNotFoundError(name)
    return found(name)

metadata.Distribution.from_name = from_name
try:
    metadata.version("edgec")
except metadata.PackageNotFoundError:
    from edgec.compiler.cli import main
    sys.argv[0] = "edgec"
    main()
"""
"""edgec's command in a process in which importlib.metadata finds every package but edgec (and nothing is run if it finds it)."""


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "tflite"])
def test_a_network_is_compiled(tmp_path: Path, form: str) -> None:
    write_files(tmp_path)
    more = ("--precision", "int8", "--format", form, "--passes", "fold quantize{correct=none}")
    command = [sys.executable, "-c", UNINSTALLED, *map(str, compile_args(tmp_path, *more))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert list(tmp_path.rglob(f"model.int8.{form}"))
