"""The protocol of one probe: what the request says on top of it."""

from typing import Any, Literal

from lary_schema.cards import DatasetCard, ProtocolCard

from lary_orch.plan.jobs import Probing

Target = Literal["absolute", "relative"]


def targets_of(protocol: ProtocolCard, card: DatasetCard, probing: Probing) -> tuple[Target | None, ...]:
    """The regression targets that are probed, a job each; None: classification."""
    if card.actions is None:
        return (None,)
    return (probing.target,) if probing.target else protocol.regress.targets(card.actions)


def for_task(
    protocol: ProtocolCard, kind: Literal["classify", "regress"], probing: Probing, target: Target | None
) -> ProtocolCard:
    """The protocol as a job of one task carries it: what the request says on top, then the recipe's own seeds."""
    seeds = probing.seeds or (protocol.classify if kind == "classify" else protocol.regress).seeds or protocol.seeds
    regress: dict[str, Any] = {"seeds": None, "both_targets": False}
    if kind == "regress":
        regress["head"] = probing.head or protocol.regress.head
        regress["target"] = target or protocol.regress.target
    resolved = {
        "classify": protocol.classify.model_copy(update={"seeds": None}),
        "regress": protocol.regress.model_copy(update=regress),
    }
    return protocol.model_copy(update={"seeds": seeds, **resolved})
