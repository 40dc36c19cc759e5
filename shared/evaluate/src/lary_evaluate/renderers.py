"""By what a simulator draws: chosen before its jobs start, so that it can stand in their fingerprints."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard


class Rendering(NamedTuple):
    """What draws in the jobs of one benchmark."""

    name: str | None
    """None: its pictures are the same everywhere."""
    environment: Mapping[str, str]
    """What its jobs get, in a process and in a container alike."""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def rendering(card: BenchmarkCard, *, cuda: bool, environ: Mapping[str, str] = os.environ) -> Rendering:
    """`cuda`: jobs get a GPU. Raises ContractError where the user's variable names what the simulator cannot do."""
    if card.renderer is None:
        return Rendering(None, {})
    given = environ.get(card.renderer.variable)
    try:
        name = card.renderer.chosen(given, cuda=cuda)
    except ContractError as error:
        raise ContractError(f"benchmark {card.key}: {error}") from None
    variable = card.renderer.variable
    jobs = "jobs have a GPU" if cuda else "jobs have no GPU"
    return Rendering(name, {variable: name}, f"{variable} is set" if given else f"{jobs}; {variable} chooses otherwise")
