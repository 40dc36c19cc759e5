"""Ending at once on request, also in the middle of a long computation."""

import os
import signal
import threading

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def end_on_signals() -> None:
    """From now on SIGTERM and SIGINT end the process with 128 + their number.

    Call it before any thread starts: the signals are blocked everywhere and waited for by one thread,
    since a Python handler would wait for the end of a call into C. Nothing is cleaned up: decode
    processes die with this one, and everything on disk is whole or absent.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    threading.Thread(target=_wait, name="signals", daemon=True).start()


def _wait() -> None:
    os._exit(128 + signal.sigwait(_SIGNALS))
