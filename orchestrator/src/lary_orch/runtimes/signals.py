"""What this process does at SIGTERM."""

import signal
import sys


def exit_at_sigterm() -> None:
    """Leave by an exception, so that whatever child is being waited for is ended first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
