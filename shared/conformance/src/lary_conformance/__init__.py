"""Does an image keep the contract? Checks that need no model's name, over any runtime.

A check is a `Case`; a module per topic yields them. What an image gets here is what a run gives it:
the same jobs, mounts and isolation, with tiny clips and images made on the spot.
"""

from collections.abc import Iterator

from lary_conformance import acting, extraction, isolation, refusals, self_report, training
from lary_conformance.case import Verdict, verdict_of
from lary_conformance.subject import Subject

TOPICS = (self_report, isolation, refusals, extraction, acting, training)
"""Quick ones first."""


def examine(subject: Subject) -> Iterator[Verdict]:
    """The verdict of each check, as it comes."""
    for topic in TOPICS:
        yield from map(verdict_of, topic.cases(subject))
