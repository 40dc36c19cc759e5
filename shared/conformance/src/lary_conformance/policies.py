"""Which policies of an image can be started, and where their weights come from: of a family, from its recipes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from lary_orch.weights.index import Trained, WeightSet, find_weights
from lary_schema.base import WeightsError
from lary_schema.cards import PolicyCard
from lary_schema.trained import CHECKPOINT, Checkpoint
from lary_schema.training import KEY_DIGITS

from lary_conformance.case import Skipped
from lary_conformance.subject import Subject
from lary_conformance.training import Done, trainings


@dataclass(frozen=True)
class Ready:
    """A policy that can be started, as soon as its weights are there."""

    of: str
    """What verdicts call it: its key, or the recipe that it is trained from."""
    key: str
    actions: int | None
    weights: tuple[str, ...]
    """Their names."""
    find: Callable[[], WeightSet]
    """Raises Skipped where they cannot be had."""


def ready(subject: Subject, card: PolicyCard) -> Iterator[Ready]:
    """The policy itself; of a family one of each recipe that makes one, or none that can be started."""
    names = tuple(spec.name for spec in card.weights)
    if card.pattern is None:
        yield Ready(card.key, card.key, card.actions, names, partial(_found, subject, card))
        return
    serving = [done for done in trainings(subject) if card.serves(_key_of(done))]
    for done in serving:
        find = partial(_trained, subject, card, done)
        yield Ready(done.trial.recipe.key, _key_of(done), card.actions, (*names, CHECKPOINT), find)
    if not serving:
        yield Ready(card.key, card.key, card.actions, (), _no_recipe)


def _key_of(done: Done) -> str:
    """A key as the recipe's checkpoint has it; which one it is, a policy does not look at."""
    return f"{done.trial.recipe.key}-{'0' * KEY_DIGITS}"


def _no_recipe() -> WeightSet:
    raise Skipped("a family of trained policies, and no recipe that makes one: --recipe names it")


def _found(subject: Subject, card: PolicyCard) -> WeightSet:
    try:
        return find_weights(card, subject.weights, subject.folder / "cache")
    except WeightsError as error:
        raise Skipped(f"needs weights: {error}") from None


def _trained(subject: Subject, card: PolicyCard, done: Done) -> WeightSet:
    """Its checkpoint, and what that does not hold, as an evaluation mounts them."""
    fingerprint = done.result().fingerprint
    checkpoint = Checkpoint(done.get()[2])
    wanted = card.model_copy(update={"key": checkpoint.key, "weights": card.weights + checkpoint.further_weights})
    try:
        trained = Trained(CHECKPOINT, checkpoint.folder, fingerprint)
        return find_weights(wanted, subject.weights, subject.folder / "cache", trained=trained)
    except WeightsError as error:
        raise Skipped(f"needs weights: {error}") from None
