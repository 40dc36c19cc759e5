"""What a check is, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lary_schema.base import ContractError

State = Literal["ok", "failed", "skipped"]


class Skipped(Exception):  # noqa: N818 - no error: nothing is wrong
    """The check cannot be made here; the message says why."""


@dataclass(frozen=True)
class Case:
    """One check on one image."""

    check: str
    of: str
    """Model, mode and variant; empty for the image as a whole."""
    run: Callable[[], str]
    """What was seen, for people. Raises ContractError for a breach, `Skipped` where it cannot be known."""
    remedy: str
    """Where to look in the image when it fails."""


@dataclass(frozen=True)
class Verdict:
    """What came of a case."""

    check: str
    of: str
    state: State
    message: str
    remedy: str = ""


def verdict_of(case: Case) -> Verdict:
    """Run a case."""
    try:
        return Verdict(case.check, case.of, "ok", case.run())
    except Skipped as reason:
        return Verdict(case.check, case.of, "skipped", str(reason))
    except ContractError as breach:
        return Verdict(case.check, case.of, "failed", str(breach), case.remedy)


def expect(holds: bool, message: str) -> None:
    """Raises ContractError with the message unless it holds."""
    if not holds:
        raise ContractError(message)


def first_line(text: str) -> str:
    """Of what an image says, which may be nothing."""
    return next(iter(text.splitlines()), "")
