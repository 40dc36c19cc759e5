"""Whether an image needs more than it gets: network, a writable root, a certain user."""

from collections.abc import Iterator
from functools import partial

from lary_conformance.case import Case, Skipped
from lary_conformance.subject import Subject

UNKNOWN_USER = (54321, 54321)
"""A user and group that no image knows."""


def cases(subject: Subject) -> Iterator[Case]:
    if subject.card.kind == "model" and not subject.card.models:
        return  # What only acts has no self test: `acting` looks.
    remedy = "let the code be readable by all, write nowhere but to /tmp, and need no name of the user"
    yield Case("isolation", "", partial(_as_unknown_user, subject), remedy)


def _as_unknown_user(subject: Subject) -> str:
    if subject.unknown_user is None:
        raise Skipped(f"the {subject.runtime.name} runtime does not isolate")
    if subject.breach_in_isolation is not None:
        raise subject.breach_in_isolation
    return "selftest as an unknown user, without network, on a read-only root"
