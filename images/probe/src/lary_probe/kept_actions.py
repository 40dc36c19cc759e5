"""Action chunks that were read before, in one file instead of one for each row (decision 0043).

The file holds blocks of rows: for each row size, time of change and inode's time of change of its action file, then
the chunks. It is a cache: a row counts only where its own file is the same by these three, and a block where its
checksum fits. What does not count is read from its own file, and refused for what is wrong with it, as without a cache.
"""

import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np
from lary_schema.atomic import replacing
from lary_schema.base import canonical_json
from lary_schema.kept_actions import VARIABLE
from numpy.typing import NDArray

BLOCK = 1024
"""Rows of a block."""
WRITTEN_ABOVE = 1 / 8
"""Share of the rows that were read from their own files above which the file is written anew."""
RECENT_NS = 2 * 10**9
"""A file that changed so shortly before it was looked at may change again and show the same time: it is not kept."""
_ABSENT = -1
"""In the place of a size."""
_SUM_BYTES = 8
_EXACT = ("<f4", "<f8")
"""What values are kept in: the first that holds all of them to the last bit."""
Facts = NDArray[np.int64]
"""(n, 3): size, time of change, inode's time of change."""
Positions = NDArray[np.int64]
"""Rows of all splits of a job, counted from the first of train."""


class Part(NamedTuple):
    """What was read of one split."""

    positions: Positions
    """(n,), rising."""
    chunks: NDArray[np.float64]
    """(n, stride, dim)"""


class _Block(NamedTuple):
    facts: Facts
    """(BLOCK, 3)"""
    values: NDArray[np.floating]
    """(BLOCK, stride, dim)"""


class KeptActions:
    """The file of one job, there or not."""

    def __init__(self, path: Path | None, rows: int, shape: tuple[int, int]) -> None:
        """`rows` of all splits; `shape` is (stride, dim). Without a path nothing is kept."""
        self._path, self._rows, self._shape = path, rows, shape
        self._facts = np.full((rows if path else 0, 3), _ABSENT, np.int64)
        self._wanted = self._read = 0
        self._file, self._dtype = self._opened()
        self._last: tuple[int, _Block | None] = (-1, None)

    @classmethod
    def of_job(cls, rows: int, shape: tuple[int, int]) -> Self:
        """The file that whoever started this process names for its job."""
        name = os.environ.get(VARIABLE)
        return cls(Path(name) if name else None, rows, shape)

    def fill(self, positions: Positions, paths: Sequence[Path], into: NDArray[np.float64]) -> list[int]:
        """Put what is kept into `into` (n, stride, dim); the indices of the rest, to be read from `paths`."""
        self._wanted += len(paths)
        if self._path is None:
            return list(range(len(paths)))
        # Looked at before it is read: a file that changes meanwhile is another one next time.
        facts = self._facts[positions] = _facts_of(paths)
        left = np.ones(len(paths), bool)
        for number in np.unique(positions // BLOCK).tolist():
            if (block := self._block(number)) is None:
                continue
            here = np.flatnonzero(positions // BLOCK == number)
            at = positions[here] - number * BLOCK
            same = (block.facts[at] == facts[here]).all(axis=1) & (facts[here, 0] != _ABSENT)
            into[here[same]] = block.values[at[same]]
            left[here[same]] = False
        self._read += int(left.sum())
        return np.flatnonzero(left).tolist()

    def write(self, parts: Sequence[Part]) -> None:
        """Keep what was read, where much of it was not kept. A volume that is full or refuses keeps nothing."""
        if self._path is None or self._read <= WRITTEN_ABOVE * self._wanted:
            return
        dtype = next(d for d in _EXACT if all(_holds(d, part.chunks) for part in parts))
        with suppress(OSError), replacing(self._path, sync=False) as draft, draft.open("xb") as file:
            file.write(self._header(dtype))
            for number in range(-(-self._rows // BLOCK)):
                content = self._packed(number, parts, dtype)
                file.write(zlib.crc32(content).to_bytes(_SUM_BYTES, "little"))
                file.write(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    # --- the file -----------------------------------------------------------------------------

    def _opened(self) -> tuple[IO[bytes] | None, str]:
        """The file and its dtype; None where there is none, or another one."""
        if self._path is not None:
            with suppress(OSError):
                file = self._path.open("rb")
                begin = file.readline(1 << 10)
                for dtype in _EXACT:
                    if begin == self._header(dtype):
                        return file, dtype
                file.close()
        return None, _EXACT[-1]

    def _header(self, dtype: str) -> bytes:
        facts = {"actions": 1, "rows": self._rows, "shape": self._shape, "dtype": dtype, "block": BLOCK}
        return canonical_json(facts) + b"\n"

    def _block(self, number: int) -> _Block | None:
        """None where it is not whole."""
        if self._last[0] != number:
            self._last = number, None
            with suppress(OSError):
                self._last = number, self._read_block(number)
        return self._last[1]

    def _read_block(self, number: int) -> _Block | None:
        if self._file is None:
            return None
        records, item = BLOCK * self._facts.strides[0], np.dtype(self._dtype).itemsize
        size = records + BLOCK * self._shape[0] * self._shape[1] * item
        self._file.seek(len(self._header(self._dtype)) + number * (_SUM_BYTES + size))
        checksum = int.from_bytes(self._file.read(_SUM_BYTES), "little")
        content = self._file.read(size)
        if len(content) != size or zlib.crc32(content) != checksum:
            return None
        values = np.frombuffer(content, self._dtype, offset=records).reshape(BLOCK, *self._shape)
        return _Block(np.frombuffer(content, np.int64, BLOCK * 3).reshape(BLOCK, 3), values)

    def _packed(self, number: int, parts: Sequence[Part], dtype: str) -> bytes:
        """A block's records and values; the last one is as long as the others."""
        first = number * BLOCK
        facts, values = np.full((BLOCK, 3), _ABSENT, np.int64), np.zeros((BLOCK, *self._shape), dtype)
        for positions, chunks in parts:
            here = slice(*np.searchsorted(positions, (first, first + BLOCK)))
            at = positions[here]
            facts[at - first], values[at - first] = self._facts[at], chunks[here]
        return facts.tobytes() + values.tobytes()


def _holds(dtype: str, chunks: NDArray[np.float64]) -> bool:
    """Whether every value is the same in `dtype`; block by block, since chunks may fill the memory."""
    blocks = (chunks[start : start + BLOCK] for start in range(0, len(chunks), BLOCK))
    with np.errstate(over="ignore"):
        return all(np.array_equal(block.astype(dtype), block) for block in blocks)


def _facts_of(paths: Sequence[Path]) -> Facts:
    """Of one that cannot be looked at, and of one that has just changed: absent."""
    found = np.full((len(paths), 3), _ABSENT, np.int64)
    for row, path in enumerate(paths):
        with suppress(OSError):
            stat = path.stat()
            if stat.st_ctime_ns < time.time_ns() - RECENT_NS:
                found[row] = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return found
