"""install.sh --service: the unit means the bundle's folder, whatever that is called."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUNDLE = Path(__file__).resolve().parents[3] / "edgec" / "deploy" / "bundle"
NAMES = [
    "plain", "two words", "a|b", "a&b", "a\\b", "a\\nb", 'a"b', "a'b", "a`id`b", "a$HOME ${HOME} $$", "100%", "%h%n%%", "a;b #c",
    "@DIR@@USER@", "*", "[x]", "~", "-n", "é日", " front and back ", "tab\tbed", "two\nlines", "end\n", "back\\", "=", "{a,b}", "!x",
]  # fmt: skip
PROGRAM = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>{log}\ncase $1 in tee) cat >{unit} ;; esac\n"


def environment_of(unit: str) -> dict[str, str]:
    """EDGEC_MODEL as systemd reads it: quotes and C escapes off (systemd.syntax), then specifiers (systemd.unit)."""
    (line,) = (line for line in unit.split("\n") if line.startswith('Environment="'))
    quoted = re.fullmatch(r'Environment="((?:[^"\\]|\\.)*)"', line)
    assert quoted is not None, line
    codes = {"\\": "\\", '"': '"', "n": "\n", "t": "\t"}
    text = re.sub(r"\\(.)", lambda match: codes[match[1]], quoted[1])
    assert not re.search(r"(?<!%)(%%)*%(?!%)", text), "a specifier"
    name, _, value = text.replace("%%", "%").partition("=")
    return {name: value}


def command_of(unit: str) -> list[str]:
    """ExecStart as systemd runs it: words, then $$ for $."""
    (line,) = (line for line in unit.split("\n") if line.startswith("ExecStart="))
    return [word.replace("$$", "$") for word in shlex.split(line.removeprefix("ExecStart="))]


def make_bundle(folder: Path) -> None:
    """A folder that install.sh takes for an installed bundle: the scripts are the real ones, the programs only say where they are."""
    folder.mkdir(parents=True)
    for name in ("install.sh", "service.py", "edgec-model.service", "contents.py"):
        shutil.copyfile(BUNDLE / name, folder / name)
    version, machine = f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()
    engines = f"{machine} {version} onnxruntime onnxruntime==1\n"
    (folder / "engines.txt").write_text(engines)
    (folder / "bundle.json").write_text('{"artifacts": [{"format": "onnx"}]}')
    (folder / "selftest.py").write_text("")
    (folder / "run.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:], sep='\\0')")
    bare = folder / ".venv" / "bin"
    bare.mkdir(parents=True)
    (bare / "python").symlink_to(sys.executable)
    digest = hashlib.sha256(engines.encode()).hexdigest()
    (folder / ".venv" / ".stamp").write_text(f"{version} {machine} onnx {digest}  -")
    sums = [
        f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n"
        for n in ("engines.txt", "service.py")
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))


def install(folder: Path, tmp_path: Path, how: str) -> tuple[int, str, str]:
    """Run install.sh --service with a sudo that writes the unit into ``tmp_path``: exit code, stderr, the unit."""
    programs, unit, log = tmp_path / "bin", tmp_path / "unit", tmp_path / "log"
    programs.mkdir()
    (programs / "sudo").write_text(PROGRAM.format(unit=unit, log=log))
    (programs / "sudo").chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    around = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CDPATH": "/:/usr"}
    words, start = (
        (["sh", "./install.sh"], folder)
        if how == "inside"
        else (["sh", str(folder / "install.sh")], tmp_path)
    )
    done = subprocess.run(
        [*words, "--service"], cwd=start, env=around, capture_output=True, text=True, check=False, timeout=60
    )
    assert not log.exists() or "systemctl enable --now edgec-model.service" in log.read_text()
    return done.returncode, done.stderr, unit.read_text() if unit.exists() else ""


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "inside") for name in NAMES),
        *((name, "outside") for name in ("two words", "-n", "end\n", "a$HOME")),
    ],
)
def test_the_unit_starts_the_program_in_its_folder(tmp_path: Path, name: str, how: str) -> None:
    folder = tmp_path / "home" / name
    make_bundle(folder)
    code, said, unit = install(folder, tmp_path, how)
    assert code == 0, said
    assert unit.count("\n") == (BUNDLE / "edgec-model.service").read_text().count("\n")
    around = environment_of(unit)
    assert around == {"EDGEC_MODEL": str(folder)}
    done = subprocess.run(command_of(unit), env=around, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}\0['--watch', 'inbox', '--json']\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", ["two words", 'a"b\\c', "100%", "two\nlines"])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    make_bundle(folder)
    unit = tmp_path / "edgec-model.service"
    unit.write_text(install(folder, tmp_path, "inside")[2])
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["esc\x1b[31m", "del\x7f", "bell\x07", "c1\x85"])
def test_a_name_that_systemd_has_no_way_to_write_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    make_bundle(folder)
    code, said, unit = install(folder, tmp_path, "inside")
    assert code == 3
    assert "move the bundle" in said
    assert unit == ""
    assert "Traceback" not in said


def test_a_colon_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    make_bundle(folder)
    code, said, _ = install(folder, tmp_path, "inside")
    assert code == 3
    assert "colon" in said
