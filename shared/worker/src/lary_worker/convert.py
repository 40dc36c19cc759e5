"""`convert`: a checkpoint that holds pickled objects beside its tensors -> safetensors.

The one place of the project that unpickles, and only behind `--i-trust-this-file`. Even then nothing
that the file names is imported or called, but the few functions that put tensors together: every
other object (a trainer's hyper-parameters, an optimiser) becomes an inert placeholder. So the
packages that wrote the file need not be installed, and a file of somebody else's cannot run code by
naming it. The flag stays, because pickle was not made to be read safely: convert what you trust, in
a container without a network.
"""

from __future__ import annotations

import collections
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lary_schema.atomic import publish_bytes, publish_text
from lary_schema.base import ContractError, WeightsError, file_sha256
from safetensors.torch import save

from lary_worker.checkpoints import require_file

_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class _Placeholder:
    """Stands for an object of a class that is not imported; takes whatever pickle does to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> _Placeholder:
        return _Placeholder()

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name, (_Placeholder,), {"__module__": module})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="lary_worker.convert")
"""What `torch.load` takes for the pickle module."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a file."""

    source: str
    source_sha256: str
    entry: str | None
    """Key of the dictionary whose tensors were kept; None: the file itself was that dictionary."""
    tensors: int
    dropped: dict[str, str]
    """Everything else, and what it was."""

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def convert(source: Path, target: Path, entry: str | None = None, *, trusted: bool) -> Conversion:
    """Write the tensors of `source` to the safetensors file `target`, and what was dropped to `target`.json.

    `entry` is the key under which the file keeps its tensors (Lightning: `state_dict`); None: found by
    itself if there is only one. Names are kept as they are. Raises ContractError where the caller does not
    say that `source` is trusted, or `target` exists; WeightsError for a file without such an entry, or
    that is not a checkpoint.
    """
    if not trusted:
        raise ContractError(f"{source}: would be unpickled; if you trust it, say so with --i-trust-this-file")
    report = target.with_name(target.name + ".json")
    for path in (target, report):
        if path.exists():
            raise ContractError(f"{path}: exists already; remove it or give another name")
    content = _read(require_file(source))
    entry = _entry(source, content, entry)
    state = content if entry is None else content[entry]
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    done = Conversion(source.name, file_sha256(source), entry, len(tensors), _dropped(content, entry))
    # Cloned, because safetensors refuses tensors that share memory.
    publish_bytes(target, save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}))
    publish_text(report, done.to_json())
    return done


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        # Mapped, so that what is dropped costs no memory.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise WeightsError(f"{path}: truncated or not a checkpoint ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: a dictionary is expected, found {type(content).__name__}")
    return content


def _entry(path: Path, content: Mapping[Any, Any], entry: str | None) -> str | None:
    found = [str(key) for key, value in content.items() if _holds_tensors(value)]
    if entry is None and _holds_tensors(content):
        return None
    if entry is None and len(found) == 1:
        return found[0]
    if entry in found:
        return entry
    wanted = f"no entry {entry!r} with tensors" if entry else "more or less than one entry with tensors"
    raise WeightsError(f"{path}: has {wanted}; those with tensors: {', '.join(found) or 'none'}; give one with --entry")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, torch.Tensor) for v in value.values())


def _dropped(content: Mapping[Any, Any], entry: str | None) -> dict[str, str]:
    others = {str(key): _kind(value) for key, value in content.items() if entry is not None and key != entry}
    state = content if entry is None else content[entry]
    strange = {str(key): _kind(value) for key, value in state.items() if not isinstance(value, torch.Tensor)}
    return others | {f"{entry}.{key}" if entry else key: kind for key, kind in strange.items()}


def _kind(value: Any) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{name} of {len(value)}" if isinstance(value, (dict, list, tuple)) else name
