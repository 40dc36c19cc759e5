"""What stands in a checkpoint, as inert records: nothing of the file is imported, called or allocated.

The unpickler (`convert`) makes these; a tensor gets its values from the archive only when it is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch

from lary_worker.archives import Archive

Name = tuple[str, str]
"""Module and name of a class or function that the file names."""

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
"""What the classes `torch.XStorage` hold."""


class UnwritableError(Exception):
    """A tensor has no values, or not such that can be written. The message says why, without its name."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of values in the archive."""

    key: str
    kind: str
    """Name of its class, as in the file."""
    count: int
    """Elements (bytes of an untyped one)."""
    start: int = 0
    """First byte of a legacy view of a storage."""

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a storage has no state")

    @property
    def dtype(self) -> torch.dtype | None:
        """None: of values that are no plain numbers (quantised)."""
        return _STORAGES.get(self.kind.removesuffix("Storage"))


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that can be made, or (`problem`) the reason why not."""

    shape: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    storage: Storage | None = None
    offset: int = 0
    stride: tuple[int, ...] = ()
    conjugate: bool = False
    negative: bool = False
    array: Array | None = None
    """Its values, where NumPy pickled them."""
    problem: str | None = None
    attributes: tuple[str, ...] = ()
    """Names of what was attached to it."""

    def __setstate__(self, state: Any) -> None:
        """Nothing of a file's state changes a record: a tensor with one is not what it seems."""
        object.__setattr__(self, "problem", self.problem or "a tensor with a state of its own")

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def floating(self) -> bool:
        return self.dtype is None or self.dtype.is_floating_point or self.dtype.is_complex

    def make(self, archive: Archive) -> torch.Tensor:
        """The tensor, dense and contiguous, of its own memory. Raises UnwritableError."""
        if self.problem is not None:
            raise UnwritableError(self.problem)
        if self.array is not None:
            return self.array.make()
        assert self.dtype is not None
        assert self.storage is not None
        if self.size == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        try:
            flat = self._flat(archive)
        except (ValueError, OSError) as error:
            raise UnwritableError(str(error)) from None
        dense = torch.as_strided(flat, self.shape, self.stride)
        dense = dense.conj().resolve_conj() if self.conjugate else dense
        return (-dense if self.negative else dense).clone(memory_format=torch.contiguous_format)

    def _flat(self, archive: Archive) -> torch.Tensor:
        """The elements from the first to the last that it has, whatever lies between."""
        assert self.dtype is not None
        assert self.storage is not None
        count = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) + 1
        width = self.dtype.itemsize
        first, last = self.offset * width, (self.offset + count) * width
        inside = self.storage.count * (self.storage.dtype or self.dtype).itemsize
        if last > inside:
            raise ValueError(f"it reads {last} bytes of a storage that has {inside}")
        return torch.frombuffer(
            archive.read(self.storage.key, self.storage.start + first, self.storage.start + last), dtype=self.dtype
        )


@dataclass(eq=False)
class Array:
    """A NumPy array in the making: its type and, once its state came, its values."""

    base: str = "numpy.ndarray"
    dtype: ArrayType | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def tensor(self) -> Tensor:
        """As a tensor, so that it is treated as one."""
        dtype, problem = None, None
        try:
            dtype = self.make().dtype
        except UnwritableError as error:
            problem = str(error)
        shape = self.shape if isinstance(self.shape, tuple) else ()
        return Tensor(shape, dtype, array=self, problem=problem)

    def make(self) -> torch.Tensor:
        """The values as a tensor. Raises UnwritableError."""
        # Python 2 pickled bytes as text.
        data = self.data.encode("utf-8", "surrogateescape") if isinstance(self.data, str) else self.data
        if (
            self.base != "numpy.ndarray"
            or not isinstance(self.dtype, ArrayType)
            or not isinstance(data, (bytes, bytearray))
        ):
            raise UnwritableError(f"a NumPy array that is not of plain numbers ({self.base})")
        try:
            kind = np.dtype(self.dtype.order + self.dtype.code)
            array = np.frombuffer(data, kind).reshape(self.shape, order="F" if self.fortran else "C")
            return torch.from_numpy(array.astype(np.dtype(self.dtype.code), order="C", copy=True))
        except (TypeError, ValueError, OverflowError, SyntaxError) as error:
            raise UnwritableError(f"a NumPy array of {self.dtype.code}, which has no tensor type ({error})") from None


@dataclass(eq=False)
class ArrayType:
    """A NumPy dtype."""

    code: str
    order: str = "="

    def __setstate__(self, state: Any) -> None:
        self.order = {"|": "="}.get(state[1], state[1])
        if state[3] is not None:
            # Fields: a record array.
            self.code = "V"


@dataclass(eq=False)
class Object:
    """An object of a class that is not imported; takes whatever pickle does to it."""

    kind: Name
    args: tuple[Any, ...] = ()
    items: dict[Any, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    state: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Object:
        return Object((self.kind[0], f"{self.kind[1]}()"), (*args, *kwargs.values()))

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.values.append(value)

    def extend(self, values: Any) -> None:
        self.values.extend(values)

    def add(self, value: Any) -> None:
        self.values.append(value)

    @property
    def name(self) -> str:
        return ".".join(self.kind)

    @property
    def attributes(self) -> dict[Any, Any]:
        """What would be its `__dict__`, and its slots."""
        parts = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else (self.state,)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}

    @property
    def is_network(self) -> bool:
        """Whether it is a pickled torch.nn.Module, whatever its class."""
        return {"_parameters", "_buffers", "_modules"} <= self.attributes.keys()


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def wholes(value: Any) -> tuple[int, ...] | None:
    """A shape or stride; None for what is neither."""
    if isinstance(value, Object) and value.kind == ("torch", "Size") and len(value.args) == 1:
        value = value.args[0]
    return tuple(value) if isinstance(value, (tuple, list)) and all(map(is_whole, value)) else None
