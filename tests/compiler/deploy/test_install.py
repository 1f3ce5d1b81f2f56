"""install.sh: what it chooses for every system, and what it refuses."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgec.compiler.deploy.bundle import Bundle, engine_lines
from edgec.targets import target, targets


def shell(folder: Path, *words: str, path: Path | None = None) -> tuple[int, str]:
    """Run with the programs of ``path`` first; without, install.sh takes the Python that runs this test, whatever PATH has."""
    around = {**os.environ, "PYTHON": sys.executable}
    if path is not None:
        around = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        around.pop("PYTHON", None)
    done = subprocess.run(
        ["sh", *words], cwd=folder, env=around, capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stderr


def test_install_refuses_what_cannot_work(copy: Path) -> None:
    assert shell(copy, "install.sh", "--servce")[0] == 2
    (copy / "engines.txt").write_text("half")
    said = "install: this bundle is not whole, copy it again: engines.txt: FAILED\n"
    assert shell(copy, "install.sh") == (3, said)
    assert not (copy / ".venv").exists()
    assert shell(copy, "bench.sh") == (2, "run ./install.sh first\n")


def with_engines(folder: Path, lines: str) -> None:
    (folder / "engines.txt").write_text(lines)
    subprocess.run("sha256sum *.onnx *.tflite > SHA256SUMS", shell=True, cwd=folder, check=True)


HERE = platform.machine()
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_install_without_a_known_engine_leaves_nothing(copy: Path) -> None:
    with_engines(copy, "riscv64 3.99 onnxruntime onnxruntime==9\n")
    said = f"install: no engine is known for Python {PYTHON} on {HERE}; see README.md, 'Systems'\n"
    assert shell(copy, "install.sh") == (3, said)
    with_engines(copy, f"{HERE} 3.99 onnxruntime onnxruntime==9\n")
    code, text = shell(copy, "install.sh")
    assert code == 3
    assert "one is for Python 3.99" in text
    assert not list(copy.glob(".venv*"))


def test_install_takes_another_python_where_the_system_s_is_too_old(copy: Path, tmp_path: Path) -> None:
    """JetPack 4: python3 is 3.6, and python3.8 lies beside it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    real = sys.executable  # not what PATH finds: a version manager's stand-in may refuse
    old = f'case "$2" in *version_info*) echo 3.6 ;; *) exec {real} "$@" ;; esac'
    for name, text in (("python3", old), (f"python{PYTHON}", f'exec {real} "$@"')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    with_engines(copy, f"{HERE} {PYTHON} onnxruntime no-such-engine==9\n")
    (copy / "wheels").mkdir()
    (copy / "wheels" / f"numpy-1-cp{PYTHON.replace('.', '')}-x-{HERE}.whl").touch()
    code, said = shell(copy, "install.sh", path=programs)
    assert code == 3
    assert f"Python {PYTHON} on {HERE}" in said
    assert "installing no-such-engine==9" in said
    assert "nothing of this bundle can run here" in said
    assert not list(copy.glob(".venv*"))


# A Python of another version and processor, without a network: it says who it is, makes "environments", and cannot install.
OTHER_PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) echo {version} ;;
  *platform*) echo {arch} ;;
  *bundle.json*) echo "onnx tflite" ;;
  *"import numpy"*) exit 0 ;;
  *"-m venv"*) for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
  *) exit 1 ;;
esac
"""
SYSTEMS = sorted({(t.name, s.name) for t in targets() for s in t.systems}, key=lambda pair: pair[::-1])


@pytest.mark.parametrize("system", sorted({name for _, name in SYSTEMS}))
def test_install_tries_the_engines_of_every_system_in_order(copy: Path, tmp_path: Path, system: str) -> None:
    name = next(target_name for target_name, system_name in SYSTEMS if system_name == system)
    described = target(name).system(system)
    assert described is not None
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "python3"
    program.write_text(OTHER_PYTHON.format(version=described.python, arch=described.arch))
    program.chmod(0o755)
    lines = [line for line in engine_lines(target(name)) if line.split()[1] == described.python]
    with_engines(copy, "".join(f"{line}\n" for line in lines))
    code, said = shell(copy, "install.sh", path=programs)
    assert code == 3
    tried = [line.split()[2] for line in said.splitlines() if line.startswith("install: installing")]
    order = ("onnxruntime", "ai-edge-litert", "tflite-runtime")
    known = {r.engine: f"{r.engine}=={r.version}" for r in described.runtimes if r.install == "pip"}
    assert tried == [known[engine] for engine in order if engine in known]
    if not known:
        assert f"no engine is known for Python {described.python} on {described.arch}" in said
    elif described.arch == "armv7l":
        assert "onnxruntime has no wheel for 32-bit Arm" in said
    assert not list(copy.glob(".venv*"))


@pytest.mark.parametrize("script", ["install.sh", "bench.sh"])
def test_scripts_are_posix_sh(bundle: Bundle, script: str) -> None:
    for program in ("sh", "bash", "dash"):
        if shutil.which(program):
            subprocess.run([program, "-n", bundle.path / script], check=True)
    text = (bundle.path / script).read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n")
    assert "set -eu" in text
    assert "[[" not in text
