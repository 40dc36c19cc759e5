"""Which of the dictionaries in a checkpoint holds the network: by what stands in them, never by their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lary_schema.base import WeightsError

from lary_worker.unpickled import Array, Object, Storage, Tensor

TOP = "."
"""How `--entry` names the file itself."""
_NODES = 1_000_000
_SHOWN = 20
_RIVAL = 10
"""A set is no rival of the largest one if it has less than one in so many of its values (and fewer tensors)."""
_OPTIMISER = {"state", "param_groups"}


@dataclass
class Entry:
    """The tensors that are kept, and the account of all else in the file."""

    name: str | None
    """None: the file itself."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """What stands in the entry, holds values, and cannot be kept: by name, why."""
    dropped: dict[str, str] = field(default_factory=dict)
    dropped_tensors: dict[str, int] = field(default_factory=dict)

    visited: int = 0

    def drop(self, name: str, value: Any) -> None:
        """Note something that is left out."""
        self.dropped[name] = kind(value)
        if count := sum(1 for _ in tensors_in(value)):
            self.dropped_tensors[name] = count


@dataclass(frozen=True)
class Candidate:
    """A dictionary (or a pickled network) and the tensors that stand in it directly."""

    keys: tuple[str, ...]
    value: Any
    tensors: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        return ".".join(self.keys) or TOP

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """What distinguishes a network from a counter, a loss or the state of a generator."""
        return tuple(t for t in self.tensors if t.floating and t.shape != ())

    @property
    def values(self) -> int:
        return sum(t.size for t in self.weights)

    def __str__(self) -> str:
        return f"{self.name} ({len(self.tensors)} tensors, {self.values} floating values)"


# --- choosing ---------------------------------------------------------------------------------


def choose(path: Path, content: Any, entry: str | None) -> Entry:
    """The entry of this name, or (None) the one with the network. Raises WeightsError, which lists the entries."""
    found = list(_candidates(path, content))
    if entry is not None:
        named = _named(path, content, entry)
        if named is None:
            raise WeightsError(f"{path}: has no entry {entry!r} that holds tensors; {_question(found)}")
        return _collect(path, content, entry, named)
    if not found:
        count = sum(1 for _ in tensors_in(content))
        inside = f", whose {count} tensors stand in lists or belong to an optimiser" if count else ""
        raise WeightsError(f"{path}: holds no dictionary with a network's tensors: it is a {kind(content)}{inside}")
    network = _largest(found)
    if network is None:
        raise WeightsError(f"{path}: which of its entries holds the network? {_question(found)}")
    return _collect(path, content, network.name, network.value)


def _question(found: list[Candidate]) -> str:
    ordered = sorted(found, key=lambda c: c.values, reverse=True)
    listed = ", ".join(map(str, ordered[:_SHOWN])) or "there is none"
    more = f" and {len(ordered) - _SHOWN} smaller ones" if len(ordered) > _SHOWN else ""
    return (
        f"Choose with --entry NAME: {listed}{more} (a name above several of them takes all below it, names joined "
        f"by dots; {TOP} is the file itself)"
    )


def _largest(found: list[Candidate]) -> Candidate | None:
    """The candidate that no other comes near; None: there is a choice to make."""
    networks = [c for c in found if c.weights] or found
    best = max(networks, key=lambda c: c.values)
    return None if any(_is_rival(c, best) for c in networks if c is not best) else best


def _is_rival(other: Candidate, best: Candidate) -> bool:
    """Whether `other` may be what is wanted, or a part of it that would be left out."""
    if other.values * _RIVAL >= best.values or len(other.weights) >= len(best.weights):
        return True
    within = other.keys[: len(best.keys)] == best.keys
    return len(best.keys) > 1 and not within and other.keys[:1] == best.keys[:1]


def _candidates(path: Path, content: Any) -> Iterator[Candidate]:
    """Every dictionary that holds tensors directly, outside of optimisers, and every pickled network."""
    for keys, value in _mappings(path, content):
        if isinstance(value, Object) and value.is_network:
            yield Candidate(keys, value, tuple(_network_tensors(value)))
        elif direct := tuple(t for _, child in members(value) if (t := as_tensor(child)) is not None):
            yield Candidate(keys, value, direct)


def _mappings(path: Path, content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(keys, mapping) of the file and of all below it; not below networks, optimisers and itself."""
    waiting: list[tuple[tuple[str, ...], Any, tuple[int, ...]]] = [((), content, ())]
    looked = 0
    while waiting:
        keys, value, above = waiting.pop()
        looked += 1
        if looked > _NODES:
            raise WeightsError(f"{path}: holds more than {_NODES} objects within each other; it is not a checkpoint")
        if id(value) in above or _is_optimiser(value) or as_tensor(value) is not None:
            continue
        if _is_mapping(value):
            yield keys, value
            if isinstance(value, Object) and value.is_network:
                continue
        below = [((*keys, str(key)), child, (*above, id(value))) for key, child in members(value)]
        waiting.extend(reversed([b for b in below if isinstance(b[1], (dict, list, tuple, Object))]))


def _named(path: Path, content: Any, entry: str) -> Any:
    """The mapping of this name with tensors in it; None where there is none."""
    named = [v for keys, v in _mappings(path, content) if (".".join(keys) or TOP) == entry and any(tensors_in(v))]
    if len(named) > 1:
        raise WeightsError(f"{path}: {len(named)} entries are spelled {entry}")
    return named[0] if named else None


# --- collecting -------------------------------------------------------------------------------


def _collect(path: Path, content: Any, name: str, value: Any) -> Entry:
    made = Entry(None if name == TOP else name)
    try:
        _take(made, "", value, f"{name}." if name != TOP else "")
    except RecursionError:
        raise WeightsError(f"{path}: entry {name} is nested too deeply for a checkpoint") from None
    if value is not content:
        _drop_others(made, content, value, "", set())
    return made


def _drop_others(made: Entry, value: Any, kept: Any, prefix: str, seen: set[int]) -> None:
    """Note everything outside of the kept entry, at the highest level that does not hold it."""
    seen.add(id(value))
    for key, child in members(value):
        if child is kept:
            # Under its first name; another name of the same object is left out like any other.
            if made.name == f"{prefix}{key}":
                continue
        elif id(child) not in seen and _holds(child, kept):
            _drop_others(made, child, kept, f"{prefix}{key}.", seen)
            continue
        made.drop(f"{prefix}{key}", child)


def _take(made: Entry, prefix: str, value: Any, shown: str) -> None:
    """Add the tensors of `value` under their names; `shown` precedes them in the account."""
    made.visited += 1
    if made.visited > _NODES // 10:
        raise RecursionError
    if isinstance(value, Object) and value.is_network:
        _take_network(made, prefix, value, shown)
        return
    for key, child in members(value):
        name = f"{prefix}{key}"
        tensor = as_tensor(child)
        if tensor is not None:
            _add(made, name, key, tensor, shown)
        elif _is_optimiser(child) or not any(tensors_in(child)):
            made.drop(f"{shown}{name}", child)
        elif isinstance(child, Object) and not child.is_network and any(tensors_in(child.args)):
            made.problems[name] = f"an object of the class {child.name}, made from tensors in a way of its own"
        else:
            _take(made, f"{name}.", child, shown)


def _add(made: Entry, name: str, key: Any, tensor: Tensor, shown: str) -> None:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        made.problems[name] = f"its key is a {kind(key)}, which is no name"
    elif name in made.tensors or name in made.problems:
        made.problems[name] = "two tensors have this name"
    elif name == "__metadata__" or not name.isprintable() or name.encode("utf-8", "replace").decode() != name:
        made.problems[name.encode("ascii", "backslashreplace").decode()] = "no name for a tensor"
    else:
        made.tensors[name] = tensor
    for attribute in tensor.attributes:
        made.dropped[f"{shown}{name}, attribute {attribute}"] = "attached to the tensor"


def _take_network(made: Entry, prefix: str, network: Object, shown: str) -> None:
    """What `state_dict()` of a torch.nn.Module has, by the structure that every module has."""
    made.visited += 1
    if made.visited > _NODES // 10:
        raise RecursionError
    inside = network.attributes
    passing = _names_in(inside.get("_non_persistent_buffers_set"))
    buffers = [(key, child) for key, child in members(inside["_buffers"]) if key not in passing]
    for key, child in [*members(inside["_parameters"]), *buffers]:
        tensor = as_tensor(child)
        if tensor is not None:
            _add(made, f"{prefix}{key}", key, tensor, shown)
        elif child is not None:
            made.problems[f"{prefix}{key}"] = f"a {kind(child)} among the tensors of {network.name}"
    for key, child in members(inside["_modules"]):
        if isinstance(child, Object) and child.is_network:
            _take_network(made, f"{prefix}{key}.", child, shown)
        elif child is not None:
            made.problems[f"{prefix}{key}"] = f"a {kind(child)} among the modules of {network.name}"
    for key, child in inside.items():
        if key not in {"_parameters", "_buffers", "_modules"} and any(tensors_in(child)):
            made.drop(f"{shown}{prefix}{key}", child)
    for key in sorted(passing):
        made.dropped[f"{shown}{prefix}{key}"] = "a buffer that the network does not save"


def _names_in(value: Any) -> set[str]:
    found = value.args[0] if isinstance(value, Object) and value.args else value
    return {str(name) for name in found} if isinstance(found, (list, tuple, set)) else set()


# --- structure --------------------------------------------------------------------------------


def members(value: Any) -> list[tuple[Any, Any]]:
    """(key, child) of a container, or of an object: its items, else its attributes; and what it was made from."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if not isinstance(value, Object):
        return []
    inside = list(value.items.items()) or list(value.attributes.items())
    return inside or list(enumerate(value.values)) or list(enumerate(value.args))


def as_tensor(value: Any) -> Tensor | None:
    """A tensor as it is, or an array or bare storage as one; None for all else."""
    if isinstance(value, Array):
        return value.tensor()
    if isinstance(value, Storage):
        return Tensor((value.count,), problem="a bare storage, which has no shape")
    return value if isinstance(value, Tensor) else None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of a value, however deep; each object is looked at once."""
    waiting, seen = [value], set()
    while waiting:
        child = waiting.pop()
        tensor = as_tensor(child)
        if tensor is not None:
            yield tensor
        elif isinstance(child, (dict, list, tuple, Object)) and id(child) not in seen:
            seen.add(id(child))
            waiting.extend(_parts(child))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Object):
        return [*value.items.values(), *value.values, *value.args, value.state]
    return [child for _, child in members(value)]


def _network_tensors(network: Object) -> Iterator[Tensor]:
    made = Entry(None)
    _take_network(made, "", network, "")
    yield from made.tensors.values()


def _holds(value: Any, wanted: Any) -> bool:
    waiting, seen = [value], set()
    while waiting:
        child = waiting.pop()
        if child is wanted:
            return True
        if isinstance(child, (dict, list, tuple, Object)) and id(child) not in seen:
            seen.add(id(child))
            waiting.extend(part for _, part in members(child))
    return False


def _is_mapping(value: Any) -> bool:
    """Not an object that was made from tensors: what its class does with them is not known."""
    return isinstance(value, dict) or (isinstance(value, Object) and bool(value.items or value.attributes))


def _is_optimiser(value: Any) -> bool:
    """What `torch.optim.Optimizer.state_dict()` gives, as every trainer keeps it."""
    return _is_mapping(value) and {key for key, _ in members(value) if isinstance(key, str)} >= _OPTIMISER


def kind(value: Any) -> str:
    """What a value is, for people."""
    if isinstance(value, Object):
        return value.name
    if isinstance(value, Tensor):
        return f"tensor {text(value.dtype)} {value.shape}" if value.problem is None else value.problem
    if isinstance(value, Array):
        return f"NumPy array {value.shape}"
    name = type(value).__qualname__
    return f"{name} of {len(value)}" if isinstance(value, (dict, list, tuple)) else name


def text(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
