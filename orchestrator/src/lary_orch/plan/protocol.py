"""The protocol of one probe: what the request says on top of it."""

from lary_schema.cards import DatasetCard, ProbeKind, ProtocolCard, Target

from lary_orch.plan.jobs import Probing


def targets_of(protocol: ProtocolCard, card: DatasetCard, probing: Probing) -> tuple[Target | None, ...]:
    """The regression targets that are probed, a job each; None: classification."""
    if card.actions is None:
        return (None,)
    return (probing.target,) if probing.target else protocol.regress.targets(card.actions)


def for_task(protocol: ProtocolCard, kind: ProbeKind, probing: Probing, target: Target | None) -> ProtocolCard:
    """The protocol as a job of one task carries it: what the request says on top, then the recipe's own seeds."""
    return protocol.resolved(kind, probing.seeds, probing.head, target)
