"""A short command of an image that failed: by its own decision, or because the image is not what it should be."""

from collections.abc import Sequence

from lary_schema.base import ContractError, OutOfMemoryError, TooManyFailedError, WeightsError
from lary_schema.events import Failed, from_line

_ERRORS: dict[int, type[ContractError]] = {
    error.exit_code: error for error in (WeightsError, TooManyFailedError, OutOfMemoryError)
}
SHOWN = 2000
"""Characters of stderr."""


def refusal(what: str, arguments: Sequence[str], code: int, stdout: str, stderr: str, hint: str) -> ContractError:
    """The error to raise for a command that ended with `code`; `hint` says how to repair the image.

    A command that ends by its own decision says why in its last line, an event: this and its exit code are
    all that a user needs. `describe` depends on nothing but the image, so there the hint helps too.
    """
    last = next(reversed(stdout.splitlines()), "")
    event = from_line(last)
    if isinstance(event, Failed) and (arguments[:1] != ("describe",) or "--recipe" in arguments):
        return _ERRORS.get(event.code, ContractError)(event.message)
    return ContractError(f"{what}: exit {code}\n{stderr.strip()[-SHOWN:]}\n{hint}".rstrip())
