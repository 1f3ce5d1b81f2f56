"""Writes are whole or said to have failed; temporary folders do not outlive their process."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgec.graph import disk
from edgec.graph.disk import disk_errors, free_bytes, locked, private_folder, write_new, write_whole
from edgec.graph.errors import EdgecError
from edgec.graph.npz import npz_bytes
from edgec.graph.scratch import scratch_folder, write_scratch

REFUSALS = {
    errno.ENOSPC: "the disk is full (1.5 MB needed, ",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the limit for files here",
    errno.EIO: "the disk reports an error",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission denied",
    errno.ENOENT: "no such folder",
    errno.ENAMETOOLONG: "File name too long",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_what_a_disk_says_in_words(code: int, tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught, disk_errors(tmp_path / "f", needed=1_500_000):
        raise OSError(code, os.strerror(code))
    assert str(caught.value).startswith(f"{tmp_path / 'f'}: cannot write: {REFUSALS[code]}")
    assert caught.value.exit_code == 3
    assert (caught.value.hint is not None) == (code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def test_the_hint_of_the_caller_is_for_want_of_space_only(tmp_path: Path) -> None:
    for code, hint in ((errno.ENOSPC, "mine"), (errno.EACCES, None)):
        with pytest.raises(EdgecError) as caught, disk_errors(tmp_path, hint="mine"):
            raise OSError(code, "")
        assert caught.value.hint == hint


def test_free_bytes_are_those_of_the_disk_where_a_file_would_be(tmp_path: Path) -> None:
    there, not_yet = free_bytes(tmp_path), free_bytes(tmp_path / "a" / "b" / "c")
    assert there is not None
    assert not_yet is not None
    assert abs(there - not_yet) < 1 << 30
    with pytest.raises(EdgecError, match=r"the disk is full \(.* free\)"), disk_errors(tmp_path / "a" / "b"):
        raise OSError(errno.ENOSPC, "")


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_refused_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_whole(path, "old")
    monkeypatch.setattr(disk.os, "fsync", refuse)
    with pytest.raises(EdgecError, match="the disk is full"):
        write_whole(path, "new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"f": "old"}
    with pytest.raises(EdgecError, match="the disk is full"):
        write_new(tmp_path / "g", "new", durable=True)
    assert not (tmp_path / "g").exists()


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".f.part").write_text("x" * 1000)
    write_whole(tmp_path / "f", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"new"}


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    texts = [letter * 200_000 for letter in "abcdef"]
    write_whole(tmp_path / "f", texts[0])
    with ThreadPoolExecutor(len(texts)) as pool:
        writes = [pool.submit(write_whole, tmp_path / "f", text) for text in texts * 10]
        while not all(write.done() for write in writes):
            assert (tmp_path / "f").read_text() in texts
    for write in writes:
        write.result()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_planted_part_file_is_no_way_out(kind: str, tmp_path: Path) -> None:
    victim, part = tmp_path / "victim", tmp_path / ".f.part"
    victim.write_text("precious")
    {"link": lambda: part.symlink_to(victim), "pipe": lambda: os.mkfifo(part), "folder": part.mkdir}[kind]()
    with pytest.raises(EdgecError, match="cannot write"):
        write_whole(tmp_path / "f", "new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "f").exists()


def test_devices_are_not_replaced_by_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(EdgecError, match="it is there and is no file"):
            write_whole(path, "new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_npz_bytes_are_what_numpy_reads(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(3),
        "a/b": np.ones((2, 3), np.float16),
        "none": np.zeros((0, 4)),
        "scalar": np.float32(3),
    }
    for compressed in (False, True):
        data = npz_bytes(arrays, compressed=compressed)
        assert data == npz_bytes(arrays, compressed=compressed)
        with np.load(io.BytesIO(data)) as found:
            assert set(found.files) == set(arrays)
            for name, array in arrays.items():
                assert found[name].dtype == np.asarray(array).dtype
                np.testing.assert_array_equal(found[name], array)
    assert {i.compress_type for i in zipfile.ZipFile(io.BytesIO(data)).infolist()} == {zipfile.ZIP_DEFLATED}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's temporary folders."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"edgec-{os.geteuid()}"


def left(root: Path) -> set[str]:
    return {p.name for p in root.iterdir()} - {".lock"}


def test_scratch_is_private_and_goes(root: Path) -> None:
    with scratch_folder() as one, scratch_folder() as two:
        assert one.parent == two.parent == root
        assert one != two
        for folder in (root, one, two):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        write_scratch(one / "f", b"data")
        (one / "sub").mkdir()
    assert left(root) == set()
    with pytest.raises(KeyboardInterrupt), scratch_folder() as one:
        raise KeyboardInterrupt
    assert left(root) == set()


HOLD = """
import sys
from edgec.graph.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "f").write_text("data")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_folders_of_killed_processes_go_at_the_next_start_and_those_in_use_stay(root: Path) -> None:
    def hold() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", HOLD], stdin=pipe, stdout=pipe, text=True)

    with hold() as dead, hold() as alive:
        assert dead.stdout is not None
        assert alive.stdout is not None
        folders = [Path(one.stdout.readline().strip()) for one in (dead, alive)]
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert all(folder.is_dir() for folder in folders)
        with scratch_folder() as mine:
            assert left(root) == {mine.name, f"{mine.name}.lock", folders[1].name, f"{folders[1].name}.lock"}
        assert (folders[1] / "f").read_text() == "data"
        alive.communicate("")
        assert alive.returncode == 0
    assert left(root) == set()


def test_only_what_is_named_like_ours_is_removed(root: Path, tmp_path: Path) -> None:
    root.mkdir(mode=0o700)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "f").write_text("precious")
    for name in ("cpu.lock", "notes", "123", "123-xyz"):
        (root / name).write_text("")
    (root / "123-0123abcd").symlink_to(tmp_path / "victim")
    (root / "124-0123abcd").mkdir()
    (root / "124-0123abcd" / "link").symlink_to(tmp_path / "victim")
    with scratch_folder():
        pass
    assert {"cpu.lock", "notes", "123", "123-xyz"} <= left(root)
    assert "124-0123abcd" not in left(root)
    assert (tmp_path / "victim" / "f").read_text() == "precious"


def test_a_root_that_is_not_ours_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EdgecError, match=r"symbolic link[\s\S]*Set TMPDIR"), scratch_folder():
        pass
    root.unlink()
    root.mkdir()
    monkeypatch.setattr(disk.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EdgecError, match=r"another user[\s\S]*Set TMPDIR"):
        private_folder(root, hint="Set TMPDIR to a folder of your own.")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_missing_tmpdir_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "no"))
    with pytest.raises(EdgecError, match="TMPDIR is no folder"), scratch_folder():
        pass


def test_a_lock_is_one_processs(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass
    order = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
