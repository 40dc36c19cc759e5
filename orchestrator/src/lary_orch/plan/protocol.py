"""The protocol of one probe: what the request says on top of it."""

from typing import Any, Literal

from lary_schema.cards import ProtocolCard

from lary_orch.plan.jobs import Probing


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
