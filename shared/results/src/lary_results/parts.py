"""What an archive of finished work holds: results of probes, evaluations, trainings and studies, and their names in it.

Each is a document and the files next to it, in a folder of the workspace's own names:

    RUN/MODEL/DATASET/PROBE/result.json             what a probe left
    evaluate/BENCHMARK/POLICY/NAME/evaluation.json  episodes of one policy on one task with one seed
    trained/KEY/checkpoint/training.json            what a training measured, not its model
    studies/KEY.json                                which models a study consists of
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import ContractError
from lary_schema.evaluation import EVALUATION_FILE, EvaluationResult
from lary_schema.files import unlisted, visible_files
from lary_schema.results import ProbeResult
from lary_schema.runs import PlanFile
from lary_schema.trained import CHECKPOINT, trained_models
from lary_schema.training import PICTURE_FILE, ROWS_FILE, TRAINING_FILE, TrainResult

from lary_results.evaluations import read_evaluations
from lary_results.files import FOLDER, RESULT_FILE, imported_from, one_folder, read_results
from lary_results.study.record import STUDIES, TRAINED, StudyRecord, record_path, records

LEFT_OUT = ("probe.safetensors",)
"""Of what lies next to a result."""
PARTS = 5
"""Of a name below a folder that has a document of its own: RUN/MODEL/DATASET/PROBE/FILE, or up to two folders more
(`eval_vis/val`)."""


class Kind(NamedTuple):
    """One kind of finished work."""

    one: str
    several: str

    def counted(self, count: int) -> str:
        return f"{count} {self.one if count == 1 else self.several}"


RESULT = Kind("result", "results")
EVALUATION = Kind("evaluation", "evaluations")
TRAINING = Kind("training", "trainings")
STUDY = Kind("study", "studies")
KINDS = (RESULT, EVALUATION, TRAINING, STUDY)


class Part(NamedTuple):
    """A document and the files next to it."""

    kind: Kind
    files: Mapping[str, Path]
    """By their names in an archive."""


def counted(counts: Mapping[Kind, int]) -> str:
    """`12 results, 1 evaluation`."""
    return ", ".join(kind.counted(counts[kind]) for kind in KINDS if counts.get(kind)) or RESULT.counted(0)


# --- what a workspace has ---------------------------------------------------------------------


def finished(results: Path, run: str, protocol: str | None) -> Iterator[Part]:
    """All that was finished in the workspace of the folder `results`; what was imported is not its own.

    With a run's name what its plan names; with a protocol results alone, since nothing else has one.
    """
    for path, result in read_results(results, run):
        if protocol in (None, result.protocol) and imported_from(path) is None:
            yield Part(RESULT, _named(results, _beside(path.parent)))
    if protocol is None:
        yield from _others(results, None if run == "*" else planned(results.parent / "runs", run))


def planned(runs: Path, run: str) -> frozenset[str]:
    """The documents of evaluations and trainings that a run's plan names. Raises ContractError for a damaged plan."""
    file = runs / one_folder(run) / "plan.json"
    if not file.is_file():
        return frozenset()
    plan = PlanFile.read(file)
    # Full paths, of a workspace that may have been moved since.
    paths = [PurePosixPath(one.result).parts[-PARTS:] for one in plan.evaluations]
    return frozenset(map("/".join, [*paths, *(_training(one.key) for one in plan.trainings)]))


def _others(results: Path, chosen: frozenset[str] | None) -> Iterator[Part]:
    """`chosen` None: all of them, and the studies too."""
    root = results.parent
    for path, result in read_evaluations(results):
        name = path.relative_to(results).as_posix()
        if name.startswith(f"{FOLDER}/") and (chosen is None or name in chosen):
            videos = (path.parent / episode.video for episode in result.episodes)
            yield Part(EVALUATION, _named(results, [path, *filter(Path.is_file, videos)]))
    if unread := [*unlisted(root / TRAINED, 2), *unlisted(root / STUDIES, 0)]:
        raise ContractError(unread[0])
    for checkpoint in trained_models(root / TRAINED):
        if (chosen is None or "/".join(_training(checkpoint.key)) in chosen) and checkpoint.result:
            files = (checkpoint.folder / name for name in (TRAINING_FILE, ROWS_FILE, PICTURE_FILE))
            yield Part(TRAINING, _named(root, filter(Path.is_file, files)))
    for record in records(root / STUDIES) if chosen is None else ():
        yield Part(STUDY, _named(root, [record_path(root / STUDIES, record.key)]))


def _training(key: str) -> tuple[str, ...]:
    return TRAINED, key, CHECKPOINT, TRAINING_FILE


def _beside(folder: Path) -> Iterator[Path]:
    for path in visible_files(folder):
        if path.name not in LEFT_OUT and not path.name.endswith(PARTIAL_SUFFIX) and not path.is_symlink():
            yield path


def _named(root: Path, files: Iterable[Path]) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in files}


# --- names ------------------------------------------------------------------------------------


def document_of(name: str) -> tuple[Kind, str] | None:
    """What the file of this name in an archive belongs to, and the name of its document; None: no file is called so.

    Such a name stays below the folder where it is put, on any system.
    """
    parts = name.split("/")
    if not all(map(_is_safe, parts)) or name.endswith(PARTIAL_SUFFIX):
        return None
    if parts[0] == STUDIES:
        return (STUDY, name) if len(parts) == 2 and name.endswith(".json") else None
    if parts[0] == TRAINED:
        fits = len(parts) == 4 and parts[2] == CHECKPOINT
        return (TRAINING, "/".join(_training(parts[1]))) if fits else None
    if not PARTS <= len(parts) <= PARTS + 2:
        return None
    kind, file = (EVALUATION, EVALUATION_FILE) if parts[0] == FOLDER else (RESULT, RESULT_FILE)
    return kind, "/".join([*parts[: PARTS - 1], file])


def _is_safe(part: str) -> bool:
    plain = part.isprintable() and not set(part) & set('\\:*?"<>|')
    return plain and bool(part) and not part.startswith(".") and not part.endswith((".", " "))


def landing(name: str) -> str:
    """Where a file of an archive lies below the folder of an import, which is one run among those of the workspace.

    RUN/MODEL/DATASET/PROBE becomes MODEL/DATASET/RUN.PROBE; all else keeps its name.
    """
    run, *rest = PurePosixPath(name).parts
    if run in (FOLDER, TRAINED, STUDIES):
        return name
    model, dataset, probe, *file = rest
    return "/".join([model, dataset, f"{run}.{probe}", *file])


def run_of(name: str) -> str | None:
    """The run of a result's file."""
    run = name.partition("/")[0]
    return None if run in (FOLDER, TRAINED, STUDIES) else run


# --- documents --------------------------------------------------------------------------------


def check_document(kind: Kind, name: str, content: bytes, where: str) -> None:
    """Raises ContractError where a document is none of its kind, or says that it is of another folder."""
    said = _says(kind, json.loads(content), where)
    if not name.startswith(f"{said}/") and name != said:
        raise ContractError(f"{where}: is of {said}")


def _says(kind: Kind, document: object, where: str) -> str:
    """The name that a document gives itself, or what that begins with."""
    if kind is EVALUATION:
        values = EvaluationResult.parse(document, where).values
        return f"{FOLDER}/{values.benchmark}/{values.policy}/{values.name}"
    if kind is TRAINING:
        key = TrainResult.parse(document, where).values.key
        return f"{TRAINED}/{key}/{CHECKPOINT}"
    if kind is STUDY:
        return f"{STUDIES}/{StudyRecord.parse(document, where).key}.json"
    result = ProbeResult.parse(document, where)
    return f"{result.run}/{result.model}/{result.dataset}"
