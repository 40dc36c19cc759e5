"""Files that are no whole checkpoint, or that were made to do harm: named for what they are, exit code 4."""

import contextlib
import gzip
import io
import os
import pickle
import pickletools
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from lary_schema.base import ContractError, ExitCode, WeightsError
from lary_worker.__main__ import main
from lary_worker.checkpoints import read_state
from lary_worker.convert import convert
from safetensors.torch import save_file
from torch import nn


def refused(path: Path, match: str) -> None:
    target = path.with_name("out.safetensors")
    with pytest.raises(WeightsError, match=match) as error:
        convert(path, target, trusted=True)
    assert str(path) in str(error.value)
    assert error.value.exit_code == ExitCode.WEIGHTS
    assert not target.exists()


def saved(folder: Path, *, zipped: bool = True, **content) -> Path:
    path = folder / "in.pt"
    content = content or {"model": {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}, "lr": 0.1}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def repacked(path: Path, change: Callable[[str, bytes], Iterable[tuple[str, bytes]]], method: int = 0) -> Path:
    """The archive with other records."""
    with zipfile.ZipFile(path) as old:
        records = [new for name in old.namelist() for new in change(name, old.read(name))]
    with zipfile.ZipFile(path, "w", method) as new:
        for name, data in records:
            new.writestr(name, data)
    return path


# --- other formats ----------------------------------------------------------------------------


def _safetensors(path: Path) -> None:
    save_file({"w": torch.ones(2)}, path)


def _script(path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def _exported(path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), file)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def _disguised_tar(path: Path) -> None:
    """A tar archive that begins like a legacy file: torch.load would unpack it."""
    legacy = io.BytesIO()
    torch.save({}, legacy, _use_new_zipfile_serialization=False)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(legacy.getvalue()[:20].decode("utf-8", "surrogateescape")))


def _foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=np.ones(2))


FORMATS = {
    "safetensors": (_safetensors, "is a safetensors file already"),
    "TorchScript": (_script, "is a TorchScript archive"),
    "export": (_exported, r"is an archive of torch\.export"),
    "tar": (_tar, "is a tar archive"),
    "disguised tar": (_disguised_tar, "is a tar archive"),
    "zip": (_foreign_zip, r"not one of torch\.save \(it holds config\.json\)"),
    "npz": (_npz, r"NumPy arrays \(\.npz\)"),
    "npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{}"), r"\.npy"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(bytes(99))), "gzip"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"w": 1})), "plain pickle"),
    "an old pickle": (lambda path: path.write_bytes(pickle.dumps({"w": 1}, 0)), "unknown format"),
    "a web page": (lambda path: path.write_bytes(b"<!DOCTYPE html>"), "unknown format"),
    "one tensor": (lambda path: torch.save(torch.ones(2), path), "it is a tensor float32"),
    "a list": (lambda path: torch.save([torch.ones(2)], path), "list of 1, whose 1 tensors stand in lists"),
    "no tensors": (lambda path: torch.save({"lr": 1}, path), "it is a dict of 1$"),
    "an optimiser": (
        lambda path: torch.save({"state": {0: {"m": torch.ones(2)}}, "param_groups": [{}]}, path),
        "belong to an optimiser",
    ),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["in.pt", "in.safetensors"])
def test_other_files_are_named_for_what_they_are(tmp_path, form, name):
    make, why = FORMATS[form]
    make(tmp_path / name)
    refused(tmp_path / name, why)


def test_a_file_of_any_name_is_converted(tmp_path):
    path = saved(tmp_path).rename(tmp_path / "in.safetensors")
    assert convert(path, tmp_path / "out", trusted=True).tensors == 2


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_cut_is_seen(tmp_path, zipped):
    whole = saved(tmp_path, zipped=zipped).read_bytes()
    path = tmp_path / "cut.pt"
    for size in range(1, len(whole), 7):
        path.write_bytes(whole[:size])
        refused(path, r"cut\.pt")


def test_every_changed_byte_of_a_zip_is_seen_or_harmless(tmp_path):
    """CRC-32 of each record: values and pickle; the rest is padding, or what nothing reads."""
    whole = saved(tmp_path).read_bytes()
    convert(tmp_path / "in.pt", tmp_path / "good", trusted=True)
    good = read_state(tmp_path / "good")
    seen = 0
    for at in range(0, len(whole), 3):
        path, target = tmp_path / "flip.pt", tmp_path / f"flip-{at}"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            convert(path, target, trusted=True)
        except WeightsError:
            seen += 1
            continue
        found = read_state(target)
        assert found.keys() == good.keys()
        assert all(torch.equal(found[name], good[name]) for name in good)
    assert seen > 100


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_no_changed_byte_is_more_than_an_error(tmp_path, zipped):
    """In the pickle itself, whatever its CRC: an error of ours, or a conversion; nothing else."""
    path = saved(tmp_path, zipped=zipped)
    with zipfile.ZipFile(path) if zipped else path.open("rb") as file:
        whole = file.read("in/data.pkl") if zipped else file.read()
    for at in range(0, len(whole), 2):
        for bits in (0x01, 0x80):
            changed = whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :]
            if zipped:
                saved(tmp_path)
                repacked(path, lambda n, d, c=changed: [(n, c if n.endswith("data.pkl") else d)])
            else:
                path.write_bytes(changed)
            for left in tmp_path.glob("out*"):
                left.unlink()
            with contextlib.suppress(ContractError):
                convert(path, tmp_path / "out", trusted=True)


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)
    convert(path, tmp_path / "out", trusted=True)
    assert torch.equal(read_state(tmp_path / "out")["w"], torch.arange(6.0).reshape(2, 3))


REPACKED = {
    "values missing": (lambda n, d: [] if "/data/" in n else [(n, d)], r"w: its values \(storage 0\) are not in"),
    "values short": (lambda n, d: [(n, d[:9] if "/data/" in n else d)], "which has 9"),
    "big-endian": (lambda n, d: [(n, b"big" if n.endswith("byteorder") else d)], "big-endian"),
    "no pickle": (lambda n, d: [] if n.endswith("pkl") else [(n, d)], r"not one of torch\.save"),
    "two of a name": (lambda n, d: [(n, d), (n, d)], "same name"),
    "two pickles": (lambda n, d: [(n, d), (f"other/{n.partition('/')[2]}", d)], r"not one of torch\.save"),
}


@pytest.mark.parametrize("what", REPACKED)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_other_records(tmp_path, what):
    change, why = REPACKED[what]
    refused(repacked(saved(tmp_path), change), why)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_small_file_that_announces_a_large_one(tmp_path, method):
    path = saved(tmp_path, model={"w": torch.zeros(1 << 20)})
    refused(repacked(path, lambda n, d: [(n, d)], method), "records are compressed")
    assert path.stat().st_size < 1 << 16


@pytest.mark.parametrize("build", [lambda t: {"w": t}, lambda t: {str(i): t for i in range(1 << 12)}])
def test_values_that_are_repeated_without_end(tmp_path, build):
    one = torch.zeros(1, 1 << 10)
    expanded = one.expand(1 << 30, -1) if len(build(one)) == 1 else one.expand(1 << 6, -1)
    refused(saved(tmp_path, model=build(expanded)), "repeat the same values")


# --- harm -------------------------------------------------------------------------------------


class Calls:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


HARM = [
    lambda mark: Calls(os.system, f"touch {mark}"),
    lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    lambda mark: Calls(getattr, Calls(__import__, "os"), "system"),
    lambda mark: Calls(Path.touch, mark),
    lambda mark: Calls(torch.load, str(mark)),
    lambda mark: Calls(torch.hub.load, "a", "b"),
    lambda mark: Calls(Path.write_text, mark, "x"),
]


@pytest.mark.parametrize("harm", range(len(HARM)))
@pytest.mark.parametrize("where", ["next to it", "in the entry", "as a key", "whole"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_nothing_of_the_file_runs(tmp_path, harm, where, zipped):
    mark = tmp_path / "mark"
    bomb = HARM[harm](mark)
    content = {
        "next to it": {"m": {"w": torch.ones(2)}, "bomb": bomb},
        "in the entry": {"m": {"w": torch.ones(2), "bomb": bomb}},
        "as a key": {"m": {"w": torch.ones(2)}, "bombs": {bomb: 1}},
        "whole": bomb,
    }[where]
    torch.save(content, tmp_path / "in.pt", _use_new_zipfile_serialization=zipped)
    try:
        convert(tmp_path / "in.pt", tmp_path / "out", trusted=True)
    except WeightsError:
        assert where == "whole"
    assert not mark.exists()


def _pickled(path: Path, pickled: bytes) -> Path:
    """An archive with this pickle, and 24 bytes as its storage 0."""
    saved(path.parent, model={"w": torch.arange(6.0)})
    return repacked(path, lambda n, d: [(n, pickled if n.endswith("data.pkl") else d)])


def _view(offset: bytes, shape: bytes, stride: bytes, count: bytes = b"K\x06") -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89NtR"
    return b"\x80\x02}X\x01\x00\x00\x00m}X\x01\x00\x00\x00w" + rebuilt + b"ss."


SIX, ONE = b"K\x06\x85", b"K\x01\x85"
VIEWS = {
    "past the end": (_view(b"K\x01", SIX, ONE), "reads 28 bytes of a storage that has 24"),
    "a long stride": (_view(b"K\x00", SIX, b"K\x02\x85"), "reads 44 bytes"),
    "before the start": (_view(b"J\xff\xff\xff\xff", SIX, ONE), "impossible shape"),
    "a negative stride": (_view(b"K\x05", SIX, b"J\xff\xff\xff\xff\x85"), "impossible shape"),
    "a negative size": (_view(b"K\x00", b"J\xff\xff\xff\xff\x85", ONE), "impossible shape"),
    "no stride": (_view(b"K\x00", SIX, b")"), "impossible shape"),
    "a size of text": (_view(b"K\x00", b"X\x01\x00\x00\x006\x85", ONE), "impossible shape"),
    "a storage larger than its record": (_view(b"K\x00", b"K\x07\x85", ONE, b"K\x09"), "which has 24"),
    "a negative storage": (_view(b"K\x00", SIX, ONE, b"J\xff\xff\xff\xff"), "a count is -1"),
}


@pytest.mark.parametrize("what", VIEWS)
def test_a_view_that_its_storage_does_not_hold(tmp_path, what):
    pickled, why = VIEWS[what]
    assert list(pickletools.genops(pickled))
    refused(_pickled(tmp_path / "in.pt", pickled), why)


def test_the_view_is_what_the_tests_above_break(tmp_path):
    convert(_pickled(tmp_path / "in.pt", _view(b"K\x00", SIX, ONE)), tmp_path / "out", trusted=True)
    assert torch.equal(read_state(tmp_path / "out")["w"], torch.arange(6.0))


def test_structures_that_contain_themselves_or_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("lary_worker.entries._NODES", 20_000)
    ring: dict = {"w": torch.ones(2)}
    ring["self"] = ring
    refused(saved(tmp_path, model=ring), "nested too deeply")
    doubled: list = [torch.ones(2)]
    for _ in range(60):
        doubled = [doubled, doubled]
    refused(saved(tmp_path, model={"w": torch.ones(2)}, doubled=doubled), "objects within each other")
    deep: dict = {"w": torch.ones(2)}
    for _ in range(400):
        deep = {"a": deep}
    assert convert(saved(tmp_path, model=deep), tmp_path / "deep", trusted=True).tensors == 1


def test_a_file_that_may_not_be_read_or_written(tmp_path, monkeypatch):
    path = saved(tmp_path)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", denied)
        with pytest.raises(WeightsError, match=r"in\.pt"):
            convert(path, tmp_path / "out", trusted=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ContractError, match="cannot be written"):
        convert(path, tmp_path / "file" / "out", trusted=True)


def test_the_command_ends_with_the_code_of_bad_weights(tmp_path, capfd):
    path = saved(tmp_path, model={"w": torch.ones(2)}, ema={"w": torch.ones(2)})
    assert main(["convert", str(path), str(tmp_path / "out"), "--i-trust-this-file"]) == ExitCode.WEIGHTS
    assert "--entry NAME" in capfd.readouterr().err
