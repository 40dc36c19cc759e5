"""Where the command line begins, and its edge: whatever goes wrong ends in one readable line and an exit code."""

import signal

# Until `main` runs, Ctrl-C ends the process at once: a KeyboardInterrupt inside an import is a traceback.
# What the caller chose to ignore (`nohup`, a shell's background job) stays ignored.
_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _INTERRUPTIBLE:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os  # noqa: E402
import sys  # noqa: E402

import click  # noqa: E402
from lary_schema.commands import called, called_as  # noqa: E402
from lary_schema.terminal import safe_output  # noqa: E402

from lary_orch.cli import cli  # noqa: E402

INTERRUPTED = 128 + signal.SIGINT
UNUSABLE = 2
"""A file or folder that cannot be used is bad usage (`lary_schema.base.ExitCode.BAD_JOB`)."""


def main() -> None:
    """Entry point of `lary-orch`."""
    if _INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    safe_output()
    with called_as(called()):
        sys.exit(_code())


def _code() -> int:
    """Of the whole program."""
    try:
        return _run()
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output (`| head`) has had enough: nothing went wrong.
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        from lary_schema.atomic import refused

        named = error.filename is not None
        said = refused(error) if named else f"standard output: {error.strerror or error}"
        return _fail(f"error: {said}", UNUSABLE)
    except Exception as error:
        from lary_schema.base import ContractError

        if not isinstance(error, ContractError):
            raise
        return _fail(f"error: {error}", int(error.exit_code))


def _run() -> int:
    """The command's exit code, once all that it printed has left this process."""
    out = sys.stdout
    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    if sys.stdout is not out:
        # That is how click hides a broken pipe, with a code of 1.
        sys.stdout = out
        raise BrokenPipeError
    out.flush()
    return code


def _fail(message: str, code: int) -> int:
    _drop_output()
    click.echo(message, err=True)
    return code


def _drop_output() -> None:
    """Python flushes stdout once more as it ends; where that failed already, it would fail again, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
