"""Threads change no order and no result, and hand on what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edgec.passes.solvers.parallel import in_order, prefetch


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.01 if item == 0 else 0)
        return item * item

    assert list(in_order(slow_first, range(20), threads)) == [item * item for item in range(20)]


def test_several_items_are_under_way_at_once() -> None:
    both = threading.Barrier(2, timeout=60)
    list(in_order(lambda item: both.wait(), range(4), 2))  # raises BrokenBarrierError where one waits alone


def test_few_items_wait_to_be_looked_at() -> None:
    started: list[int] = []
    results = in_order(started.append, iter(range(100)), 2)
    next(results)
    assert len(started) <= 4


@pytest.mark.parametrize("threads", [1, 2])
def test_ahead_gives_the_same_items(threads: int) -> None:
    assert list(prefetch(iter(range(7)), threads)) == list(range(7))
    assert list(prefetch(iter(()), threads)) == []


def test_ahead_makes_the_next_item_meanwhile() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    following = prefetch(items(), 2)
    next(following)
    assert made.wait(10)


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_come_through(threads: int) -> None:
    def fail(item: int) -> int:
        return 1 // (3 - item)

    with pytest.raises(ZeroDivisionError):
        list(in_order(fail, range(5), threads))
    with pytest.raises(ZeroDivisionError):
        list(prefetch(map(fail, range(5)), threads))
