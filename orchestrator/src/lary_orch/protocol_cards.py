"""Protocols: how probes are trained and scored. Built in by name, others by the path of a YAML file."""

from pathlib import Path
from typing import Any, Literal

from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard

from lary_orch.plan import Probing

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
        raise ContractError(f"no protocol {name!r}; there are {', '.join(protocol_names())}, or give a YAML file")
    card = ProtocolCard.load(path)
    if card.key in protocol_names():
        raise ContractError(f"{path}: key {card.key!r} is a built-in protocol's, and results are told apart by it")
    return card


def for_task(protocol: ProtocolCard, kind: Literal["classify", "regress"], probing: Probing) -> ProtocolCard:
    """The protocol as a job of one task carries it: what the request says on top, then the recipe's own seeds."""
    seeds = probing.seeds or (protocol.classify if kind == "classify" else protocol.regress).seeds or protocol.seeds
    regress: dict[str, Any] = {"seeds": None}
    if kind == "regress":
        regress["head"] = probing.head or protocol.regress.head
        regress["target"] = probing.target or protocol.regress.target
    resolved = {
        "classify": protocol.classify.model_copy(update={"seeds": None}),
        "regress": protocol.regress.model_copy(update=regress),
    }
    return protocol.model_copy(update={"seeds": seeds, **resolved})
