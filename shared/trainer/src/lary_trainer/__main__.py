"""The commands of an image that trains: `python -m lary_trainer describe | train --job FILE | extract | selftest`.

`describe --recipe FILE` prints the facts of what a recipe trains. `extract`, `selftest` and `convert` are the worker's.
"""

import argparse
import sys
from pathlib import Path
from typing import TextIO

from lary_policy import __main__ as policies
from lary_schema.command import run_job, run_reply
from lary_schema.events import Emit
from lary_schema.launch import end_with_launcher, is_joined, launch
from lary_schema.mounts import Mounts
from lary_schema.training import TrainJob
from lary_worker import __main__ as worker

_OF_THE_WORKER = ("extract", "selftest", "convert")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lary_trainer", description="Latent action models, and their training.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    describe = verbs.add_parser("describe", help="print this image's card as JSON")
    which = describe.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="KEY", help="one model alone, resolved where a family serves it")
    which.add_argument("--policy", metavar="KEY", help="one policy, as `python -m lary_policy`")
    which.add_argument("--recipe", type=Path, metavar="FILE", help="the model that a recipe trains")
    describe.add_argument("--weights", metavar="FOLDER", help="as `python -m lary_worker`")
    train = verbs.add_parser("train", help="train one checkpoint, or go on with it")
    train.add_argument("--job", type=Path, required=True, metavar="FILE")
    verbs.add_parser("act", help="as `python -m lary_policy`", add_help=False)
    for verb in _OF_THE_WORKER:
        verbs.add_parser(verb, help="as `python -m lary_worker`", add_help=False)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Do one command; its exit code (`lary_schema.base.ExitCode`)."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in _OF_THE_WORKER:
        return worker.main(given)
    if given and given[0] == "act":
        return policies.main(given)
    options = _parser().parse_args(given)
    if options.verb == "describe" and options.policy is not None:
        return policies.main(given)
    if options.verb == "train":
        return _train(options.job)
    if options.recipe is None:
        return worker.main(given)
    return _describe(options.recipe)


def _train(path: Path) -> int:
    from lary_worker.signals import end_on_signals

    end_on_signals()
    end_with_launcher()
    return run_job(path, TrainJob, lambda job, emit: _run(path, job, emit))


def _run(path: Path, job: TrainJob, emit: Emit) -> None:
    from lary_trainer.checkpoint import is_finished, nothing_to_do

    if not is_joined():
        # Before torch is imported: a training that was done is nothing to do in no time.
        if is_finished(job, Mounts.from_env().out, _unsaid):
            nothing_to_do(job, emit)
            return
        if job.processes > 1:
            launch([sys.executable, "-m", "lary_trainer", "train", "--job", str(path)], job.processes, emit)
            return
    from lary_trainer.train import train

    train(job, emit)


def _unsaid(warning: str) -> None:
    """`train` says it, holding the folder."""


def _describe(recipe: Path) -> int:
    def body(out: TextIO) -> None:
        from lary_trainer.registry import describe_recipe

        out.write(describe_recipe(recipe).to_json())

    return run_reply(body)


if __name__ == "__main__":
    raise SystemExit(main())
