"""The commands of an image: `python -m lary_worker describe | extract --job FILE | selftest`.

`convert SRC DST` is for people: it makes a pickled checkpoint one that `extract` reads.
"""

import argparse
import os
from pathlib import Path
from typing import TextIO

from lary_schema.command import run_jobs, run_reply
from lary_schema.events import Emit
from lary_schema.jobs import ExtractJob

WEIGHTS_VARIABLE = "LARY_MOUNT_WEIGHTS"
"""Names the weights mount, as `Mounts.from_env` reads it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lary_worker", description="Latent action models behind one contract.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    describe = verbs.add_parser("describe", help="print this image's card as JSON")
    describe.add_argument("--model", metavar="KEY", help="one model alone, resolved where a family serves it")
    describe.add_argument("--weights", metavar="FOLDER", help="weights root of a model whose facts lie in its weights")
    extract = verbs.add_parser("extract", help="fill a job's part of one latent store")
    extract.add_argument("--job", type=Path, required=True, metavar="FILE")
    selftest = verbs.add_parser("selftest", help="check with random weights what the cards declare")
    selftest.add_argument("--model", metavar="KEY", help="one model alone")
    selftest.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    convert = verbs.add_parser("convert", help="a checkpoint with pickled objects -> safetensors")
    convert.add_argument("source", type=Path, metavar="SRC", help="a file that torch.save wrote")
    convert.add_argument("target", type=Path, metavar="DST", help="the safetensors file to write")
    convert.add_argument(
        "--entry", metavar="NAME", help="keys, joined by dots, under which SRC keeps its tensors (default: the largest)"
    )
    convert.add_argument("--i-trust-this-file", action="store_true", help="required, because SRC is unpickled")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Do one command; its exit code (`lary_schema.base.ExitCode`)."""
    options = _parser().parse_args(arguments)
    if options.verb == "extract":
        return _extract(options.job)
    if options.verb == "selftest":
        return run_reply(lambda out: _selftest(options.model, options.device, out))
    if options.verb == "convert":
        return run_reply(lambda out: _convert(options, out))
    if options.weights is not None:
        os.environ[WEIGHTS_VARIABLE] = options.weights
    return run_reply(lambda out: _describe(options.model, out))


def _extract(path: Path) -> int:
    from lary_worker.signals import end_on_signals

    end_on_signals()

    def body(job: ExtractJob, emit: Emit) -> None:
        from lary_worker.extract import extract

        extract(job, emit)

    return run_jobs(path, ExtractJob, body)


def _describe(key: str | None, out: TextIO) -> None:
    from lary_worker.registry import describe

    out.write(describe(key).to_json())


def _selftest(key: str | None, device: str, out: TextIO) -> None:
    from lary_worker.selftest import selftest

    selftest(key, device, out)


def _convert(options: argparse.Namespace, out: TextIO) -> None:
    from lary_worker.convert import convert

    trusted = options.i_trust_this_file
    out.write(convert(options.source, options.target, options.entry, trusted=trusted).to_json())


if __name__ == "__main__":
    raise SystemExit(main())
