"""The simulator's side of the socket, with no simulator behind it. Written from docs/evaluate.md alone: a second
reading of the protocol, which shares no code with the one that policies of ours answer."""

import json
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard

from lary_conformance.case import expect

PROTOCOL = 1
MAGIC = b"LARY"
BYTES = {"bool": 1, "uint8": 1, "int64": 8, "float32": 4, "float64": 8}
LONGEST_CHUNK = 1024
LARGEST = 64 << 20
RETRY_S = 0.05

Sent = tuple[str, tuple[int, ...], bytes]
"""An array: dtype, shape, bytes."""


@dataclass(frozen=True)
class Reply:
    """What a policy sent."""

    kind: str
    fields: Mapping[str, Any]
    arrays: list[Any]
    """Descriptions: name, dtype, shape."""
    body: bytes


@dataclass(frozen=True)
class Door:
    """Where a policy listens, for as long as it does."""

    path: Path
    ended: threading.Event
    """The policy's process is gone."""


def connect(door: Door, limit_s: float) -> "Simulating":
    """Wait until the policy listens. Raises ContractError."""
    deadline = time.monotonic() + limit_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(door.path) as name:
                connection.connect(name)
        except OSError as error:
            connection.close()
            if door.ended.is_set() or time.monotonic() > deadline:
                raise ContractError(f"nobody listens at {door.path.name} in /out: {error.strerror}") from None
            time.sleep(RETRY_S)
        else:
            connection.settimeout(limit_s)
            return Simulating(connection)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A socket's name has 107 bytes at most."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Simulating:
    """One connection to a policy."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def say(self, kind: str, fields: Mapping[str, Any], arrays: Mapping[str, Sent]) -> None:
        """Send a message. Raises ContractError where the policy has gone."""
        described = [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape, _) in arrays.items()]
        header = json.dumps({"kind": kind, "fields": fields, "arrays": described}).encode()
        body = b"".join(data for *_, data in arrays.values())
        self.raw(struct.pack("<4sI", MAGIC, len(header)) + header + body)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ContractError(f"the policy does not listen any more: {error.strerror}") from None

    def heard(self) -> Reply:
        """The next message. Raises ContractError where there is none, or it is no message."""
        magic, length = struct.unpack("<4sI", self._exactly(8))
        expect(magic == MAGIC, f"a message begins with {MAGIC!r}, not {magic!r}")
        expect(length <= 1 << 16, f"a header of {length} bytes; 65536 are allowed")
        try:
            header = json.loads(self._exactly(length))
            arrays = list(header["arrays"])
            size = sum(math.prod(one["shape"]) * BYTES[one["dtype"]] for one in arrays)
            reply = str(header["kind"]), dict(header["fields"])
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"not the header of a message: {type(error).__name__}: {error}") from None
        expect(0 <= size <= LARGEST, f"{size} bytes of arrays; {LARGEST} are allowed")
        return Reply(*reply, arrays, self._exactly(size))

    def is_closed(self) -> bool:
        """Whether the policy closes the connection, sending nothing."""
        try:
            return self._connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                more = self._connection.recv(count - len(data))
            except OSError as error:
                raise ContractError(f"no whole reply: {error.strerror or error}") from None
            expect(bool(more), "the policy closed the connection instead of a reply")
            data += more
        return bytes(data)

    # --- the words of the protocol ----------------------------------------------------------------

    def hello(self, card: BenchmarkCard, protocol: int = PROTOCOL) -> Reply:
        """Say hello as a simulator of this benchmark."""
        fields = {
            "protocol": protocol, "benchmark": card.key, "task": card.tasks[0].key, "actions": list(card.actions),
            "observations": {name: spec.model_dump(mode="json") for name, spec in card.observations.items()},
        }  # fmt: skip
        self.say("hello", fields, {})
        return self.heard()

    def reset(self, card: BenchmarkCard, seed: int) -> Reply:
        """Begin an episode."""
        task = card.tasks[0]
        self.say("reset", {"instruction": task.instruction, "seed": seed, "task": task.key, "state": 0}, {})
        return self.heard()

    def observation(self, card: BenchmarkCard, wants: list[str], step: int) -> Reply:
        """Show what is wanted, other bytes at every step."""
        arrays = {}
        for name in wants:
            spec = card.observations[name]
            count = math.prod(spec.shape)
            one = struct.pack("<f", 0.01 * step) if spec.dtype == "float32" else bytes([step]) * BYTES[spec.dtype]
            arrays[name] = (spec.dtype, tuple(spec.shape), one * count)
        self.say("observation", {"number": step}, arrays)
        reply = self.heard()
        number = reply.fields.get("number", step)
        expect(number == step, f"it was shown observation {step} and replied to {number}; one reply to each message")
        return reply

    def bye(self) -> None:
        self.say("bye", {}, {})


def floats(reply: Reply, width: int) -> list[float]:
    """The numbers of a chunk. Raises ContractError where it is none that can be done."""
    expect(reply.kind == "actions", f"`{reply.kind}` after `observation`: {str(reply.fields.get('message', ''))[:300]}")
    described = [(one.get("name"), one.get("dtype")) for one in reply.arrays]
    expect(described == [("actions", "float32")], f"arrays {described}; one float32 array `actions` is expected")
    shape = reply.arrays[0]["shape"]
    good = len(shape) == 2 and shape[1] == width and 1 <= shape[0] <= LONGEST_CHUNK
    expect(good, f"actions of shape {shape}; (T, {width}) with T from 1 to {LONGEST_CHUNK} is expected")
    values = [value for (value,) in struct.iter_unpack("<f", reply.body)]
    expect(all(map(math.isfinite, values)), "actions that are not finite: a NaN or infinity fails the episode")
    return values
