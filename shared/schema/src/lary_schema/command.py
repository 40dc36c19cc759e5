"""What every image's command does alike: its job, its events on stdout, its exit code."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

from lary_schema.base import ContractError, ExitCode, read_json
from lary_schema.evaluation import ActJob, EvaluateJob, VideoJob
from lary_schema.events import Emit, Failed, _Event, to_line
from lary_schema.jobs import ExtractJob, ProbeJob, check_version
from lary_schema.more_jobs import next_job
from lary_schema.orphans import end_with_orchestrator
from lary_schema.training import TrainJob

AnyJob = TypeVar("AnyJob", ExtractJob, ProbeJob, TrainJob, ActJob, EvaluateJob, VideoJob)


def claim_stdout() -> Emit:
    """Keep stdout for events: everything else that is written to it from now on goes to stderr.

    File descriptor 1 itself is pointed at stderr, so C libraries' chatter and child processes are
    caught too. The returned `emit` may be called from any thread; a line is written whole.
    """
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: _Event) -> None:
        with lock:
            stream.write(to_line(event))
            stream.flush()

    return emit


def load_job(path: Path, kind: type[AnyJob]) -> AnyJob:
    """The job of `--job FILE`. Raises ContractError naming the file and the key that is wrong."""
    data = read_json(path)
    check_version(data, str(path))
    return kind.parse(data, str(path))


def run_command(function: Callable[[], None], emit: Emit, job: str = "") -> int:
    """Run a command's body; its exit code.

    A ContractError ends in its exit code, a `Failed` event as the last line and the message on
    stderr. Any other exception is a fault of ours and passes through, with its traceback.
    """
    try:
        function()
    except ContractError as error:
        code, message = error.exit_code, str(error)
    except MemoryError as error:
        code, message = ExitCode.OUT_OF_MEMORY, f"out of memory: {error}" if str(error) else "out of memory"
    else:
        return ExitCode.DONE
    emit(Failed(job=job, code=code, message=message))
    sys.stderr.write(f"{message}\n")
    return code


def run_reply(body: Callable[[TextIO], None]) -> int:
    """Run a command whose stdout is its reply, which `body` writes; what libraries print goes to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def emit(event: _Event) -> None:
            out.write(to_line(event))

        return run_command(lambda: body(out), emit)


def run_job(path: Path, kind: type[AnyJob], function: Callable[[AnyJob, Emit], None]) -> int:
    """Claim stdout, read the job and do `function(job, emit)` under `run_command`; the exit code.

    A process whose orchestrator dies ends soon.
    """
    end_with_orchestrator()
    return _run_job(path, kind, function, claim_stdout()).code


def run_jobs(path: Path, kind: type[AnyJob], function: Callable[[AnyJob, Emit], None]) -> int:
    """The same for one job after the other, as long as each ends well and another one comes (`more_jobs`)."""
    end_with_orchestrator()
    emit, following = claim_stdout(), path
    while True:
        done = _run_job(following, kind, function, emit)
        found = next_job(done.job, emit) if done.code == ExitCode.DONE else None
        if found is None:
            return done.code
        following = found


class _Done(NamedTuple):
    code: int
    job: str = ""


def _run_job(path: Path, kind: type[AnyJob], function: Callable[[AnyJob, Emit], None], emit: Emit) -> _Done:
    loaded: list[AnyJob] = []
    code = run_command(lambda: loaded.append(load_job(path, kind)), emit)
    if not loaded:
        return _Done(code)
    job = loaded[0]
    return _Done(run_command(lambda: function(job, emit), emit, job.id), job.id)
