"""Files that somebody else named: plain, bounded, readable as text, or one clear error without a wait."""

from __future__ import annotations

import codecs
import os
import socket
from pathlib import Path

import pytest

from edgec.graph import memory
from edgec.graph.errors import DataError, ModelError, UsageError
from edgec.graph.files import open_regular, read_bounded, read_text
from edgec.graph.memory import free_memory


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def dangling(path: Path) -> Path:
    path.symlink_to("nowhere")
    return path


def sparse(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    return path


NO_FILES = {
    "fifo": (fifo, "a FIFO"),
    "socket": (listening, ""),
    "folder": (folder, "it is a folder"),
    "loop of links": (loop, "symbolic link"),
    "dangling link": (dangling, "no such file"),
    "missing": (lambda path: path, "no such file"),
    "huge": (sparse, "too large for a recipe: 1.1 TB; 1 kB are allowed"),
    "zero": (lambda path: Path("/dev/zero"), "a device"),
    "never ends": (lambda path: Path("/proc/self/pagemap"), "more than 1 kB"),
    "NUL": (lambda path: path.with_name("a\0b"), "no file can have such a name"),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("error", [DataError, ModelError, UsageError])
def test_what_is_no_plain_file_is_refused_at_once(kind: str, error, tmp_path: Path) -> None:
    make, says = NO_FILES[kind]
    path = make(tmp_path / "x.jpg")
    with pytest.raises(error) as caught:
        read_bounded(path, 1000, "a recipe", error)
    assert says in str(caught.value)
    assert caught.value.where == str(path)


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert read_bounded(tmp_path / "b", 3, "x") == b"abc"
    with open_regular(tmp_path / "b") as stream:
        assert stream.read() == b"abc"


@pytest.mark.parametrize(
    "data",
    ["äöü, 1\n".encode(), codecs.BOM_UTF8 + "äöü, 1\n".encode(), "äöü, 1\n".encode("utf-16")]
    + [bom + "äöü, 1\n".encode(name) for bom, name in ((codecs.BOM_UTF16_BE, "utf-16-be"),)],
)
def test_text_with_and_without_a_mark(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    assert read_text(tmp_path / "t", 100, "a list") == "äöü, 1\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a\nö".encode("latin-1"), ":2: a list is not UTF-8 text: byte 0xf6"),
        (b"a\nb\nc\0", ":3: a list is not text: it holds a NUL"),
        (codecs.BOM_UTF16_LE + b"a\0b", "is not UTF-8 text"),
    ],
)
def test_other_encodings_are_named_with_the_line(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_text(tmp_path / "t", 100, "a list")
    assert says in str(caught.value)


def test_free_memory_is_what_a_process_could_have() -> None:
    assert 1 << 20 < free_memory() < 1 << 50


@pytest.mark.parametrize("version", [1, 2])
def test_copies_of_files_in_memory_are_free(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that has read much has little that is unused, and much that it can have."""
    _, limit, use, unneeded = memory._GROUPS[2 - version]
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / use).write_text("900\n")
    (tmp_path / "memory.stat").write_text(f"anon 200\n{unneeded} 600\nactive_file 100\n")
    monkeypatch.setattr(memory, "_GROUPS", ((str(tmp_path), limit, use, unneeded),))
    assert free_memory() == 700
