"""Videos of a few episodes: chosen by the results alone, once all of them are there, so that kills change no choice."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lary_orch.plan.verbs import Verb
from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.jobs import Job, Output
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.evaluation import Episode, EvaluateJob, EvaluationResult, VideoJob, video_file

from lary_evaluate.planning import Evaluation

VIDEO: Verb[VideoJob] = Verb(
    name="video",
    document=VideoJob,
    reads=(),
    writes="out",
    outputs=lambda job: tuple(
        Output("out", video_file(state, trace), job.values.fingerprint) for state, trace in job.episodes.items()
    ),
    inputs=lambda _: (),
    title=lambda job: f"{job.values.policy} on {job.values.benchmark}/{job.values.task}, seed {job.values.seed}",
)


class Finished(NamedTuple):
    """An evaluation and what came out."""

    evaluation: Evaluation
    result: EvaluationResult


def video_jobs(evaluations: Sequence[Evaluation], workspace: Workspace, count: int, notify: Notify) -> list[Job]:
    """A job for each evaluation of which videos are missing: of every policy, `count` successes and as many failures.

    A policy of which a result is missing has none yet. What was tried in vain, is tried once more only where the
    evaluation is (`--again`): the same machine does the same. `notify` hears of it.
    """
    missing = list(_all_missing(evaluations, count))
    in_vain = [pair for pair in missing if _fault(*pair).exists() and not _document(pair[0].evaluation).again]
    if in_vain:
        first = _fault(*in_vain[0])
        notify(
            f"videos of {len(in_vain)} episodes could not be made and are not tried again without --again; "
            f"the first: {first}: {_said(first)}"
        )
    wanted: dict[Path, tuple[Finished, list[Episode]]] = {}
    for one, episode in (pair for pair in missing if pair not in in_vain):
        wanted.setdefault(one.evaluation.file, (one, []))[1].append(episode)
    return [_job(one, episodes, workspace) for one, episodes in wanted.values()]


def _all_missing(evaluations: Sequence[Evaluation], count: int) -> Iterator[tuple[Finished, Episode]]:
    for policy in dict.fromkeys(map(_policy, evaluations)):
        found = [_finished(one) for one in evaluations if _policy(one) == policy]
        whole = [one for one in found if one is not None]
        if len(whole) == len(found):
            yield from _missing(whole, count)


def _fault(one: Finished, episode: Episode) -> Path:
    return one.evaluation.file.parent / episode.video_fault


def _said(file: Path) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8", errors="replace").split())
    except OSError as error:
        return str(error.strerror)


def _policy(one: Evaluation) -> str:
    return _document(one).values.policy


def _document(one: Evaluation) -> EvaluateJob:
    assert isinstance(one.simulator.document, EvaluateJob)
    return one.simulator.document


def _finished(one: Evaluation) -> Finished | None:
    try:
        result = EvaluationResult.read(one.file)
    except ContractError:
        return None
    return Finished(one, result) if result.fingerprint == _document(one).values.fingerprint else None


def _missing(found: Sequence[Finished], count: int) -> Iterator[tuple[Finished, Episode]]:
    wanted = chosen([one.result for one in found], count)
    for one in found:
        for result, episode in wanted:
            if result is one.result and not (one.evaluation.file.parent / episode.video).exists():
                yield one, episode


def chosen(results: Sequence[EvaluationResult], count: int) -> list[tuple[EvaluationResult, Episode]]:
    """Of one policy's results, at most `count` successes and `count` failures: those of the lowest seeds and initial
    states, one task after the other. An episode without an action shows nothing."""
    order = sorted(
        ((result, episode) for result in results for episode in result.episodes if episode.evaluated and episode.steps),
        key=lambda pair: (pair[0].values.seed, pair[1].state, pair[0].values.task),
    )
    return [
        *[pair for pair in order if pair[1].success][:count],
        *[pair for pair in order if not pair[1].success][:count],
    ]


def _job(one: Finished, episodes: Sequence[Episode], workspace: Workspace) -> Job:
    simulator, planned = one.evaluation.simulator, _document(one.evaluation)
    document = VideoJob(
        id=f"video.{planned.id.removeprefix('evaluate.')}",
        image=planned.image,
        image_digest=planned.image_digest,
        code_revision=planned.code_revision,
        device=planned.device,
        threads=planned.threads,
        stall_timeout_s=planned.stall_timeout_s,
        values=planned.values,
        episodes={episode.state: episode.trace_sha256 for episode in episodes},
    )
    mounts = simulator.mounts.model_copy(update={"job": workspace.run(simulator.run).job(document.id)})
    return VIDEO.job(
        document.id,
        document,
        simulator.image,
        mounts,
        run=simulator.run,
        stall_timeout_s=simulator.stall_timeout_s,
        env=simulator.env,
    )
