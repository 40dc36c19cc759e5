"""Standard output and error of our commands: text of others (names, cells, messages) is shown and never acted on.

A command's main function calls `safe_output` first. What draws on a terminal by itself (rich) writes to
`terminal_of(stream)` and makes its texts `printable`.
"""

import io
import sys
from typing import TextIO

from lary_schema.printable import printable_lines


class SafeStream(io.TextIOWrapper):
    """A text stream on the buffer of another one that writes control and bidirectional characters as their codes."""

    def __init__(self, below: io.TextIOWrapper) -> None:
        # A name that is no UTF-8 has surrogates, which are shown as codes; other encodings miss other characters.
        super().__init__(below.buffer, below.encoding, "backslashreplace", line_buffering=below.line_buffering)
        self.below = below

    def write(self, text: str) -> int:
        super().write(printable_lines(text))
        return len(text)

    def flush(self) -> None:
        """Of both: at the end of a process nobody flushes the stream below, whose buffer this one closes."""
        super().flush()
        if not self.below.closed:
            self.below.flush()


def safe_output() -> None:
    """Replace `sys.stdout` and `sys.stderr`; streams that are closed, or no files, stay as they are."""
    if type(sys.stdout) is io.TextIOWrapper:
        sys.stdout = SafeStream(sys.stdout)
    if type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = SafeStream(sys.stderr)


def terminal_of(stream: TextIO) -> TextIO:
    """The stream below a safe one."""
    return stream.below if isinstance(stream, SafeStream) else stream
