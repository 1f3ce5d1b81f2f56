"""Files that edgec reads back and believes: only what this user's edgec wrote.

A run folder may come from somebody else, unpacked by the user and so owned by the user, and a hash beside a file proves nothing.
Each file therefore begins with a keyed hash of its name and content. The key is the user's own: 32 random bytes in
``$XDG_STATE_HOME/edgec/seal.key`` (``~/.local/state/edgec``), which nobody else can read and which never leaves the machine. What
does not carry the right seal, because it was damaged, planted, or made by another user, is not read at all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgec.graph.disk import disk_errors, locked, private_folder, refuse_foreign, write_whole
from edgec.graph.errors import EdgecError

_KEY_BYTES = 32
_SEAL_BYTES = 32
_BLOCK = 1 << 20
MOST_BYTES = 3 << 30
"""A graph holds 2 GiB at most (protobuf); a longer file is not ours."""


@dataclass(frozen=True)
class SealedFolder:
    """Named byte strings in ``folder``, each a file. ``refused`` counts those that were there and could not be believed."""

    folder: Path
    key: bytes
    refused: list[str] = field(default_factory=list)

    def read(self, name: str) -> bytes | None:
        """What was stored as ``name``; None where nothing was, or not by this user, or where it is damaged.

        Raises EdgecError where ``folder`` is a symbolic link or another user's.
        """
        path = self.folder / name
        try:
            if self.folder.exists() or self.folder.is_symlink():
                refuse_foreign(self.folder)
            with _opened(path) as stream:
                seal = stream.read(_SEAL_BYTES)
                if hmac.compare_digest(seal, self._seal(name, _blocks(stream))):
                    stream.seek(_SEAL_BYTES)
                    return stream.read()
        except FileNotFoundError:
            return None
        except OSError:
            pass  # unreadable is damaged
        self.refused.append(name)
        return None

    def write(self, name: str, data: bytes, *, hint: str | None = None) -> None:
        """Store ``data``: the file is whole, or absent. Raises EdgecError where the disk refuses."""
        with disk_errors(self.folder, hint=hint):
            self.folder.mkdir(parents=True, exist_ok=True)
        refuse_foreign(self.folder)
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.is_file():
            path.unlink(missing_ok=True)
        write_whole(path, self._seal(name, iter([data])) + data, hint=hint)

    def forget(self, name: str) -> None:
        """What was stored as ``name`` goes."""
        with disk_errors(self.folder):
            (self.folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _seal(self, name: str, blocks: Iterator[bytes]) -> bytes:
        made = hmac.new(self.key, f"edgec 1 {name}\0".encode(), hashlib.sha256)
        for block in blocks:
            made.update(block)
        return made.digest()


def user_key() -> bytes:
    """This user's key, made on first use. Where there is no folder to keep it in, one for this process alone."""
    try:
        folder = private_folder(_state_folder())
        with disk_errors(folder), locked(folder / "seal.lock"):
            return _kept_key(folder / "seal.key")
    except EdgecError:
        # No home, or one that cannot be written to. This run can still keep its own passes; a later one has another key, and
        # says that it computes them anew.
        return secrets.token_bytes(_KEY_BYTES)


def _kept_key(path: Path) -> bytes:
    with suppress(OSError), _opened(path) as stream:
        found = os.fstat(stream.fileno())
        key = stream.read(_KEY_BYTES + 1)
        if (
            len(key) == _KEY_BYTES
            and found.st_uid == os.geteuid()
            and not stat.S_IMODE(found.st_mode) & 0o077
        ):
            return key
    key = secrets.token_bytes(_KEY_BYTES)
    write_whole(path, key, mode=0o600)
    return key


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(base or Path.home() / ".local" / "state") / "edgec"
    except RuntimeError as error:
        raise EdgecError("this user has no home folder") from error


def _opened(path: Path) -> IO[bytes]:
    """``path`` for reading: a real file of bounded size. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    stream = os.fdopen(handle, "rb")
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        stream.close()
        raise OSError("not a file of ours")
    return stream


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block
