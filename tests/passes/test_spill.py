"""Activations on disk: what comes back is what went in, and a disk that refuses or cuts is said."""

from __future__ import annotations

import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.graph.errors import EdgecError
from edgec.passes.incremental.executor import IncrementalExecutor, visits
from edgec.passes.incremental.spill import Spill
from edgec.passes.incremental.store import ActivationStore

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),  # not contiguous
    np.array([True, False]),
    np.zeros((0, 7), np.int8),
    np.float16(3.5) * np.ones(()),
    np.arange(5, dtype=np.int64)[::-1],
]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: the kernel cuts the write that does, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_arrays_come_back_from_one_file(tmp_path: Path) -> None:
    spill, most = Spill(tmp_path / "f"), 0
    for array in [*reversed(ARRAYS), *ARRAYS]:
        most = max(most, array.nbytes)
        spill.write(array)
        found = spill.read()
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        np.testing.assert_array_equal(found, array)
        assert (tmp_path / "f").stat().st_size == spill.size == most
    spill.remove()
    assert not (tmp_path / "f").exists()
    spill.remove()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 5000, 39_999])
def test_a_write_that_does_not_fit_is_an_error(size: int, tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    with file_limit(size), pytest.raises(EdgecError, match=r"cannot write: the file is larger[\s\S]*TMPDIR"):
        spill.write(np.ones(10_000, np.float32))
    assert not (tmp_path / "f").exists()


def test_what_takes_the_place_of_another_and_does_not_fit_is_an_error(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    spill.write(np.ones(1000, np.float32))
    with file_limit(20_000), pytest.raises(EdgecError, match="cannot write"):
        spill.write(np.ones(10_000, np.float32))
    assert not (tmp_path / "f").exists()


def test_a_disk_that_takes_less_than_it_is_given_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes nothing more; what an earlier array left behind there is not taken for the rest of this one."""
    spill = Spill(tmp_path / "f")
    spill.write(np.ones(1000, np.float32))

    class Stingy(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:100]) if self.tell() < 300 else 0

    monkeypatch.setattr(Path, "open", lambda path, mode, **_: Stingy(path, mode))
    with pytest.raises(EdgecError, match="300 bytes where 400 were given"):
        spill.write(np.zeros(100, np.float32))
    assert not (tmp_path / "f").exists()


def test_a_file_that_was_cut_or_removed_is_an_error(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    spill.write(np.ones(1000, np.float32))
    os.truncate(tmp_path / "f", 3996)
    with pytest.raises(EdgecError, match="cut short"):
        spill.read()
    (tmp_path / "f").unlink()
    with pytest.raises(EdgecError, match="cannot read: no such"):
        spill.read()
    with pytest.raises(EdgecError, match="cannot write: no such"):
        spill.write(np.ones(1000, np.float32))


def test_files_of_dropped_arrays_take_the_next_ones(tmp_path: Path) -> None:
    with ActivationStore(tmp_path, 0) as store:
        for number, count in enumerate((100, 50, 10)):
            store.put("a", number, np.full(count, number, np.float32))
        for number in range(3):
            store.put("b", number, np.full(40, number + 10, np.float32))
            store.drop_one("a", number)
        store.put("c", 0, np.full(70, 7.0, np.float32))
        assert len(list(tmp_path.iterdir())) == 4
        for number in range(3):
            np.testing.assert_array_equal(store.get("b", number), np.full(40, number + 10, np.float32))
        np.testing.assert_array_equal(store.get("c", 0), np.full(70, 7.0, np.float32))
        with pytest.raises(KeyError):
            store.get("a", 0)
    assert not any(tmp_path.iterdir())


NET = "net (float[N,4,16,16] x) => (float[N,4,16,16] y) <float[4,4,1,1] a, float[4,4,1,1] b> { t = Conv(x, a)  y = Conv(t, b) }"


def test_the_walks_that_spill_say_so(tmp_path: Path, canonical, noise) -> None:
    model = canonical(NET)
    data = noise(model, 32)
    with ActivationStore(tmp_path, 0) as store:
        walk = IncrementalExecutor(model, data.batches(4), store, 1)
        with file_limit(10_000), pytest.raises(EdgecError, match="cannot write"):
            list(walk.move(visits(model, ["t", "y"])[0]))
    store = ActivationStore(tmp_path, 0)
    with file_limit(20_000), pytest.raises(EdgecError, match="cannot write"):
        store.put("t", 0, np.ones(10_000, np.float32))
    store.clear()
    assert not any(tmp_path.iterdir())
