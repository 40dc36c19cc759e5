"""Files of `torch.save` as bytes: which kind a file is, and where the values of each storage lie in it.

Nothing here unpickles. Every number of the file is compared with the file's size before it is used, so a
truncated file or one that announces more than it holds is refused before memory is taken for it.
"""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lary_schema.base import WeightsError
from lary_schema.damage import DAMAGED_ARCHIVE

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""First bytes of what torch.save wrote before 1.6: its magic number, pickled."""
ZIP = b"PK\x03\x04"
_OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"GGUF": "a GGUF file (llama.cpp)",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, lengths of the name and of the extra field: a zip record's own header."""
_ENCRYPTED = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Region:
    """Where the bytes of one storage lie."""

    offset: int
    size: int
    crc: int = 0
    """CRC-32 of the bytes; 0: not recorded (`torch.serialization.set_crc32_options(False)`)."""


@dataclass
class Archive:
    """A file of `torch.save`, open. `storages` is filled by whoever reads its pickle, for the legacy format."""

    path: Path
    file: BinaryIO
    pickle: bytes | None
    """The pickle; None: the file itself is one, from its start (legacy)."""
    storages: dict[str, Region] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)

    def read(self, key: str, start: int, stop: int) -> bytearray:
        """Bytes `start` to `stop` of a storage. Raises ValueError where it has fewer, or others than recorded."""
        region = self.storages.get(key)
        if region is None:
            raise ValueError(f"its values (storage {key}) are not in the file")
        if stop > region.size:
            raise ValueError(f"it needs {stop} bytes of storage {key}, which has {region.size}")
        self._check(key, region)
        self.file.seek(region.offset + start)
        data = bytearray(self.file.read(stop - start))
        if len(data) != stop - start:
            raise ValueError(f"the file ends within {key}")
        return data

    def _check(self, key: str, region: Region) -> None:
        if region.crc and key not in self._checked:
            found, left = 0, region.size
            self.file.seek(region.offset)
            while left > 0 and (chunk := self.file.read(min(left, _CHUNK))):
                found, left = zlib.crc32(chunk, found), left - len(chunk)
            if found != region.crc:
                raise ValueError(f"the bytes of {key} are damaged (another CRC-32 than the file records)")
            self._checked.add(key)


def open_archive(path: Path, file: BinaryIO) -> Archive:
    """The archive in `file`, which is `path`, opened. Raises WeightsError saying what it is instead."""
    begin = file.read(32)
    if begin[8:9] == b"{":
        raise WeightsError(f"{path}: is a safetensors file already, whatever its name; nothing is to be converted")
    if begin.startswith(ZIP):
        return _open_zip(path, file)
    # A tar archive may begin with any bytes, and torch would unpack it.
    if tarfile.is_tarfile(path):
        raise WeightsError(f"{path}: is a tar archive (torch before 0.2 saved such); {_SAVE_AGAIN}")
    if begin.startswith(LEGACY):
        file.seek(0)
        return Archive(path, file, None)
    raise WeightsError(f"{path}: {_what(begin)}, not a file of torch.save")


_SAVE_AGAIN = "load it with the program that wrote it and save its state_dict() by torch.save"


def _what(begin: bytes) -> str:
    known = next((text for start, text in _OTHERS.items() if begin.startswith(start)), None)
    if known:
        return f"is {known}"
    # Protocols 2 to 5 begin so; older ones begin with any opcode.
    if begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05":
        return f"is a plain pickle; {_SAVE_AGAIN}. As it is, it is"
    return "is of an unknown format (truncated at its beginning, or something else),"


def _open_zip(path: Path, file: BinaryIO) -> Archive:
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    except DAMAGED_ARCHIVE as error:
        raise WeightsError(f"{path}: truncated or damaged: {error}; fetch it again") from None
    root = _root(path, [record.filename for record in records])
    _check_records(path, records)
    regions = {record.filename: _region(path, file, record) for record in records}
    whole = Archive(path, file, None, regions)
    _check_order(whole, f"{root}byteorder")
    inside = f"{root}data/"
    storages = {name.removeprefix(inside): region for name, region in regions.items() if name.startswith(inside)}
    return Archive(path, file, _record(whole, f"{root}data.pkl"), storages)


def _check_records(path: Path, records: list[zipfile.ZipInfo]) -> None:
    if any(record.flag_bits & _ENCRYPTED for record in records):
        raise WeightsError(f"{path}: is an encrypted zip archive; unpack it first")
    # torch.save never compresses, so a small file cannot announce a large one.
    announced, there = sum(record.file_size for record in records), path.stat().st_size
    packed = [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]
    if packed or announced > there:
        raise WeightsError(
            f"{path}: has {there} bytes and announces {announced} ({len(packed)} records are compressed), which "
            "torch.save does not write; pack it again without compression if you trust it"
        )


def _is_torch(names: list[str]) -> bool:
    return any(name.rpartition("/")[2] == "data.pkl" for name in names)


def _root(path: Path, names: list[str]) -> str:
    """What all names of a torch.save archive begin with, the slash included."""
    if len(set(names)) != len(names):
        raise WeightsError(f"{path}: holds records of the same name; torch.save writes no such file")
    found = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if any(name.endswith(("/constants.pkl", "/archive_format")) for name in names):
        kind = "a TorchScript archive" if _is_torch(names) else "an archive of torch.export"
        raise WeightsError(
            f"{path}: is {kind}: a program with its weights, and not weights alone; {_SAVE_AGAIN} "
            "(torch.jit.load or torch.export.load runs it, so do that where it may do no harm)"
        )
    if len(found) == 1:
        return found[0]
    if names and all(name.endswith(".npy") for name in names):
        raise WeightsError(f"{path}: is an archive of NumPy arrays (.npz), not a file of torch.save")
    shown = ", ".join(names[:8]) or "nothing"
    raise WeightsError(f"{path}: is a zip archive, but not one of torch.save (it holds {shown})")


def _check_order(whole: Archive, name: str) -> None:
    # Archives before torch 2.1 do not say.
    if name in whole.storages and _record(whole, name) != b"little":
        raise WeightsError(f"{whole.path}: was written on a big-endian machine; {_SAVE_AGAIN} on a common one")


def _record(whole: Archive, name: str) -> bytes:
    try:
        return bytes(whole.read(name, 0, whole.storages[name].size))
    except ValueError as error:
        raise WeightsError(f"{whole.path}: record {name}: {error}; fetch it again") from None


def _region(path: Path, file: BinaryIO, record: zipfile.ZipInfo) -> Region:
    file.seek(record.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(ZIP):
        raise WeightsError(f"{path}: damaged: record {record.filename} is not where the file says; fetch it again")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    offset = record.header_offset + _LOCAL_HEADER.size + name + extra
    if offset + record.file_size > path.stat().st_size:
        raise WeightsError(f"{path}: truncated within record {record.filename}; fetch it again")
    return Region(offset, record.file_size, record.CRC)


def legacy_regions(file: BinaryIO, keys: list[str], sizes: Mapping[str, int]) -> dict[str, Region]:
    """Where the storages lie that follow, in this order, at the file's position: 8 bytes of count, then values.

    `sizes` are the bytes of one value by key. Raises ValueError where the file ends before them.
    """
    start, end = file.seek(0, 1), file.seek(0, 2)
    file.seek(start)
    regions = {}
    for key in keys:
        count = file.read(8)
        offset = file.tell()
        size = int.from_bytes(count, "little", signed=True) * sizes.get(key, 0)
        if len(count) < 8 or size < 0 or offset + size > end:
            raise ValueError(f"the file ends within storage {key}")
        regions[key] = Region(offset, size)
        file.seek(offset + size)
    return regions
