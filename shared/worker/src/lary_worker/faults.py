"""What can be wrong with one row, as it is kept in the store."""

from lary_schema.events import Reason


class RowFaultError(Exception):
    """A row has no latent. The others go on.

    `detail` lands in the store, whose bytes must be the same under every runtime: it names the CSV's
    own text, never a path, host, time or process of the machine at hand.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


def detail_of(error: BaseException) -> str:
    """An exception of a model's code in one line; without its message where that may name this machine."""
    kind, message = type(error).__name__, str(error).strip().partition("\n")[0]
    return kind if not message or "/" in message or "0x" in message else f"{kind}: {message}"
