"""The commands of an image with policies or simulators: `python -m lary_policy describe | act | evaluate`."""

import argparse
import os
import sys
from pathlib import Path

from lary_schema.command import run_command, run_job
from lary_schema.evaluation import ActJob, EvaluateJob
from lary_schema.events import Emit, _Event, to_line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lary_policy", description="Policies and simulators behind one contract.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    describe = verbs.add_parser("describe", help="print this image's card as JSON")
    describe.add_argument("--policy", metavar="KEY", help="one policy or benchmark alone")
    for verb, text in {"act": "answer a simulator's observations", "evaluate": "run a policy's episodes"}.items():
        command = verbs.add_parser(verb, help=text)
        command.add_argument("--job", type=Path, required=True, metavar="FILE")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Do one command; its exit code (`lary_schema.base.ExitCode`)."""
    options = _parser().parse_args(arguments)
    if options.verb == "act":
        return run_job(options.job, ActJob, _act)
    if options.verb == "evaluate":
        return run_job(options.job, EvaluateJob, _evaluate)
    return _describe(options.policy)


def _act(job: ActJob, emit: Emit) -> None:
    from lary_policy.act import act

    act(job, emit)


def _evaluate(job: EvaluateJob, emit: Emit) -> None:
    from lary_policy.evaluate import evaluate

    evaluate(job, emit)


def _describe(key: str | None) -> int:
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def emit(event: _Event) -> None:
            out.write(to_line(event))

        def body() -> None:
            from lary_policy.registry import describe

            out.write(describe(key).to_json())

        return run_command(body, emit)


if __name__ == "__main__":
    raise SystemExit(main())
