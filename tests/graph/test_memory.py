"""What was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from edgec.graph import memory

PROGRAM = """
from pathlib import Path
from edgec.graph.memory import give_back

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

held = [bytearray(65536) for _ in range(2000)]
last, full = held[-1], pages()
del held  # below `last`, which is in use
freed = pages()
give_back()
print(full, freed, pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds in /proc")
def test_freed_memory_below_what_is_in_use_goes_back() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    full, freed, given = map(int, said.split())
    if freed < full - 16000:
        pytest.skip("this C library gave it back by itself")
    assert given < full - 24000  # of 32,000 pages of 4 kB


def test_a_little_stays_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    memory.give_back(memory.WORTH_GIVING - 1)
    assert trimmed == []
    memory.give_back(memory.WORTH_GIVING)
    memory.give_back()
    assert trimmed == [0, 0]
