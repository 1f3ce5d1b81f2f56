"""Fixtures of the runtime tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .emulated import Board, FaultyLink, start_board
from .standin import StandIn, stand_in


@pytest.fixture(scope="session")
def pi(shared: Path) -> Iterator[Board]:
    """An emulated Raspberry Pi 4; skipped with the reason where it cannot start."""
    board = start_board(shared, "pi4", 22422)
    if isinstance(board, str):
        pytest.skip(board)
    board.sh("rm -rf .cache/edgec")  # what an earlier session left
    yield board
    board.stop()


@pytest.fixture
def faulty(shared: Path, pi: Board, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLink]:
    """A way to the Pi that can be spoiled."""
    monkeypatch.setenv("EDGEC_SSH_COMMAND", pi.ssh_command())
    link = FaultyLink(shared, pi)
    yield link
    link.close()


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A device behind a program in the place of ssh, with its home in the test's folder."""
    return stand_in(tmp_path, monkeypatch)
