"""Messages over a Unix socket: a JSON header and arrays as bytes. Everything is bounded and checked.

A message is `LARY`, the header's length (uint32, little endian), the header, and the arrays' bytes one after the other.
The header is a JSON object: `kind`, `fields`, and `arrays`, a list of `{name, dtype, shape}`; numbers are little
endian, in C order. A side that sends anything else is refused; nothing of what it sends is ever executed.
"""

import json
import math
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from lary_schema.base import ContractError, PeerLostError
from numpy.typing import NDArray

MAGIC = b"LARY"
HEADER_BYTES = 1 << 16
ARRAYS = 32
BODY_BYTES = 64 << 20
"""Of all arrays of a message: ten pictures of 1024 x 1024 are half of it."""
DIMENSIONS = 6
DTYPES = {"bool": "|b1", "uint8": "|u1", "int64": "<i8", "float32": "<f4", "float64": "<f8"}
RETRY_S = 0.05
_PREFIX = struct.Struct("<4sI")

Arrays = Mapping[str, NDArray[Any]]


class BadMessageError(ContractError):
    """The other side sent what is no message, or more than is allowed. Nothing after it can be read."""


class SilentError(PeerLostError):
    """The other side is there, and sent nothing in time."""


@dataclass(frozen=True)
class Message:
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def to_bytes(message: Message) -> bytes:
    """The whole message. Raises BadMessageError for arrays that cannot be sent."""
    described, bodies = [], []
    for name, array in message.arrays.items():
        if array.dtype.name not in DTYPES:
            raise BadMessageError(f"array {name!r}: {array.dtype} cannot be sent; use one of {', '.join(DTYPES)}")
        described.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape)})
        bodies.append(np.ascontiguousarray(array, DTYPES[array.dtype.name]).tobytes())
    header = json.dumps({"kind": message.kind, "fields": message.fields, "arrays": described}, allow_nan=False).encode()
    size = sum(map(len, bodies))
    if len(header) > HEADER_BYTES or size > BODY_BYTES or len(bodies) > ARRAYS:
        raise BadMessageError(f"a message of {len(header)} + {size} bytes in {len(bodies)} arrays is above the limits")
    return b"".join([_PREFIX.pack(MAGIC, len(header)), header, *bodies])


@dataclass(frozen=True)
class _Described:
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize

    @classmethod
    def parse(cls, value: Any) -> Self:
        value = value if isinstance(value, dict) else {}
        name, dtype, shape = (value.get(key) for key in ("name", "dtype", "shape"))
        if not (isinstance(name, str) and isinstance(dtype, str) and isinstance(shape, list)) or dtype not in DTYPES:
            raise BadMessageError(f"not the description of an array: {str(value)[:100]}")
        # Without the zeros: an array of no bytes may have sizes that no library makes.
        fits = len(shape) <= DIMENSIONS and all(type(n) is int and 0 <= n <= BODY_BYTES for n in shape)
        if not fits or math.prod(max(1, n) for n in shape) > BODY_BYTES:
            raise BadMessageError(f"array {name[:40]!r}: shape {str(shape)[:100]} is above the limits")
        return cls(name, dtype, tuple(shape))


def _parse_header(data: bytes) -> tuple[Message, list[_Described]]:
    try:
        header = json.loads(data.decode())
        # Half of a surrogate pair passes for text until somebody writes it down.
        json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadMessageError("a header that is not JSON in UTF-8") from None
    header = header if isinstance(header, dict) else {}
    kind, fields, arrays = (header.get(key) for key in ("kind", "fields", "arrays"))
    if not isinstance(kind, str) or not isinstance(fields, dict) or not isinstance(arrays, list):
        raise BadMessageError("a header without kind, fields or arrays")
    if len(arrays) > ARRAYS:
        raise BadMessageError(f"{len(arrays)} arrays in a message; {ARRAYS} are allowed")
    described = [_Described.parse(one) for one in arrays]
    size = sum(one.size for one in described)
    if size > BODY_BYTES:
        raise BadMessageError(f"{size} bytes of arrays in a message; {BODY_BYTES} are allowed")
    if len({one.name for one in described}) != len(described):
        raise BadMessageError("two arrays of one name in a message")
    return Message(kind, fields), described


class Channel:
    """One end of a connection. `peer` is what messages call the other side (`the policy`)."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self._connection = connection
        self.peer = peer

    def send(self, message: Message, timeout_s: float) -> None:
        """Raises PeerLostError where the other side has gone, SilentError where it does not take it in time."""
        data = to_bytes(message)
        with self._in_time(timeout_s, f"took no {message.kind}"):
            self._connection.settimeout(timeout_s)
            self._connection.sendall(data)

    def receive(self, timeout_s: float) -> Message:
        """Raises as `send`, and BadMessageError."""
        deadline = time.monotonic() + timeout_s
        with self._in_time(timeout_s, "sent nothing whole"):
            magic, length = _PREFIX.unpack(self._exactly(_PREFIX.size, deadline))
            if magic != MAGIC or length > HEADER_BYTES:
                raise BadMessageError(f"{self.peer} sent what is no message (or a header above {HEADER_BYTES} bytes)")
            message, described = _parse_header(bytes(self._exactly(length, deadline)))
            for one in described:
                data = self._exactly(one.size, deadline)
                message.arrays[one.name] = np.frombuffer(data, DTYPES[one.dtype]).reshape(one.shape)
        return message

    def has_more(self) -> bool:
        """Whether something has come that was not read yet."""
        waiting = select.poll()
        waiting.register(self._connection, select.POLLIN)
        with suppress(OSError):
            return bool(waiting.poll(0)) and bool(self._connection.recv(1, socket.MSG_PEEK))
        return False

    def close(self) -> None:
        self._connection.close()

    def _exactly(self, count: int, deadline: float) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            self._connection.settimeout(max(1e-3, deadline - time.monotonic()))
            more = self._connection.recv_into(view[got:])
            if not more:
                raise PeerLostError(f"{self.peer} has gone: the connection was closed")
            got += more
        return data

    @contextmanager
    def _in_time(self, timeout_s: float, what: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise SilentError(f"{self.peer} {what} for {timeout_s:g} s") from None
        except OSError as error:
            raise PeerLostError(f"{self.peer} has gone: {error.strerror}") from None


# --- sockets ----------------------------------------------------------------------------------


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the socket that fits into the 107 bytes which the system allows, however deep its folder lies."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Make the socket; one that a killed policy left goes. Raises ContractError where it cannot be made."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with _short(path) as name:
            listening.bind(name)
        listening.listen(1)
    except OSError as error:
        listening.close()
        raise ContractError(f"{path}: the socket cannot be made: {error.strerror}; is its folder writable?") from None
    return listening


def accept(listening: socket.socket, timeout_s: float) -> Channel:
    """Wait for the simulator. Raises PeerLostError where none comes."""
    listening.settimeout(timeout_s)
    try:
        connection, _ = listening.accept()
    except TimeoutError:
        raise SilentError(f"no simulator came within {timeout_s:g} s") from None
    return Channel(connection, "the simulator")


def connect(path: Path, timeout_s: float) -> Channel:
    """Wait for the policy's socket. Raises SilentError where there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(1)
        try:
            with _short(path) as name:
                connection.connect(name)
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise SilentError(f"no policy at {path} within {timeout_s:g} s: {error.strerror}") from None
            time.sleep(RETRY_S)
        else:
            return Channel(connection, "the policy")
