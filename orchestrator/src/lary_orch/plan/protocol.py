"""The protocol of one probe: what the request says on top of it."""

from typing import Any, Literal

from lary_schema.cards import DatasetCard, ProtocolCard

from lary_orch.plan.jobs import Probing

Target = Literal["absolute", "relative"]


def targets_of(protocol: ProtocolCard, card: DatasetCard, probing: Probing) -> tuple[Target | None, ...]:
    """The regression targets that are probed, a job each: the request's, the protocol's, or both; None: classification.

    On absolute positions a single frame that shows the pose beats a difference of frames, so a protocol may ask for
    `both_targets`: the relative one too where the dataset's card gives `relative:` and chunks have two steps.
    """
    if card.actions is None:
        return (None,)
    if probing.target is not None:
        return (probing.target,)
    defined = "relative" in card.actions.model_fields_set and card.actions.stride > 1
    if protocol.regress.both_targets and defined:
        return ("absolute", "relative")
    return (protocol.regress.target,)


def for_task(
    protocol: ProtocolCard, kind: Literal["classify", "regress"], probing: Probing, target: Target | None
) -> ProtocolCard:
    """The protocol as a job of one task carries it: what the request says on top, then the recipe's own seeds.

    `target` is one of `targets_of`.
    """
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
