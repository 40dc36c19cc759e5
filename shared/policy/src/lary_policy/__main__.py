"""The commands of an image with policies or simulators: `python -m lary_policy describe | act | evaluate | video`."""

import argparse
from pathlib import Path
from typing import TextIO

from lary_schema.command import run_job, run_reply
from lary_schema.evaluation import ActJob, EvaluateJob, VideoJob
from lary_schema.events import Emit

VERBS = {
    "act": "answer a simulator's observations",
    "evaluate": "run a policy's episodes",
    "video": "make videos of episodes that were run",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lary_policy", description="Policies and simulators behind one contract.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    describe = verbs.add_parser("describe", help="print this image's card as JSON")
    describe.add_argument("--policy", metavar="KEY", help="one policy or benchmark alone")
    for verb, text in VERBS.items():
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
    if options.verb == "video":
        return run_job(options.job, VideoJob, _video)
    return _describe(options.policy)


def _act(job: ActJob, emit: Emit) -> None:
    from lary_policy.act import act

    act(job, emit)


def _evaluate(job: EvaluateJob, emit: Emit) -> None:
    from lary_policy.evaluate import evaluate

    evaluate(job, emit)


def _video(job: VideoJob, emit: Emit) -> None:
    from lary_policy.videos import make_videos

    make_videos(job, emit)


def _describe(key: str | None) -> int:
    def body(out: TextIO) -> None:
        from lary_policy.registry import describe

        out.write(describe(key).to_json())

    return run_reply(body)


if __name__ == "__main__":
    raise SystemExit(main())
