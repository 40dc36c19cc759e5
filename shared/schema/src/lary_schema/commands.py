"""Commands as people can paste them: the program as it was called, the folders that were named, every word quoted.

`lary-orch` says at its start how it was called (`called_as`), and its commands which folders were named (`naming`).
Data tools and jobs, which are processes of their own, read both from the variable LARY_CALLED.
"""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

VARIABLE = "LARY_CALLED"
PROGRAM = "lary-orch"
CATALOG = "--catalog"
FOLDERS = ("--workspace", "--data-dir", "--metadata-dir", "--latents", "--weights-dir")
BOTH = (*FOLDERS, CATALOG)
TAKES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("run", "plan", "train", "study", "evaluate", "datasets", "models"), BOTH),
    **dict.fromkeys(("doctor", "conformance", "data"), BOTH),
    **dict.fromkeys(("latents import", "latents export"), BOTH),
    **dict.fromkeys(("weights ls", "weights verify", "weights fetch", "weights convert"), BOTH),
    **dict.fromkeys(("status", "runs", "cancel", "results", "report", "clean"), FOLDERS),
    **dict.fromkeys(("images build", "images ls", "images export", "new-model"), (CATALOG,)),
}
"""Command -> the folders that it can be given."""


class Called(NamedTuple):
    """How this program was called."""

    program: tuple[str, ...] = (PROGRAM,)
    named: tuple[tuple[str, str], ...] = ()
    """(option, folder), as they were given."""


_called: Called | None = None
"""None: as the environment says."""


def command(*words: str | Path) -> str:
    """A command of ours: `command("status", run, "--failures")`. Folders that were named and that it can be given
    are added, unless `words` name them.
    """
    texts = [str(word) for word in words]
    first = next((n for n in (2, 1) if " ".join(texts[:n]) in TAKES), 0)
    takes = TAKES.get(" ".join(texts[:first]), ())
    called = _now()
    folders = [
        part
        for option, folder in called.named
        if option in takes and (folder not in texts if option == CATALOG else option not in texts)
        for part in (option, folder)
    ]
    # What follows `data` is another program's.
    at = first if texts[:1] == ["data"] else len(texts)
    return joined([*called.program, *texts[:at], *folders, *texts[at:]])


def first_run() -> str:
    """A run that works everywhere: no weights, no data."""
    return command("run", "-m", "frame-diff", "-d", "demo_motion", "--protocol", "smoke")


def program() -> str:
    """What stands before every command of ours."""
    return joined(_now().program)


def in_note(text: str) -> str:
    """A card's text, the commands in it (between backticks) as `command` writes them."""
    return re.sub(f"`{PROGRAM} ([^`]*)`", lambda found: f"`{command(*shlex.split(found[1]))}`", text)


def joined(words: Sequence[str | Path]) -> str:
    """Words of any program, as a shell reads them."""
    return " ".join(quoted(str(word)) for word in words)


def quoted(word: str) -> str:
    """One word as a shell reads it. What a terminal would act on, or could not show, is escaped as bash and zsh do."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(sign: str) -> str:
    if sign in "\\'":
        return f"\\{sign}"
    return sign if sign.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))


@contextmanager
def called_as(words: Sequence[str]) -> Iterator[None]:
    """Commands begin with these words."""
    with _with(Called(tuple(words), _now().named)):
        yield


@contextmanager
def naming(folders: Iterable[tuple[str, str | Path | None]]) -> Iterator[None]:
    """Commands name these folders; None: it was not given."""
    called = _now()
    given = [(option, str(folder)) for option, folder in folders if folder is not None]
    with _with(Called(called.program, (*called.named, *given))):
        yield


@contextmanager
def _with(called: Called) -> Iterator[None]:
    global _called
    before, _called = _called, called
    try:
        yield
    finally:
        _called = before


def _now() -> Called:
    return from_environment(os.environ) if _called is None else _called


def environment() -> dict[str, str]:
    """What a process needs that prints commands too; nothing where they are `lary-orch` without folders."""
    called = _now()
    return {} if called == Called() else {VARIABLE: json.dumps(called)}


def from_environment(env: Mapping[str, str]) -> Called:
    """What `environment` said; the plain program where it is not set, or damaged."""
    try:
        words, named = json.loads(env[VARIABLE])
        return Called(tuple(map(str, words)), tuple((str(option), str(folder)) for option, folder in named))
    except (KeyError, ValueError, TypeError):
        return Called()


# --- how this process was called --------------------------------------------------------------


def called(argv: Sequence[str] = sys.argv, original: Sequence[str] = sys.orig_argv) -> list[str]:
    """The words before the first argument, as they were typed: `lary-orch`, `.venv/bin/lary-orch`,
    `python -m lary_orch`, `uv run lary-orch`.
    """
    arguments = list(argv[1:])
    launcher = _before(_parent(), arguments)
    if launcher and Path(launcher[0]).name in ("uv", "uvx"):
        return launcher
    if "-m" in original[: len(original) - len(arguments)]:
        return _before(original, arguments)
    found = shutil.which(Path(argv[0]).name)
    return [Path(argv[0]).name if found and Path(found) == Path(argv[0]) else argv[0]]


def _before(words: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """`words` without the arguments that they end with; nothing where they end otherwise."""
    kept = len(words) - len(arguments)
    return list(words[:kept]) if kept > 0 and list(words[kept:]) == list(arguments) else []


def _parent() -> list[str]:
    """The words of the process that started this one, where the system shows them."""
    try:
        text = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.split(b"\0")[:-1]]
