"""How far a tool is: a bar on a terminal, a line now and then elsewhere; on stderr, since stdout is for results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lary_schema.printable import printable, printable_lines
from lary_schema.terminal import terminal_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY_S = 10.0
"""At most one line in this time where no terminal shows a bar."""

Tick = Callable[[int], None]
"""Called with the number of failures so far, once for everything that is done."""


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Tick]:
    """Shows how many of `total` are done while the block runs."""
    console = Console(file=terminal_of(sys.stderr))
    if console.is_terminal and not console.is_dumb_terminal:
        with _bars(console) as bars:
            task = bars.add_task(printable(title), total=total, said="")
            yield lambda failed: bars.update(task, advance=1, said=f"{failed:,} failed" if failed else "")
    else:
        yield _Lines(title, total, unit).tick


def notify(text: str) -> None:
    """A line for people."""
    sys.stderr.write(printable_lines(text) + "\n")
    sys.stderr.flush()


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("[red]{task.fields[said]}"), console=console)


class _Lines:
    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._begin = self._said = time.monotonic()
        self._done = 0

    def tick(self, failed: int) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY_S:
            self._said = now
            rate = self._done / (now - self._begin)
            tail = f", {failed:,} failed" if failed else ""
            notify(f"{self._title}: {self._done:,}/{self._total:,} {self._unit}, {rate:.3g} a second{tail}")
