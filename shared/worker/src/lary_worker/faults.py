"""What can be wrong with one row, as it is kept in the store."""

import errno

from lary_schema.base import ContractError, ExitCode
from lary_schema.events import Reason

_OF_THE_VOLUME = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENODEV, errno.ENXIO,
        errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNABORTED,
        errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO,
        errno.ENOLCK, errno.EDEADLK,
    }
)  # fmt: skip
"""What a disk, a file server or this machine does at one time and not at another."""


class RowFaultError(Exception):
    """A row has no latent. The others go on.

    `detail` lands in the store, whose bytes must be the same under every runtime: it names the CSV's
    own text, never a path, host, time or process of the machine at hand.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class StalledRowsError(ContractError):
    """Row after row takes too long."""

    exit_code = ExitCode.STALLED


def from_os_error(error: OSError, name: str, detail: str | None = None, *, missing: bool = False) -> RowFaultError:
    """The fault of a file that the system could not open or read; `name` is the CSV's own text.

    `missing`: it was to be opened, so that what is not the volume's fault means that it is not there.
    """
    said = error.strerror or type(error).__name__
    if error.errno == errno.ENOMEM:
        return RowFaultError("out_of_memory", f"{name}: {said}")
    if error.errno in _OF_THE_VOLUME:
        return RowFaultError("io_error", f"{name}: {said}")
    return RowFaultError("missing_file" if missing else "decode_error", detail or f"{name}: {said}")


def detail_of(error: BaseException) -> str:
    """An exception of a model's code in one line; without its message where that may name this machine."""
    kind, message = type(error).__name__, str(error).strip().partition("\n")[0]
    return kind if not message or "/" in message or "0x" in message else f"{kind}: {message}"
