"""Work on many small files by threads: in order, lazily, in pieces large enough to be worth a task."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

PIECE = 32
"""Items of one task: a task costs as much as opening a file."""
AHEAD = 1024
"""Items that are taken from the source at once."""


def mapped(pool: ThreadPoolExecutor, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`function` of every item, in their order. What it raises is raised here."""
    waiting = iter(items)
    while some := list(islice(waiting, AHEAD)):
        pieces = [some[start : start + PIECE] for start in range(0, len(some), PIECE)]
        for results in pool.map(lambda piece: [function(item) for item in piece], pieces):
            yield from results
