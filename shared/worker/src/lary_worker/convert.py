"""`convert`: a checkpoint that holds pickled objects besides its tensors -> safetensors.

The one module of the project that unpickles, and only behind `--i-trust-this-file`. Even then nothing
that the file names is imported or called: every class and function becomes an inert record
(`unpickled`), tensors too, and the values of the tensors that are kept are read afterwards, each by
itself. So the packages that wrote the file need not be installed, and a file of somebody else's cannot
run code by naming it. The flag stays, because pickle was not made to be read safely: convert what you
trust, in a container without a network.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lary_schema.atomic import publish_bytes, publish_text
from lary_schema.base import ContractError, WeightsError, file_sha256
from safetensors.torch import save

from lary_worker.archives import Archive, legacy_regions, open_archive
from lary_worker.checkpoints import require_file
from lary_worker.entries import Entry, choose, text
from lary_worker.unpickled import Array, ArrayType, Name, Object, Storage, Tensor, UnwritableError, is_whole, wholes

_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
"""What a legacy file begins with, each pickled by itself: torch.save's number and its protocol's."""
_FAULTS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError),
    *(MemoryError, OverflowError),
)
_PLAIN = {("torch", "Tensor"), ("torch._tensor", "Tensor"), ("torch.nn.parameter", "Parameter")} | {
    ("torch.nn.parameter", "Buffer")
}
_LARGEST = 16
"""How many times larger than its source a result may be: tensors that share or repeat values are written out."""
_SMALL = 1 << 28
"""Bytes that any result may have."""
_NAMED = 8


# --- reading ----------------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Makes records alone. `storages` are those that the file refers to, by key."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        known = _REBUILDERS.get((module, name))
        if known is not None:
            return known
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        # Tensors of torch, arrays of NumPy, JAX and others, lazy parameters: they may not pass for something else.
        if name.startswith("_rebuild") or "reconstruct" in name or module == "torch.nn.parameter":
            return _special(f"a tensor of a special kind ({module}.{name})")
        return _class((module, name))

    def persistent_load(self, saved: Any) -> Any:
        kind, *facts = saved
        if kind == "module":
            return facts[0]
        if kind != "storage":
            raise pickle.UnpicklingError(f"it refers to {kind!r}")
        cls, key, _, count, *view = facts
        storage = Storage(str(key), str(cls.KIND[1]), _whole(count))
        self.storages[storage.key] = storage
        if not view or view[0] is None:
            return storage
        _, start, count = view[0]
        width = 1 if storage.dtype is None else storage.dtype.itemsize
        return replace(storage, count=_whole(count), start=_whole(start) * width)


def _class(kind: Name) -> type:
    """A class of this name, whose instances are records that remember it."""

    class Named(Object):
        KIND = kind

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            made = object.__new__(cls)
            Object.__init__(made, kind, (*args, *kwargs.values()))
            return made

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    return Named


def _whole(value: Any) -> int:
    if not is_whole(value):
        raise pickle.UnpicklingError(f"a count is {value!r}")
    return int(value)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`; what follows the stride: gradient, hooks, metadata."""
    dtype = storage.dtype if isinstance(storage, Storage) else None
    return _view(storage, dtype, (offset, shape, stride), rest[2] if len(rest) > 2 else None)


def _typed_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v3`: gradient, hooks, dtype, metadata."""
    return _view(storage, rest[2], (offset, shape, stride), rest[3] if len(rest) > 3 else None)


def _view(storage: Any, dtype: Any, where: tuple[Any, Any, Any], metadata: Any) -> Tensor:
    shape, stride = wholes(where[1]), wholes(where[2])
    if not isinstance(storage, Storage):
        return Tensor(shape or (), problem="a tensor whose values were pickled by themselves (torch.storage)")
    if not isinstance(dtype, torch.dtype):
        return Tensor(shape or (), problem=f"a tensor of {storage.kind}, which is not of plain numbers")
    if not is_whole(where[0]) or shape is None or stride is None or len(shape) != len(stride):
        return Tensor(shape or (), dtype, problem=f"a tensor of impossible shape {where[1]!r} or stride {where[2]!r}")
    bits = metadata if isinstance(metadata, dict) else {}
    conjugate, negative = bits.get("conj") is True, bits.get("neg") is True
    return Tensor(shape, dtype, storage, where[0], stride, conjugate, negative)


def _parameter(data: Any, *rest: Any) -> Any:
    """`_rebuild_parameter` (gradient, hooks) and `_rebuild_parameter_with_state` (and attributes)."""
    return _with_attributes(data, rest[2] if len(rest) > 2 else None)


def _of_type(function: Callable[..., Any], cls: Any, args: Any, state: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a tensor with attributes, or of another class."""
    made = function(*args)
    kind = getattr(cls, "KIND", ("?", str(cls)))
    if kind not in _PLAIN:
        shape = made.shape if isinstance(made, Tensor) else ()
        return Tensor(shape, problem=f"a tensor of the class {'.'.join(kind)}, whose values may mean something else")
    return _with_attributes(made, state)


def _with_attributes(data: Any, state: Any) -> Any:
    parts = state if isinstance(state, tuple) else (state,)
    names = tuple(str(key) for part in parts if isinstance(part, dict) for key in part)
    return replace(data, attributes=names) if isinstance(data, Tensor) and names else data


def _special(what: str) -> Callable[..., Tensor]:
    return lambda *args: Tensor(_shape_in(args), problem=what)


def _shape_in(args: Any) -> tuple[int, ...]:
    """The first shape among a function's arguments: how large a tensor is that cannot be made."""
    return next((shape for arg in args if (shape := wholes(arg))), ())


def _array(base: Any, *_: Any) -> Array:
    return Array(".".join(getattr(base, "KIND", ("?", "?"))))


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Array:
    return Array(dtype=dtype, shape=wholes(shape) or (), fortran=order == "F", data=data)


def _encode(value: str, codec: str = "", *_: Any) -> bytes:
    """How pickle protocol 2 holds bytes."""
    return value.encode("latin1" if codec == "latin1" else "utf-8")


def _object_of(cls: Any, *_: Any) -> Any:
    """`copyreg._reconstructor`: protocols 0 and 1."""
    return cls()


_UTILS = "torch._utils"
_REBUILDERS: dict[Name, Callable[..., Any]] = {
    (_UTILS, "_rebuild_tensor"): _tensor,
    (_UTILS, "_rebuild_tensor_v2"): _tensor,
    (_UTILS, "_rebuild_tensor_v3"): _typed_tensor,
    (_UTILS, "_rebuild_parameter"): _parameter,
    (_UTILS, "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type"): _of_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    (_UTILS, "_rebuild_qtensor"): _special("a quantised tensor; dequantize() it in the program that wrote it"),
    (_UTILS, "_rebuild_sparse_tensor"): _special("a sparse tensor; to_dense() it in the program that wrote it"),
    (_UTILS, "_rebuild_nested_tensor"): _special("a nested tensor, which has no one shape"),
    (_UTILS, "_rebuild_meta_tensor_no_storage"): _special("a tensor without values (of the meta device)"),
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _object_of,
    ("numpy", "dtype"): lambda code, *_: ArrayType(str(code)),
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("numpy._core.numeric", "_frombuffer"): _array_of_buffer,
}
"""What of a file's names is done: the few functions that describe tensors and arrays, as functions of our own."""


def read(path: Path, file: BinaryIO) -> tuple[Archive, Any]:
    """The archive and what its pickle holds, as records. Raises WeightsError saying what `path` is instead."""
    archive = open_archive(path, file)
    try:
        if archive.pickle is not None:
            return archive, _Unpickler(BytesIO(archive.pickle)).load()
        file.seek(0)
        for expected in _MAGIC:
            if _Unpickler(file).load() != expected:
                raise ValueError("another protocol of torch.save")
        _Unpickler(file).load()
        unpickler = _Unpickler(file)
        content = unpickler.load()
        keys = [str(key) for key in _Unpickler(file).load()]
        sizes = {key: 1 if s.dtype is None else s.dtype.itemsize for key, s in unpickler.storages.items()}
        archive.storages.update(legacy_regions(file, keys, sizes))
    except _FAULTS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: truncated or not a checkpoint ({reason})") from None
    return archive, content


# --- writing ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a file."""

    source: str
    source_sha256: str
    entry: str | None
    """Keys, joined by dots, of the dictionary whose tensors were kept; None: the file itself was that dictionary."""
    tensors: int
    dropped: dict[str, str]
    """Everything else, and what it was."""
    dropped_tensors: dict[str, int]
    """How many tensors were in it, where there were any."""

    def to_json(self) -> str:
        document = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        return document.encode("utf-8", "backslashreplace").decode() + "\n"


def convert(source: Path, target: Path, entry: str | None = None, *, trusted: bool) -> Conversion:
    """Write the tensors of `source` to the safetensors file `target`, and what was dropped to `.TARGET.json` there.

    Hidden files are no part of a folder of weights, nor of its hash.

    `entry` names the dictionary that holds them (Lightning: `state_dict`; below another key:
    `ckpt.model`; `.`: the file itself); None: the largest set of floating tensors, if no other comes near
    it. Names are kept, those of dictionaries within the entry joined by dots, numbers as text.

    Raises ContractError where the caller does not say that `source` is trusted, or `target` exists;
    WeightsError for a file that is not a checkpoint, without such an entry or with several, and for a
    tensor of the entry that cannot be written as it is.
    """
    if not trusted:
        raise ContractError(f"{source}: would be unpickled; if you trust it, say so with --i-trust-this-file")
    if target.exists():
        raise ContractError(f"{target}: exists already; remove it or give another name")
    try:
        with require_file(source).open("rb") as file:
            archive, content = read(source, file)
            chosen = choose(source, content, entry)
            tensors = _make(source, archive, chosen)
        sha256 = file_sha256(source)
    except OSError as error:
        raise WeightsError(f"{source}: cannot be read: {error.strerror}") from None
    done = Conversion(source.name, sha256, chosen.name, len(tensors), chosen.dropped, chosen.dropped_tensors)
    try:
        # The tensors last: where they are, all is.
        publish_text(target.with_name(f".{target.name}.json"), done.to_json())
        publish_bytes(target, save(tensors))
    except OSError as error:
        raise ContractError(f"{target}: cannot be written: {error.strerror}") from None
    return done


def _make(source: Path, archive: Archive, chosen: Entry) -> dict[str, torch.Tensor]:
    """The tensors of an entry. Raises WeightsError naming all that cannot be had."""
    _check_size(source, chosen)
    made, problems = {}, dict(chosen.problems)
    for name, found in chosen.tensors.items():
        try:
            made[name] = found.make(archive)
            # The one function that knows which types the format has.
            save({"tensor": made[name][:0] if made[name].ndim else made[name]})
        except UnwritableError as error:
            problems[name] = str(error)
        except (KeyError, ValueError):
            problems[name] = f"a tensor of {text(found.dtype)}, which safetensors does not have"
    if problems:
        shown = [f"  {name}: {why}" for name, why in list(problems.items())[:_NAMED]]
        more = [f"  and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        where = f"entry {chosen.name}" if chosen.name else "the file"
        raise WeightsError(
            f"{source}: {len(problems)} tensors of {where} cannot be written, so nothing was:\n"
            + "\n".join([*shown, *more])
        )
    return made


def _check_size(source: Path, chosen: Entry) -> None:
    sizes = {name: t.size * (t.dtype.itemsize if t.dtype else 1) for name, t in chosen.tensors.items()}
    total, limit = sum(sizes.values()), max(_SMALL, _LARGEST * source.stat().st_size)
    if total > limit:
        largest = max(sizes, key=lambda name: sizes[name])
        raise WeightsError(
            f"{source}: would become {total} bytes, more than {limit}: its tensors repeat the same values (the "
            f"largest is {largest}); save them without expand()"
        )
