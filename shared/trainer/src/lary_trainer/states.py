"""States: what a killed training goes on from. Each is a folder that is whole or absent, and carries its hash.

`state/000400/{state.safetensors,state.json}`: parameters and buffers, the optimiser's moments, and what was measured.
No generator and no loader: rows and chance are functions of seed, step and row.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from lary_schema.atomic import PARTIAL_SUFFIX, sync_dir, sync_file
from lary_schema.base import ContractError, Document, fingerprint
from lary_schema.store.layout import Failure
from lary_schema.training import Measures
from safetensors.torch import load, save
from torch import nn

from lary_trainer.checkpoint import cannot_write

TENSORS, RECORD = "state.safetensors", "state.json"
_NAME = re.compile(r"[0-9]{6,}")


class StateRecord(Document):
    """`state.json`."""

    version: Literal[1] = 1
    fingerprint: str
    """Of the training."""
    step: int
    """Steps that were done."""
    sha256: str = ""
    """Of `state.safetensors`."""
    device: str
    threads: int
    processes: int
    micro_batch: int
    attempts: int
    seconds: float
    measured: tuple[Measures, ...]
    warnings: tuple[str, ...]
    failed: dict[str, tuple[Failure, ...]]
    """Rows that could not be read, by split."""
    sums: dict[str, float | None]
    count: int
    moved: bool
    """Whether any pair was seen whose frames differ."""
    check: str = ""
    """`fingerprint` of all of the above."""

    def checked(self) -> "StateRecord":
        return self.model_copy(update={"check": fingerprint(self.model_dump(mode="json", exclude={"check"}))})


class State(NamedTuple):
    """One that was read."""

    record: StateRecord
    tensors: dict[str, torch.Tensor]


class DamagedStateError(Exception):
    """A state that is not what was written."""


def save_state(folder: Path, record: StateRecord, tensors: Mapping[str, torch.Tensor], keep: int) -> Path:
    """Publish a state and remove those before the newest `keep`, and those after it: an earlier attempt's, damaged.

    Raises ContractError where it cannot be written; earlier states stay.
    """
    target = folder / f"{record.step:06d}"
    draft = _draft(target)
    try:
        data = save(dict(tensors))
        record = record.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()}).checked()
        draft.mkdir(parents=True)
        for name, content in ((TENSORS, data), (RECORD, record.to_json().encode())):
            (draft / name).write_bytes(content)
            sync_file(draft / name)
        sync_dir(draft)
        if os.path.lexists(target):
            target.rename(_draft(target))
        draft.rename(target)
        sync_dir(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise cannot_write(folder, error, "earlier states are kept") from error
    _prune(folder, record.step, keep)
    return target


def _draft(target: Path) -> Path:
    return target.with_name(f"{target.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")


def _prune(folder: Path, step: int, keep: int) -> None:
    steps = sorted(number for number in _steps(folder) if number <= step)
    for number in set(_steps(folder)) - set(steps[-keep:]):
        state = folder / f"{number:06d}"
        # Renamed first: what is half removed has no state's name.
        aside = _draft(state)
        state.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove what killed attempts left half written or half removed."""
    for path in folder.glob(f"*{PARTIAL_SUFFIX}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def newest_step(folder: Path, training: str, warn: Callable[[str], None]) -> int:
    """Steps done in the newest whole state; 0 without one. `warn` is told of damaged ones.

    Raises ContractError for a state of another training.
    """
    for step in sorted(_steps(folder), reverse=True):
        try:
            record = read_state(folder, step).record
        except DamagedStateError as error:
            warn(f"{folder / f'{step:06d}'}: {error}; it is not used, the training goes on from the state before it")
            continue
        if record.fingerprint != training:
            raise ContractError(
                f"{folder}: holds states of training {record.fingerprint[:16]}, not of {training[:16]}; give this one "
                "a folder of its own"
            )
        return step
    return 0


def read_state(folder: Path, step: int) -> State:
    """Raises DamagedStateError saying what is wrong."""
    state = folder / f"{step:06d}"
    try:
        record = StateRecord.parse(json.loads((state / RECORD).read_bytes()), RECORD)
        data = (state / TENSORS).read_bytes()
    except (OSError, ValueError, RecursionError, ContractError) as error:
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise DamagedStateError(f"cannot be read: {said}") from None
    if record.checked().check != record.check or record.step != step:
        raise DamagedStateError(f"{RECORD} is not what was written")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedStateError(f"{TENSORS} does not have the hash that {RECORD} names: cut, or changed")
    return State(record, load(data))


def _steps(folder: Path) -> Iterator[int]:
    if folder.is_dir():
        yield from (int(path.name) for path in folder.iterdir() if _NAME.fullmatch(path.name))


class Remembered:
    """Which tensors of network and optimiser make up a state, and how they come back.

    Frozen parameters are left out, since `build` makes them again, unless a step has changed them.
    """

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self._network, self._optimiser = network, optimiser
        self._trained = {name: p for name, p in network.named_parameters(remove_duplicate=False) if p.requires_grad}
        frozen = {name: p for name, p in network.named_parameters(remove_duplicate=False) if not p.requires_grad}
        self._built = {name: _mark(p) for name, p in frozen.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies on the host."""
        found = {f"network.{name}": tensor for name, tensor in self._network_state().items()}
        for name, parameter in self._trained.items():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                found[f"optimiser.{key}.{name}"] = value
        return {name: _copy(tensor) for name, tensor in found.items()}

    def _network_state(self) -> dict[str, torch.Tensor]:
        return {
            name: tensor
            for name, tensor in self._network.state_dict(keep_vars=True).items()
            if name not in self._built or self._built[name] != _mark(tensor)
        }

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raises ContractError for a state that does not fit the network."""
        target = self._network.state_dict(keep_vars=True)
        missing = [name for name in self._network_state() if f"network.{name}" not in tensors]
        for full, tensor in tensors.items():
            kind, _, name = full.partition(".")
            if kind == "network":
                if name not in target or target[name].shape != tensor.shape:
                    missing.append(name)
                    continue
                target[name].copy_(tensor)
            else:
                key, _, name = name.partition(".")
                parameter = self._trained[name]
                on = tensor if key == "step" else tensor.to(parameter.device)
                self._optimiser.state[parameter][key] = on
        if missing:
            raise ContractError(f"the state does not fit the network: {', '.join(missing[:5])}; remove it")


def _mark(tensor: torch.Tensor) -> tuple[int, int, float]:
    """What another content changes: torch counts changes in place, though not those of `tensor.data`."""
    return tensor.data_ptr(), tensor._version, float(tensor.detach().sum(dtype=torch.float64))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
