"""Work on several cores: numpy and the runtimes release the interpreter's lock in their loops, so threads suffice.

BLAS itself stays on one thread in a pass (`compiler.pipeline`): most of the products here are too small to be shared out, and
the pools of several BLAS copies disturb one another. Results come in order, so sums do not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """``work`` of every item, in the order of the items; few more than ``threads`` are under way or wait to be looked at."""
    if threads <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def run_all(work: Callable[[Item], None], items: Iterable[Item], threads: int) -> None:
    """``work`` of every item, for what it does; `in_order` where it gives something."""
    for _ in in_order(work, items, threads):
        pass


def prefetch(items: Iterator[Item], threads: int) -> Iterator[Item]:
    """``items``, the next one made in a second thread while one is looked at."""
    if threads <= 1:
        yield from items
        return
    with ThreadPoolExecutor(1) as pool:
        end = object()
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # `end` is never given
