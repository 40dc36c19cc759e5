"""Protocols: how probes are trained and scored. Built in by name, others by the path of a YAML file."""

import difflib
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard

BUILT_IN = Path(__file__).parent / "protocols"


def protocol_names() -> list[str]:
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def load_protocol(name: str) -> ProtocolCard:
    """A built-in protocol, or the one of a YAML file. Raises ContractError naming the choices."""
    built_in = BUILT_IN / f"{name}.yaml"
    if name in protocol_names():
        return ProtocolCard.load(built_in)
    path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, protocol_names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ContractError(f"no protocol {name!r}; there are {', '.join(protocol_names())}, or give a YAML file{hint}")
    card = ProtocolCard.load(path)
    if card.key in protocol_names():
        raise ContractError(f"{path}: key {card.key!r} is a built-in protocol's, and results are distinguished by it")
    return card


def protocol_titles() -> dict[str, str]:
    """Titles of the built-in protocols, by key."""
    return {name: load_protocol(name).title for name in protocol_names()}
