"""Reading checkpoints strictly: what is missing, left over or of another shape is an error that says so.

Nothing here unpickles: files are safetensors or `torch.save` archives read with `weights_only=True`.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from lary_schema.base import WeightsError
from lary_schema.files import is_lfs_pointer, pointer_fault
from safetensors import SafetensorError, safe_open
from torch import nn

State = dict[str, torch.Tensor]
Renames = Sequence[tuple[str, str]]
"""(regular expression, replacement) pairs, applied one after another to every name."""
Network = TypeVar("Network")
Module = TypeVar("Module", bound=nn.Module)

_NAMED = 8
_HEAD = 32
"""Bytes that tell the format of a file."""
_TORCH_SAVE = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19")
"""First bytes of what torch.save writes: a zip archive, or (before 1.6) its magic number, pickled."""


# --- files ------------------------------------------------------------------------------------


def require_file(path: Path) -> Path:
    """`path`, if it is a file with content of its own. Raises WeightsError otherwise."""
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder, but a checkpoint file is expected here")
    if not path.is_file():
        raise WeightsError(f"{path}: the file is missing")
    head = _head(path)
    if is_lfs_pointer(path):
        raise WeightsError(pointer_fault(path))
    if not head:
        raise WeightsError(f"{path}: the file is empty; fetch it again")
    return path


def require_folder(path: Path, files: Iterable[str]) -> Path:
    """`path`, if it is a folder that holds all of `files`. Raises WeightsError otherwise."""
    names = list(files)
    if not path.is_dir():
        found = "is a file" if path.exists() else "is missing"
        raise WeightsError(f"{path}: {found}, but a folder with {', '.join(names)} is expected here")
    for name in names:
        require_file(path / name)
    return path


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object beside the weights. Raises WeightsError naming the file."""
    try:
        config = json.loads(require_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: a JSON object is expected")
    return config


def read_state(path: Path, entry: str | None = None) -> State:
    """The tensors of one checkpoint file, by name, on the CPU.

    A safetensors file is known by its content, whatever its name. `entry` is the key of
    the dictionary under which a training checkpoint keeps its tensors; a safetensors file, which has
    no levels, may hold them under `entry.` or flat.

    Raises WeightsError for a file that is missing, truncated, pickled or not a checkpoint.
    """
    head = _head(require_file(path))
    if head[8:9] == b"{":  # after the length of its JSON header
        state = _read_safetensors(path)
        return strip_prefix(state, f"{entry}.", only=True) if entry else state
    if not head.startswith(_TORCH_SAVE):
        raise WeightsError(f"{path}: neither a safetensors nor a torch.save file; fetch it again")
    content = _torch_load(path)
    if entry is not None:
        content = _entry(path, content, entry)
    return _only_tensors(path, content)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _read_safetensors(path: Path) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise WeightsError(f"{path}: truncated or not safetensors ({error}); fetch it again") from None


def _torch_load(path: Path) -> Any:
    try:
        # A mapped file costs no memory for the decoder and optimiser tensors that nobody asks for.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError:
        raise WeightsError(
            f"{path}: holds pickled objects beside its tensors and is not loaded as it is; "
            "convert it once with `lary-orch weights convert`"
        ) from None
    except (RuntimeError, EOFError, ValueError, LookupError, OSError, SafetensorError) as error:
        # The last one because torch takes the suffix .safetensors for the format, whatever the file is.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: truncated or not a checkpoint ({reason}); fetch it again") from None


def _entry(path: Path, content: Any, entry: str) -> Any:
    if isinstance(content, dict) and entry in content:
        return content[entry]
    found = ", ".join(map(str, list(content)[:_NAMED])) if isinstance(content, dict) else type(content).__name__
    raise WeightsError(f"{path}: has no entry {entry!r} (found: {found}); this is another model's checkpoint")


def _only_tensors(path: Path, content: Any) -> State:
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: a dictionary of tensors is expected, found {type(content).__name__}")
    strange = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise WeightsError(f"{path}: {_names(strange)} not tensors; this is another model's checkpoint")
    return dict(content)


# --- names ------------------------------------------------------------------------------------


def strip_prefix(state: State, prefix: str, *, only: bool = False) -> State:
    """`state` without `prefix`, where every name has it; else `state` as it is.

    With `only`, names that lack it are dropped wherever others have it.
    """
    having = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return having if having and (only or len(having) == len(state)) else state


def renamed(name: str, renames: Renames) -> str:
    """`name` after all `renames`."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def split_qkv(state: State, parts: tuple[str, str, str]) -> State:
    """`state` with every fused `attn.qkv` (3 D, ...) as three tensors, named by `parts` in its place."""
    split: State = {}
    for name, tensor in state.items():
        if ".attn.qkv." not in name:
            split[name] = tensor
            continue
        for part, piece in zip(parts, tensor.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}.")] = piece
    return split


def load_strict(
    module: nn.Module,
    state: Mapping[str, torch.Tensor],
    where: Path | str,
    *,
    renames: Renames = (),
    skippable: Sequence[str] = (),
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Give `module` every tensor of `state`, and nothing else.

    `module` may have been made under `torch.device("meta")`: its parameters and persistent buffers are
    replaced by copies on `device`, floating ones in `dtype` (None: as in the file). Buffers that are
    not in its `state_dict` are left alone.

    `skippable` are regular expressions, matched at the start of a name as it stands in the file: what
    the network has no use for. Raises WeightsError naming what is missing, left over or misshapen.
    """
    kept = {name: renamed(name, renames) for name in state if not any(re.match(s, name) for s in skippable)}
    by_target = {target: state[name] for name, target in kept.items()}
    expected = module.state_dict()
    problems = _mismatches(kept, by_target, expected)
    if problems:
        raise WeightsError(f"{where}: does not fit {type(module).__name__}:\n" + "\n".join(problems))
    ready = {name: _placed(by_target[name], expected[name], device, dtype) for name in expected}
    module.load_state_dict(ready, strict=True, assign=True)


def build(
    make: Callable[[], Module],
    state: Mapping[str, torch.Tensor] | None,
    where: Path | str | None,
    *,
    renames: Renames = (),
    skippable: Sequence[str] = (),
    device: torch.device,
    dtype: torch.dtype,
) -> Module:
    """The network of `make` in evaluation mode, with the tensors of `state` or (None) as it is born.

    With a `state` the network is made without memory of its own, so tensors that it keeps outside its
    `state_dict` must be made in `forward`. Raises as `load_strict` does.
    """
    if state is None:
        return make().to(device, dtype).eval()
    with torch.device("meta"):
        module = make()
    load_strict(module, state, where or "weights", renames=renames, skippable=skippable, device=device, dtype=dtype)
    return module.eval()


def _mismatches(kept: Mapping[str, str], found: State, expected: Mapping[str, torch.Tensor]) -> list[str]:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name, target in kept.items() if target not in expected]
    shapes = [
        f"{name} {tuple(found[target].shape)}, expected {tuple(expected[target].shape)}"
        for name, target in kept.items()
        if target in expected and found[target].shape != expected[target].shape
    ]
    # Quantised numbers are no weights without their scales, and the real part of a complex one is not it.
    types = [
        f"{name} {found[target].dtype}, expected {expected[target].dtype}"
        for name, target in kept.items()
        if target in expected and _kind(found[target]) != _kind(expected[target])
    ]
    counts = Counter(kept.values())
    clashes = [name for name, target in kept.items() if counts[target] > 1]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another type": types}
    kinds["twice"] = clashes
    return [f"  {len(names)} {kind}: {_names(names)}" for kind, names in kinds.items() if names]


def _kind(tensor: torch.Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _placed(
    tensor: torch.Tensor, like: torch.Tensor, device: torch.device | None, dtype: torch.dtype | None
) -> torch.Tensor:
    wanted = dtype if dtype is not None and like.is_floating_point() else tensor.dtype
    return tensor.to(device=device, dtype=wanted, copy=True)


# --- hub folders ------------------------------------------------------------------------------


def load_pretrained(
    network: type[Network],
    folder: Path,
    *,
    model_type: str,
    skippable: Sequence[str] = (),
    weights: str = "model.safetensors",
    **options: Any,
) -> Network:
    """A transformers or diffusers `network` from its hub folder, strictly and without the network.

    `model_type` is what `config.json` must say it is (`model_type` in transformers, `_class_name` in
    diffusers). `options` go to `from_pretrained`. Raises WeightsError for a folder of another model
    and for names missing or left over outside `skippable` (regular expressions, matched at the start).
    """
    require_folder(folder, ["config.json", weights])
    config = read_config(folder / "config.json")
    found = config.get("model_type", config.get("_class_name"))
    if found != model_type:
        raise WeightsError(f"{folder / 'config.json'}: is a {found} model, but {model_type} is expected")
    if config.get("quantization_config"):
        raise WeightsError(
            f"{folder / 'config.json'}: says that the weights are quantised; give the model's own weights"
        )
    loader: Any = network
    try:
        module, info = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise WeightsError(f"{folder}: cannot be loaded as {network.__name__}: {error}") from None
    _check_info(folder, network.__name__, info, skippable)
    _check_types(folder / weights, dict(module.named_parameters()))
    result: Network = module
    return result


def _check_types(path: Path, parameters: Mapping[str, torch.Tensor]) -> None:
    """`from_pretrained` casts whatever stands in the file."""
    with safe_open(path, framework="pt") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
    wrong = [
        f"{name} {found}"
        for name, found in types.items()
        if name in parameters and parameters[name].is_floating_point() and not found.startswith(("F", "BF"))
    ]
    if wrong:
        raise WeightsError(f"{path}: {len(wrong)} tensors are no floating-point numbers: {_names(wrong)}")


def _check_info(folder: Path, name: str, info: Mapping[str, Any], skippable: Sequence[str]) -> None:
    kinds = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another shape": "mismatched_keys"}
    problems = []
    for kind, key in kinds.items():
        names = sorted(str(n[0] if isinstance(n, tuple) else n) for n in info.get(key, ()))
        names = [n for n in names if not any(re.match(s, n) for s in skippable)]
        if names:
            problems.append(f"  {len(names)} {kind}: {_names(names)}")
    if problems:
        raise WeightsError(f"{folder}: does not fit {name}:\n" + "\n".join(problems))
