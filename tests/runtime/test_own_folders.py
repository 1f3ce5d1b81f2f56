"""Other users of this machine, and of the board, cannot put their program or their lock in the place of ours."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgec.graph.disk import private_folder
from edgec.graph.errors import DeviceError, EdgecError
from edgec.runtime.devices.local import LocalDevice
from edgec.runtime.devices.locking import FileLock
from edgec.runtime.devices.ssh import SshDevice
from edgec.runtime.pack import agent_bytes, write_agent

from .standin import ADDRESS, HASTE, StandIn


def test_the_agent_lies_where_only_this_user_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new folder for every device, gone afterwards; nothing in the home folder is needed or trusted."""
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with LocalDevice() as one, LocalDevice() as two:
        first, second = (Path(device.agent_command()[1]) for device in (one, two))
        assert first.parent != second.parent
        for path in (first, second):
            found = path.parent.lstat()
            assert stat.S_IMODE(found.st_mode) == 0o700
            assert found.st_uid == os.getuid()
            assert path.read_bytes() == agent_bytes()
        assert one.agent_command()[1] == str(first)
    assert not first.parent.exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("what", ["file", "link", "hanging link"])
def test_the_agent_is_written_over_nothing(tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    if what != "hanging link":
        victim.write_text("mine")
    path = tmp_path / "edgec-agent.pyz"
    path.write_text("theirs") if what == "file" else path.symlink_to(victim)
    with pytest.raises(EdgecError, match="exists"):
        write_agent(tmp_path)
    assert not victim.exists() if what == "hanging link" else victim.read_text() == "mine"


def _link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    path.symlink_to(elsewhere)


def _of_another(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of another user")
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)


SPOILERS: list[tuple[Callable[[Path], object], str]] = [
    (_link, "it is a symbolic link"),
    (_of_another, "it belongs to another user"),
    (Path.touch, "File exists"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILERS, ids=[why for _, why in SPOILERS])
def test_a_lock_in_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], said: str
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"edgec-{os.getuid()}"
    spoil(folder)
    with pytest.raises(EdgecError, match=said):
        FileLock("local", 0.0, lambda text: None)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_lock_closes_its_own_folder_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / f"edgec-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    FileLock("local", 0.0, lambda text: None).release()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_lock_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "victim").write_text("mine")
    (private_folder(tmp_path / f"edgec-{os.getuid()}") / "local.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(EdgecError, match="symbolic link"):
        FileLock("local", 0.0, lambda text: None)
    assert (tmp_path / "victim").read_text() == "mine"


def test_the_boards_folder_is_closed_to_others(there: StandIn, tmp_path: Path) -> None:
    """Also one that an earlier version, or a careless umask, left open."""
    root = there.home / ".cache" / "edgec"
    root.mkdir(parents=True)
    root.chmod(0o777)
    file = tmp_path / "a.onnx"
    file.write_bytes(b"model")
    with SshDevice.at(ADDRESS, times=HASTE) as board:
        remote = Path(board.push(file))
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        remote.write_bytes(b"swapped")
    with SshDevice.at(ADDRESS, times=HASTE) as board:  # what is there is used only while it is what was sent
        assert Path(board.push(file)).read_bytes() == b"model"


def test_a_folder_of_another_user_on_the_board_is_refused(there: StandIn) -> None:
    root = there.home / ".cache" / "edgec"
    root.parent.mkdir()
    _of_another(root)
    with (
        SshDevice.at(ADDRESS, times=HASTE) as board,
        pytest.raises(DeviceError, match="another user") as info,
    ):
        board.run(["true"])
    assert info.value.exit_code == 4


def test_a_python_in_a_folder_with_spaces_is_found(there: StandIn) -> None:
    python = there.home / "edgec-bundles" / "my net *" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    ssh = there.fault.with_name("ssh")
    tools = there.home / "tools"
    tools.mkdir()
    for name in (
        "sh",
        "ls",
        "mkdir",
        "chmod",
        "find",
        "rm",
        "cut",
        "sha256sum",
        "cat",
        "touch",
        "dirname",
        "timeout",
        "mv",
    ):
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        (tools / name).symlink_to(found.stdout.strip())
    ssh.write_text(ssh.read_text().replace(f"PATH={os.environ['PATH']}", f"PATH={tools}"))
    with SshDevice.at(ADDRESS, times=HASTE) as board:
        assert board.agent_command()[0] == str(python)
