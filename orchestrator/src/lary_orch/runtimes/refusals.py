"""A short command of an image that failed: by its own decision, or because the image is not what it should be."""

import contextlib
import signal
from collections.abc import Callable, Sequence

from lary_schema.base import ContractError, OutOfMemoryError, TooManyFailedError, WeightsError, explain
from lary_schema.events import Failed, from_line

_ERRORS: dict[int, type[ContractError]] = {
    error.exit_code: error for error in (WeightsError, TooManyFailedError, OutOfMemoryError)
}
SHOWN = 2000
"""Characters of stderr."""
_KILLED = {128 + signal.SIGKILL, 128 + signal.SIGTERM}
TRIES = 3


class KilledError(ContractError):
    """Something killed the command's process, which says nothing of the image."""


def tried_again(query: Callable[[], str]) -> str:
    """What a query replies. If it is killed, it is tried again: else a model would be missing from the plan."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(KilledError):
            return query()
    return query()


def refusal(what: str, arguments: Sequence[str], code: int, stdout: str, stderr: str, hint: str) -> ContractError:
    """The error to raise for a command that ended with `code`; `hint` says how to repair the image.

    A command that ends by its own decision says why in its last line, an event: this and its exit code are
    all that a user needs. `describe` depends on nothing but the image, so there the hint helps too.
    """
    code = code if code >= 0 else 128 - code
    if code in _KILLED:
        return KilledError(f"{what}: {explain(code)}; run the same command again")
    last = next(reversed(stdout.splitlines()), "")
    event = from_line(last)
    given = {"--recipe", "--weights"} & set(arguments)
    if isinstance(event, Failed) and (arguments[:1] != ("describe",) or given):
        return _ERRORS.get(event.code, ContractError)(event.message)
    return ContractError(f"{what}: exit {code}\n{stderr.strip()[-SHOWN:]}\n{hint}".rstrip())
