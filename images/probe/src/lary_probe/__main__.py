"""`python -m lary_probe describe | classify --job FILE | regress --job FILE | selftest`."""

import argparse
import sys
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.command import claim_stdout, run_command, run_jobs
from lary_schema.events import Emit
from lary_schema.jobs import ProbeJob
from lary_schema.launch import end_with_launcher, is_joined, launch

from lary_probe.describe import image_card


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code (`lary_schema.base.ExitCode`)."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "describe":
        sys.stdout.write(image_card().to_json())
        return 0
    if parsed.command == "selftest":
        return _selftest(claim_stdout())
    end_with_launcher()
    first = [parsed]

    def probe(job: ProbeJob, emit: Emit) -> None:
        # Jobs that follow in this process (`lary_schema.more_jobs`) may be of either kind.
        _probe(first.pop() if first else None, job, emit)

    return run_jobs(parsed.job, ProbeJob, probe)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lary_probe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("describe", help="print the image card as JSON")
    for name in ("classify", "regress"):
        command = commands.add_parser(name, help=f"{name} the latents of one job")
        command.add_argument("--job", type=Path, required=True, metavar="FILE")
    commands.add_parser("selftest", help="train both probes on random numbers for a moment")
    return parser


def _probe(typed: argparse.Namespace | None, job: ProbeJob, emit: Emit) -> None:
    """`typed`: the command line, where it names this job."""
    if job.processes > 1 and not is_joined():
        if typed is None:
            raise ContractError(f"job {job.id} takes {job.processes} processes, so it cannot follow another job in one")
        launch([sys.executable, "-m", "lary_probe", typed.command, "--job", str(typed.job)], job.processes, emit)
        return
    from lary_probe.run import run_probe  # imports torch: `describe` does without

    run_probe(typed.command if typed else job.kind, job, emit)


def _selftest(emit: Emit) -> int:
    from lary_probe.selftest import selftest

    return run_command(lambda: selftest(emit), emit, "selftest")


if __name__ == "__main__":
    raise SystemExit(main())
