"""`python -m lary_probe describe | classify --job FILE | regress --job FILE | selftest`."""

import argparse
import sys
from pathlib import Path

from lary_schema.command import claim_stdout, run_command, run_job
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
    return run_job(parsed.job, ProbeJob, lambda job, emit: _probe(parsed.command, parsed.job, job, emit))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lary_probe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("describe", help="print the image card as JSON")
    for name in ("classify", "regress"):
        command = commands.add_parser(name, help=f"{name} the latents of one job")
        command.add_argument("--job", type=Path, required=True, metavar="FILE")
    commands.add_parser("selftest", help="train both probes on random numbers for a moment")
    return parser


def _probe(command: str, file: Path, job: ProbeJob, emit: Emit) -> None:
    if job.processes > 1 and not is_joined():
        launch([sys.executable, "-m", "lary_probe", command, "--job", str(file)], job.processes, emit)
        return
    from lary_probe.run import run_probe  # imports torch: `describe` does without

    run_probe(command, job, emit)


def _selftest(emit: Emit) -> int:
    from lary_probe.selftest import selftest

    return run_command(lambda: selftest(emit), emit, "selftest")


if __name__ == "__main__":
    raise SystemExit(main())
