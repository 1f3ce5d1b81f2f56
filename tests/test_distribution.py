"""A source distribution holds what the repository does, and the wheel made from it is the wheel made from a clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
GENERATED = {"PKG-INFO", "setup.cfg"}


def in_git() -> list[str]:
    """Files of the repository, also those that are new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = (
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if shutil.which("git")
        else None
    )
    if found is None or found.returncode != 0:
        pytest.skip("this is no clone, or git is not here")
    return sorted({name for name in found.stdout.split("\0") if name and (ROOT / name).exists()})


def build(kind: str, source: Path, out: Path) -> Path:
    """A distribution made by the setuptools that are installed, without a network."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = out.iterdir()
    return made


def files_of(wheel: Path) -> dict[str, bytes]:
    """Name and content of everything but the list of hashes, whose order follows the folders'."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, Path]:
    """The repository's files, the source distribution, and the wheel of a clone."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools makes the distributions")
    names, folder = in_git(), tmp_path_factory.mktemp("distribution")
    clone = folder / "clone"
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    return names, build("sdist", clone, folder / "sdist"), build("wheel", clone, folder / "wheel")


def test_the_source_distribution_holds_every_file_of_the_repository(
    made: tuple[list[str], Path, Path],
) -> None:
    names, sdist, _ = made
    with tarfile.open(sdist) as archive:
        members = {one.name.partition("/")[2]: one for one in archive if not one.isdir()}
    assert all(one.isfile() for one in members.values())
    floors = {name.removeprefix("edgec/") for name in names if (ROOT / name).is_symlink()}
    assert floors == {"compiler", "deploy", "graph", "passes", "runtime", "targets"}
    wanted = {f"edgec/{name}" if name.split("/")[0] in floors else name for name in names} - {
        f"edgec/{one}" for one in floors
    }
    found = {name for name in members if name not in GENERATED and not name.startswith("edgec.egg-info/")}
    assert found == wanted


def test_a_wheel_is_the_same_from_a_clone_and_from_the_source_distribution(
    made: tuple[list[str], Path, Path], tmp_path: Path
) -> None:
    _, sdist, wheel = made
    with tarfile.open(sdist) as archive:
        archive.extractall(
            tmp_path / "source", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    (source,) = (tmp_path / "source").iterdir()
    again = build("wheel", source, tmp_path / "wheel")
    assert again.name == wheel.name
    assert files_of(again) == files_of(wheel)


def test_a_wheel_holds_the_package_and_nothing_else(made: tuple[list[str], Path, Path]) -> None:
    names, _, wheel = made
    floors = ("compiler/", "deploy/", "graph/", "passes/", "runtime/", "targets/")
    wanted = {f"edgec/{name}" for name in names if name.startswith(floors)} | {
        name for name in names if name.startswith("edgec/") and not (ROOT / name).is_symlink()
    }
    assert {name for name in files_of(wheel) if ".dist-info/" not in name} == wanted
