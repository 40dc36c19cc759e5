"""TFRecord files of `tf.train.Example`, without TensorFlow: records with their checksums, features by name.

Format: for each record its length (uint64), a masked crc32c of those 8 bytes, the bytes, and a masked crc32c of them,
all little-endian. An Example is a protobuf message whose field 1 is a map of features (field 1: entries of key and
Feature; a Feature holds one list: 1 bytes, 2 float32, 3 int64, each in field 1, packed or not).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

_MASK_DELTA = 0xA282EAD8
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FLOATS, _INTEGERS = 2, 3
"""Field numbers of a Feature's lists."""


def masked_crc32c(data: bytes) -> int:
    """What a record's checksum is: the crc32c, rotated by 15 bits, plus a constant."""
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[bytes]:
    """All records of a file. Raises ContractError naming the record where it is cut off or a checksum differs."""
    with path.open("rb") as file:
        number = 0
        while head := file.read(12):
            yield _record(file, head, path, number)
            number += 1


def record_at(path: Path, offset: int, number: int) -> bytes:
    """The record that begins at a byte of the file. Raises ContractError as `read_records` does."""
    with path.open("rb") as file:
        file.seek(offset)
        return _record(file, file.read(12), path, number)


def record_offsets(path: Path) -> Iterator[int]:
    """Where each record begins; contents are not read. Raises ContractError where the file is cut off or damaged."""
    size, offset, number = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            end = offset + 16 + _length(file.read(12), path, number)
            if end > size:
                raise ContractError(f"{path}: record {number}: the file is cut off; copy it again")
            yield offset
            offset, number = end, number + 1


def _length(head: bytes, path: Path, number: int) -> int:
    if len(head) < 12:
        raise ContractError(f"{path}: record {number}: the file is cut off; copy it again")
    length: int = struct.unpack("<Q", _checked(path, number, head[:8], head[8:], "length"))[0]
    return length


def _record(file: BinaryIO, head: bytes, path: Path, number: int) -> bytes:
    content = _exactly(file, _length(head, path, number), path, number)
    return _checked(path, number, content, _exactly(file, 4, path, number), "content")


def _exactly(file: BinaryIO, size: int, path: Path, number: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise ContractError(f"{path}: record {number}: the file is cut off; copy it again")
    return content


def _checked(path: Path, number: int, data: bytes, crc: bytes, what: str) -> bytes:
    if struct.unpack("<I", crc)[0] != masked_crc32c(data):
        raise ContractError(f"{path}: record {number}: the checksum of its {what} differs; the file is damaged")
    return data


def write_record(file: BinaryIO, content: bytes) -> None:
    """Append one record with its checksums."""
    length = struct.pack("<Q", len(content))
    file.write(length + struct.pack("<I", masked_crc32c(length)))
    file.write(content + struct.pack("<I", masked_crc32c(content)))


# --- Example ------------------------------------------------------------------------------------


def feature_entries(example: bytes, where: str) -> dict[str, bytes]:
    """Features by name, each as the bytes of its map entry, tag and length included.

    Raises ContractError for what is no Example.
    """
    found: dict[str, bytes] = {}
    for number, _, features in _fields(example, where):
        if number != 1 or not isinstance(features, bytes):
            raise ContractError(f"{where}: no tf.train.Example: it has a field {number}")
        for inner, raw, entry in _fields(features, where):
            if inner != 1 or not isinstance(entry, bytes):
                raise ContractError(f"{where}: no tf.train.Example: its features have a field {inner}")
            parts = {n: value for n, _, value in _fields(entry, where)}
            key = parts.get(1, b"")
            if not isinstance(key, bytes):
                raise ContractError(f"{where}: no tf.train.Example: a feature without a name")
            found[key.decode("utf-8", "replace")] = raw
    return found


def count_values(entry: bytes, where: str) -> int:
    """Numbers in a feature of integers or floats."""
    _, _, inside = next(iter(_fields(entry, where)))
    assert isinstance(inside, bytes)
    feature = {n: value for n, _, value in _fields(inside, where)}.get(2, b"")
    assert isinstance(feature, bytes)
    total = 0
    for kind, _, values in _fields(feature, where):
        if kind not in (_FLOATS, _INTEGERS) or not isinstance(values, bytes):
            raise ContractError(f"{where}: a feature of bytes, where numbers are expected")
        for _, _, packed in _fields(values, where):
            if not isinstance(packed, bytes):
                total += 1
            elif kind == _FLOATS:
                total += len(packed) // 4
            else:
                total += sum(byte < 0x80 for byte in packed)
    return total


def read_values(entry: bytes, where: str) -> list[bytes] | NDArray[Any]:
    """What a feature holds: byte strings, or a flat array of float32 or int64. Raises ContractError for neither."""
    _, _, inside = next(iter(_fields(entry, where)))
    feature = {n: value for n, _, value in _fields(inside, where)}.get(2, b"") if isinstance(inside, bytes) else b""
    found: list[bytes] = []
    numbers: list[NDArray[Any]] = []
    for kind, _, values in _fields(feature, where) if isinstance(feature, bytes) else ():
        if not isinstance(values, bytes) or kind not in (1, _FLOATS, _INTEGERS):
            raise ContractError(f"{where}: no tf.train.Example: a feature of kind {kind}")
        for _, _, content in _fields(values, where):
            if kind == 1 and isinstance(content, bytes):
                found.append(content)
            else:
                numbers.append(_numbers(kind, content, where))
    return np.concatenate(numbers) if numbers else found


def _numbers(kind: int, content: bytes | int, where: str) -> NDArray[Any]:
    """Packed numbers, or one that stands for itself."""
    if kind == _FLOATS:
        data = content.to_bytes(4, "little") if isinstance(content, int) else content
        if len(data) % 4:
            raise ContractError(f"{where}: no tf.train.Example: floats of {len(data)} bytes")
        return np.frombuffer(data, "<f4")
    values, at = [], 0
    try:
        while isinstance(content, bytes) and at < len(content):
            value, at = _read_varint(content, at)
            values.append(value)
    except IndexError:
        raise ContractError(f"{where}: no tf.train.Example: a number is cut off") from None
    return np.array([content] if isinstance(content, int) else values, np.uint64).astype(np.int64)


def make_bytes_entry(name: str, values: Sequence[bytes]) -> bytes:
    """The map entry of a feature of byte strings."""
    return _tagged(1, _tagged(1, name.encode()) + _tagged(2, _tagged(1, b"".join(_tagged(1, v) for v in values))))


def make_example(entries: Mapping[str, bytes]) -> bytes:
    """An Example of map entries as `feature_entries` gives them."""
    return _tagged(1, b"".join(entries.values()))


def make_entry(name: str, values: NDArray[Any]) -> bytes:
    """The map entry of a flat feature: float32 values, or integers and truths as int64."""
    if values.dtype.kind == "f":
        field, packed = _FLOATS, np.ascontiguousarray(values, "<f4").tobytes()
    else:
        field, packed = _INTEGERS, b"".join(_varint(int(value) & (1 << 64) - 1) for value in values.ravel().tolist())
    feature = _tagged(field, _tagged(1, packed))
    return _tagged(1, _tagged(1, name.encode()) + _tagged(2, feature))


def _tagged(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _fields(message: bytes, where: str) -> Iterator[tuple[int, bytes, bytes | int]]:
    """(number, the field's bytes with its tag, content) of a protobuf message's fields."""
    at = 0
    try:
        while at < len(message):
            start = at
            tag, at = _read_varint(message, at)
            kind, content = tag & 7, b""
            if kind == _VARINT:
                value, at = _read_varint(message, at)
                yield tag >> 3, message[start:at], value
                continue
            if kind == _LENGTH:
                size, at = _read_varint(message, at)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise IndexError
            if at + size > len(message):
                raise IndexError
            content, at = message[at : at + size], at + size
            # A lone number of four bytes stands for itself: an unpacked float.
            yield tag >> 3, message[start:at], int.from_bytes(content, "little") if kind != _LENGTH else content
    except IndexError:
        raise ContractError(f"{where}: no tf.train.Example: a field is cut off or of no known kind") from None


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise IndexError
