"""Reads the events that a task on another host appends to its file."""

from collections.abc import Iterator
from pathlib import Path

from lary_schema.events import Event, from_line
from lary_schema.output import Lines

MOST_BYTES = 4 << 20
"""Read at one look: a task that says much is caught up with later."""


class Tail:
    """One attempt's events, from the beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines = Lines()
        self.last: Event | None = None
        """The newest event."""

    def events(self) -> Iterator[Event]:
        """Those that have come since the last call. A file that is not to be seen yet has none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(MOST_BYTES)
        except OSError:
            return
        self._offset += len(data)
        for line in self._lines.feed(data):
            event = from_line(line)
            if event is not None:
                self.last = event
                yield event
