"""Messages: what is sent arrives, and what is none is refused whatever it looks like."""

import json
import math
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from lary_policy import wire
from lary_policy.wire import BadMessageError, Channel, Message, SilentError, accept, connect, listen, to_bytes
from lary_schema.base import PeerLostError

NAMES = st.text(max_size=8)
ARRAYS = st.sampled_from(sorted(wire.DTYPES)).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | NAMES, lambda one: st.lists(one, max_size=3))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Channel]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs, Channel(ours, "the policy")


@settings(max_examples=60, deadline=None)
@given(kind=NAMES, fields=st.dictionaries(NAMES, JSON, max_size=3), sent=st.dictionaries(NAMES, ARRAYS, max_size=3))
def test_what_is_sent_arrives(kind: str, fields: dict[str, Any], sent: dict[str, Any]) -> None:
    one, other = socket.socketpair()
    with one, other:
        Channel(one, "the simulator").send(Message(kind, fields, sent), 60)
        got = Channel(other, "the policy").receive(60)
    assert (got.kind, got.fields) == (kind, fields)
    assert got.arrays.keys() == sent.keys()
    for name, array in sent.items():
        assert got.arrays[name].dtype == array.dtype
        assert got.arrays[name].shape == array.shape
        assert got.arrays[name].tobytes() == array.tobytes()


def test_arrays_in_another_order_of_memory_arrive_too(pair: tuple[socket.socket, Channel]) -> None:
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4).transpose(2, 0, 1)
    pair[0].sendall(to_bytes(Message("x", arrays={"a": array})))
    np.testing.assert_array_equal(pair[1].receive(60).arrays["a"], array)


def header(arrays: Any = (), **more: Any) -> bytes:
    data = json.dumps({"kind": "actions", "fields": {}, "arrays": list(arrays) if arrays is not None else None} | more)
    return raw(data.encode())


def raw(data: bytes) -> bytes:
    return struct.pack("<4sI", wire.MAGIC, len(data)) + data


def described(**more: Any) -> dict[str, Any]:
    return {"name": "a", "dtype": "float32", "shape": [2]} | more


BAD = {
    "no magic": b"HTTP" + bytes(4),
    "long header": struct.pack("<4sI", wire.MAGIC, wire.HEADER_BYTES + 1),
    "no JSON": struct.pack("<4sI", wire.MAGIC, 2) + b"{]",
    "a list": struct.pack("<4sI", wire.MAGIC, 2) + b"[]",
    "deep": struct.pack("<4sI", wire.MAGIC, 60_000) + b"[" * 60_000,
    "no bytes of text": struct.pack("<4sI", wire.MAGIC, 2) + b"\xff\xff",
    "kind is a number": header(kind=1),
    "fields are a list": header(fields=[]),
    "no arrays": header(None),
    "many arrays": header([described(name=str(n)) for n in range(wire.ARRAYS + 1)]),
    "arrays are numbers": header([1]),
    "two of one name": header([described(), described()]),
    "unknown dtype": header([described(dtype="object")]),
    "dtype is a list": header([described(dtype=["<f4"])]),
    "shape is a number": header([described(shape=2)]),
    "negative": header([described(shape=[-1])]),
    "fraction": header([described(shape=[1.5])]),
    "truth": header([described(shape=[True])]),
    "many dimensions": header([described(shape=[1] * (wire.DIMENSIONS + 1))]),
    "large": header([described(shape=[wire.BODY_BYTES // 4 + 1])]),
    "large by product": header([described(shape=[1 << 20, 1 << 20, 1 << 20])]),
    "large together": header([described(name=n, shape=[wire.BODY_BYTES // 8 + 1]) for n in "ab"]),
    "zero times large": header([described(shape=[0, wire.BODY_BYTES + 1])]),
    "half a character": header(fields={"message": "\ud800"}),
    "half a character as a name": header([described(name="\udfff")]),
    "half a character in bytes": raw(b'{"kind": "\xed\xa0\x80", "fields": {}, "arrays": []}'),
    "another encoding": raw(json.dumps({"kind": "a", "fields": {}, "arrays": []}).encode("utf-16")),
    "more digits than a number has": raw(b'{"kind": "a", "fields": {"n": ' + b"9" * 5000 + b'}, "arrays": []}'),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_message_is_refused_before_anything_is_read_for_it(
    pair: tuple[socket.socket, Channel], data: bytes
) -> None:
    pair[0].sendall(data)
    with pytest.raises(BadMessageError):
        pair[1].receive(60)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from([1 << 13, 1 << 26])), max_size=wire.DIMENSIONS))
def test_arrays_of_no_bytes_are_made_or_refused(shape: list[int]) -> None:
    """Of an array without bytes nothing more has to come, whatever its other sizes are."""
    shape[len(shape) // 2 : len(shape) // 2 + 1] = [0]
    one, other = socket.socketpair()
    with one, other:
        one.sendall(header([described(shape=shape)]))
        if math.prod(max(1, n) for n in shape) <= wire.BODY_BYTES:
            assert Channel(other, "the policy").receive(60).arrays["a"].shape == tuple(shape)
        else:
            with pytest.raises(BadMessageError, match="above the limits"):
                Channel(other, "the policy").receive(60)


def test_what_was_not_read_is_noticed_and_stays(pair: tuple[socket.socket, Channel]) -> None:
    one, channel = pair
    assert not channel.has_more()
    one.sendall(to_bytes(Message("a")) + b"L")
    assert channel.receive(60).kind == "a"
    assert channel.has_more()
    one.sendall(to_bytes(Message("b"))[1:])
    assert channel.receive(60).kind == "b"
    assert not channel.has_more()
    one.close()
    assert not channel.has_more()


def test_a_message_that_ends_early_is_no_message(pair: tuple[socket.socket, Channel]) -> None:
    whole = to_bytes(Message("actions", {"n": 1}, {"a": np.zeros((2, 3), np.float32)}))
    for cut in range(len(whole)):
        one, other = socket.socketpair()
        with one, other:
            one.sendall(whole[:cut])
            one.shutdown(socket.SHUT_WR)
            with pytest.raises(PeerLostError, match="the policy has gone"):
                Channel(other, "the policy").receive(60)


@pytest.mark.parametrize("sent", [b"", b"LARY", to_bytes(Message("x", arrays={"a": np.zeros(9)}))[:-1]])
def test_a_side_that_says_nothing_more_is_silent(pair: tuple[socket.socket, Channel], sent: bytes) -> None:
    pair[0].sendall(sent)
    with pytest.raises(SilentError, match=r"the policy sent nothing whole for 0\.01 s"):
        pair[1].receive(0.01)


def test_a_side_that_takes_nothing_is_silent(pair: tuple[socket.socket, Channel]) -> None:
    with pytest.raises(SilentError, match="took no x"):
        pair[1].send(Message("x", arrays={"a": np.zeros(8 << 20, np.uint8)}), 0.01)


def test_to_send_to_one_that_has_gone(pair: tuple[socket.socket, Channel]) -> None:
    pair[0].close()
    with pytest.raises(PeerLostError, match="the policy has gone: Broken pipe"):
        pair[1].send(Message("x"), 60)


def test_what_cannot_be_sent_is_refused_here(pair: tuple[socket.socket, Channel]) -> None:
    for arrays_, text in (
        ({"a": np.zeros(2, np.complex64)}, "complex64 cannot be sent"),
        ({"a": np.zeros(wire.BODY_BYTES + 1, np.uint8)}, "above the limits"),
        ({str(n): np.zeros(1) for n in range(wire.ARRAYS + 1)}, "above the limits"),
    ):
        with pytest.raises(BadMessageError, match=text):
            pair[1].send(Message("x", arrays=arrays_), 60)
    with pytest.raises(BadMessageError, match="above the limits"):
        pair[1].send(Message("x", {"text": "a" * wire.HEADER_BYTES}), 60)


@pytest.mark.parametrize("depth", [0, 8])
def test_a_socket_in_a_deep_folder(tmp_path: Path, depth: int) -> None:
    """A socket's name may have 107 bytes; folders are as deep as they are."""
    path = tmp_path.joinpath(*["folder-of-twenty-byte"] * depth) / "policy.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # as a killed policy leaves it
    with listen(path) as listening:
        came: list[Channel] = []
        thread = threading.Thread(target=lambda: came.append(connect(path, 60)))
        thread.start()
        there = accept(listening, 60)
        thread.join()
        came[0].send(Message("hello"), 60)
        assert there.receive(60).kind == "hello"
        came[0].close()
        there.close()


def test_nobody_comes(tmp_path: Path) -> None:
    with listen(tmp_path / "s") as listening, pytest.raises(SilentError, match="no simulator came"):
        accept(listening, 0.01)
    with pytest.raises(SilentError, match="no policy at"):
        connect(tmp_path / "none", 0.01)
