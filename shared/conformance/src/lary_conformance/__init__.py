"""Does an image keep the contract? Checks that need no model's name, over any runtime.

A check is a `Case`; a module per question yields them. What an image gets here is what a run gives it:
the same jobs, mounts and isolation, with tiny clips and images made on the spot.
"""

from collections.abc import Iterator

from lary_conformance import answers, extraction, isolation, refusals
from lary_conformance.case import Verdict, verdict_of
from lary_conformance.subject import Subject

QUESTIONS = (answers, isolation, refusals, extraction)
"""Quick ones first."""


def examine(subject: Subject) -> Iterator[Verdict]:
    """The verdict of each check, as it comes."""
    for question in QUESTIONS:
        yield from map(verdict_of, question.cases(subject))
