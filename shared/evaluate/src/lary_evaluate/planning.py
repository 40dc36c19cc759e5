"""From a request to pairs of jobs: a simulator's for each policy, task and seed, and its policy's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lary_orch.cache import remembered
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.verbs import Verb
from lary_orch.runtimes.base import LocalRuntime, Notify
from lary_orch.runtimes.describe import parse_card
from lary_orch.runtimes.jobs import Job, Output, Prepared
from lary_orch.runtimes.refusals import tried_again
from lary_orch.weights.index import Trained, WeightSet, find_weights
from lary_orch.workspace import Workspace
from lary_results.files import FOLDER
from lary_schema.base import ContractError, fingerprint, path_sha256, unknown_key
from lary_schema.cards import BenchmarkCard, ImageCard, PolicyCard, TaskCard
from lary_schema.commands import command
from lary_schema.evaluation import (
    BASELINES,
    BLIND,
    EVALUATION_FILE,
    MORE_TASKS,
    RECORDED_FOLDER,
    REPLAY,
    SCRIPTED,
    ActJob,
    EvaluateJob,
    EvaluateValues,
    EvaluationResult,
    recorded_weight,
)
from lary_schema.jobs import WeightFile
from lary_schema.linked import linked_folder
from lary_schema.mounts import Mounts
from lary_schema.revision import code_revision
from lary_schema.trained import CHECKPOINT, Checkpoint

from lary_evaluate.renderers import Rendering, rendering
from lary_evaluate.request import Request

EVALUATE = Verb(
    name="evaluate",
    document=EvaluateJob,
    reads=("latents",),
    writes="out",
    outputs=lambda job: (Output("out", EVALUATION_FILE, job.fingerprint),),
    inputs=lambda _: (),
    title=lambda job: f"{job.values.policy} on {job.values.benchmark}/{job.values.task}, seed {job.values.seed}",
)
ACT = Verb(
    name="act",
    document=ActJob,
    reads=("weights",),
    writes="out",
    outputs=lambda _: (),
    inputs=lambda _: (),
    title=lambda job: job.policy,
)

SOCKETS = "sockets"
"""Of a run's folder: the folders of its policies' sockets, while it is worked on."""


@dataclass(frozen=True)
class Acting:
    """A policy, ready to be planned with."""

    key: str
    prepared: Prepared
    code_sha256: str
    weights: WeightSet

    def hashes(self, task: str) -> dict[str, str]:
        """sha256 of what decides its episodes of a task: of recordings, that task's alone."""
        found = self.weights.hashes
        return found if self.key != REPLAY else {name: found[name] for name in (recorded_weight(task),)}


@dataclass(frozen=True)
class Evaluation:
    """One policy on one task with one seed, done or not."""

    simulator: Job
    policy: Job | None
    """None: it runs in the simulator's process."""
    file: Path
    """Of the result."""


@dataclass(frozen=True)
class Plan:
    run: str
    evaluations: tuple[Evaluation, ...]
    videos: int = 0
    """Of each policy, so many successes and as many failures."""

    @property
    def todo(self) -> list[Evaluation]:
        return [one for one in self.evaluations if one.simulator.result is None]


class Planner:
    """Plans one request. `runtime` makes images ready and asks them what they are."""

    def __init__(
        self, request: Request, workspace: Workspace, catalog: Catalog, runtime: LocalRuntime, notify: Notify
    ) -> None:
        self._request, self._workspace, self._catalog = request, workspace, catalog
        self._runtime, self._notify = runtime, notify
        self._revision = code_revision(repository())

    def plan(self) -> Plan:
        """Raises ContractError where the request does not fit what there is."""
        card = self.benchmark
        tasks = self._request.chosen(card)
        actings = [self._acting(key) for key in self._request.policies]
        made = [
            self._evaluation(acting, task, seed) for acting in actings for task in tasks for seed in self._request.seeds
        ]
        named = sorted([one.simulator.id, self._states(one)] for one in made)
        run = f"evaluate-{fingerprint(named)[:8]}"
        return Plan(run, tuple(self._in_run(one, run) for one in made), self._videos())

    def _videos(self) -> int:
        """How many are made; says why, where none can be."""
        wanted = self._request.videos if self._request.record else 0
        without = None
        if self.benchmark.camera is None:
            without = "it has no pictures"
        elif "av" not in self._simulators.libraries:
            without = f"av (PyAV) is not installed in image {self._image.ref}"
        if wanted and without is not None:
            self._notify(f"{self.benchmark.key}: no videos: {without}")
        return 0 if without is not None else wanted

    @staticmethod
    def _states(one: Evaluation) -> list[int]:
        assert isinstance(one.simulator.document, EvaluateJob)
        return list(one.simulator.document.values.states)

    # --- what there is ---------------------------------------------------------------------------

    @cached_property
    def _image(self) -> Prepared:
        return self._runtime.prepare(image_of_benchmark(self._catalog, self._request.benchmark), self._notify)

    @cached_property
    def _simulators(self) -> ImageCard:
        """The simulator's image as it describes itself, with this benchmark alone."""
        found = self._described(self._image, self._request.benchmark)
        if len(found.benchmarks) != 1 or found.benchmarks[0].code_sha256 is None:
            raise ContractError(f"describe of image {self._image.ref}: not one benchmark with its code_sha256")
        return found

    @property
    def benchmark(self) -> BenchmarkCard:
        return self._simulators.benchmarks[0]

    @cached_property
    def rendering(self) -> Rendering:
        """By what it draws, with the GPU that jobs get."""
        return rendering(self.benchmark, cuda=self._request.device == "cuda")

    @property
    def _libraries(self) -> dict[str, str]:
        """Those of the simulator that decide what happens."""
        there = self._simulators.libraries
        return {name: there[name] for name in self.benchmark.libraries if name in there}

    def _described(self, prepared: Prepared, key: str) -> ImageCard:
        where = f"describe --policy {key} of image {prepared.ref}"
        name = [self._runtime.name, prepared.source.card.name, prepared.identity, "--policy", key]

        def reply() -> Any:
            text = tried_again(lambda: self._runtime.query(prepared, "describe", "--policy", key))
            return parse_card(text, where).model_dump(mode="json")

        return ImageCard.parse(remembered(self._workspace.cache, "describe", name, reply), where)

    def _acting(self, key: str) -> Acting:
        card = self.benchmark
        assert card.code_sha256 is not None
        if key == SCRIPTED and not card.scripted:
            raise ContractError(f"benchmark {card.key} has no scripted policy; baselines are {', '.join(BASELINES)}")
        if key in BLIND:
            return Acting(key, self._image, card.code_sha256, self._recorded() if key == REPLAY else _none(self))
        prepared = self._runtime.prepare(image_of_policy(self._catalog, key), self._notify)
        found = self._described(prepared, key).policies
        if len(found) != 1 or found[0].code_sha256 is None:
            raise ContractError(f"describe of image {prepared.ref}: not one policy with its code_sha256")
        if found[0].actions not in (None, len(card.actions)):
            raise ContractError(
                f"policy {key} has actions of {found[0].actions} numbers, benchmark {card.key} of {len(card.actions)}"
            )
        weights = self._weights(found[0].model_copy(update={"key": key}))
        return Acting(key, prepared, found[0].code_sha256, weights)

    def _weights(self, card: PolicyCard) -> WeightSet:
        """Of a trained policy its checkpoint, and what that does not hold of its weights: a downloaded backbone."""
        trained = None
        if card.pattern is not None:
            checkpoint = Checkpoint.of(self._workspace.trained, card.key)
            if not checkpoint.is_whole:
                raise ContractError(f"{checkpoint.folder}: no trained model {card.key}; `{command('train')}` makes one")
            trained = Trained(CHECKPOINT, checkpoint.folder, checkpoint.result.fingerprint)
            card = card.model_copy(update={"weights": card.weights + checkpoint.further_weights})
        return find_weights(card, self._workspace.weights, self._workspace.cache, trained=trained)

    def _recorded(self) -> WeightSet:
        """The recorded actions that `replay` sends: a folder for each task."""
        policy = self._request.recording or SCRIPTED
        folder = self._workspace.results / FOLDER / self.benchmark.key / policy
        folders = sorted(folder.glob(f"*/{RECORDED_FOLDER}/*"), key=self._rank, reverse=True)
        found = {path.name: path for path in folders if path.is_dir()}
        wanted = [task.key for task in self._request.chosen(self.benchmark)]
        if missing := [key for key in wanted if key not in found]:
            raise ContractError(
                f"{folder}: no recorded actions of {missing[0]}; record them by "
                f"`{command('evaluate', '-m', policy, '-b', self.benchmark.key, '--record')}`"
            )
        inside = {key: f"{REPLAY}/{key}" for key in wanted}
        root = linked_folder({inside[key]: found[key] for key in wanted}, self._workspace.cache)
        files = [
            WeightFile(name=recorded_weight(key), path=inside[key], sha256=path_sha256(found[key])) for key in wanted
        ]
        return WeightSet(root, tuple(files))

    def _rank(self, recorded: Path) -> tuple[bool, bool, bool, int, str]:
        """Of one task's recordings the lowest is sent: of this simulator, by this protocol, of the lowest seed."""
        folder = recorded.parents[1]
        try:
            values = EvaluationResult.read(folder / EVALUATION_FILE).values
        except ContractError:
            return True, True, True, 0, folder.name
        other = values.benchmark_code_sha256 != self.benchmark.code_sha256
        protocol = self._request.wishes.protocol(self.benchmark)
        return False, other, values.protocol != protocol, values.seed, folder.name

    # --- jobs -----------------------------------------------------------------------------------

    def _evaluation(self, acting: Acting, task: TaskCard, seed: int) -> Evaluation:
        card, request = self.benchmark, self._request
        assert card.code_sha256 is not None
        values = EvaluateValues(
            policy=acting.key,
            policy_code_sha256=acting.code_sha256,
            weights=acting.hashes(task.key),
            benchmark=card.key,
            benchmark_code_sha256=card.code_sha256,
            task=task.key,
            states=request.states(task),
            seed=seed,
            protocol=request.wishes.protocol(card),
            renderer=None if acting.key in BLIND else self.rendering.name,
            libraries=self._libraries,
        )
        out = self._workspace.results / FOLDER / card.key / acting.key / values.name
        values, done = self._known(values, out / EVALUATION_FILE)
        document = EvaluateJob(
            id=f"evaluate.{acting.key}.{card.key}.{values.name}",
            values=values,
            act_timeout_s=request.act_timeout_s,
            record=request.record,
            again=request.again,
            **self._common(self._image),
        )
        mounts = self._mounts(out=out)
        job = EVALUATE.job(
            document.id,
            document,
            self._image,
            mounts,
            run="unnamed",
            stall_timeout_s=request.stall_timeout_s,
            env=self.rendering.environment,
            result=out / EVALUATION_FILE if done else None,
        )
        policy = None if acting.key == SCRIPTED else self._policy_job(acting, document)
        return Evaluation(job, policy, out / EVALUATION_FILE)

    def _known(self, values: EvaluateValues, file: Path) -> tuple[EvaluateValues, bool]:
        """With the states that an earlier call evaluated too, and whether nothing is left to do."""
        try:
            found = EvaluationResult.read(file)
        except ContractError:
            return values, False
        if found.fingerprint != values.fingerprint:
            return values, False
        whole = values.model_copy(update={"states": tuple(sorted({*values.states, *found.values.states}))})
        done = whole.states == found.values.states and all(episode.evaluated for episode in found.episodes)
        redo = self._request.again and any(episode.fault for episode in found.episodes)
        recorded = {path.stem for path in (file.parent / RECORDED_FOLDER / values.task).glob("*.npy")}
        # An episode that failed before its first action has none.
        unrecorded = any(str(one.state) not in recorded for one in found.episodes if one.steps)
        return whole, done and not redo and not (self._request.record and unrecorded)

    def _policy_job(self, acting: Acting, simulator: EvaluateJob) -> Job:
        document = ActJob(
            id=f"act.{simulator.id.removeprefix('evaluate.')}",
            policy=acting.key,
            weights=acting.weights.files,
            **self._common(acting.prepared),
        )
        return ACT.job(
            document.id,
            document,
            acting.prepared,
            self._mounts(weights=acting.weights.root),
            run="unnamed",
            stall_timeout_s=self._request.stall_timeout_s,
            env={MORE_TASKS: "1"},
        )

    def _common(self, prepared: Prepared) -> dict[str, Any]:
        request = self._request
        return {
            "image": prepared.ref,
            "image_digest": prepared.digest,
            "code_revision": self._revision,
            "device": request.device,
            "threads": request.threads,
            "stall_timeout_s": request.stall_timeout_s,
            "connect_timeout_s": request.connect_timeout_s,
        }

    def _mounts(self, **given: Path) -> Mounts:
        workspace = self._workspace
        unnamed = workspace.run("unnamed").root
        folders = {"data": workspace.data, "weights": workspace.weights, "latents": workspace.latents, "out": unnamed}
        return Mounts(**(folders | given), job=unnamed)

    def _in_run(self, one: Evaluation, run: str) -> Evaluation:
        """Jobs in its folders. Which socket a pair has is decided when it is started (`pair.starting`)."""
        paths = self._workspace.run(run)

        def named(job: Job, socket: str) -> Job:
            folders = {"job": paths.job(job.id), socket: paths.root / SOCKETS}
            return replace(job, run=run, mounts=job.mounts.model_copy(update=folders))

        policy = None if one.policy is None else named(one.policy, "out")
        return replace(one, simulator=named(one.simulator, "latents"), policy=policy)


def _none(planner: Planner) -> WeightSet:
    return WeightSet(linked_folder({}, planner._workspace.cache))


# --- images -----------------------------------------------------------------------------------


def image_of_benchmark(catalog: Catalog, key: str) -> ImageSource:
    """Raises ContractError with the nearest known key."""
    known = {card.key: source for _, source in catalog.images for card in source.card.benchmarks}
    if key not in known:
        raise unknown_key("benchmark", key, known or ("none",))
    return known[key]


def image_of_policy(catalog: Catalog, key: str) -> ImageSource:
    """One that names it before one whose family fits. Raises ContractError with the nearest known key."""
    cards = [(source, card) for _, source in catalog.images for card in source.card.policies]
    serving = [(card.pattern is not None, source) for source, card in cards if card.serves(key)]
    if not serving:
        raise unknown_key("policy", key, [*(card.key for _, card in cards), *BLIND])
    return min(serving, key=lambda pair: pair[0])[1]


def needed_images(catalog: Catalog, policies: Sequence[str], benchmark: str) -> list[ImageSource]:
    """The simulator's, and those of the policies."""
    others = [key for key in policies if key not in BLIND]
    found = [image_of_benchmark(catalog, benchmark), *(image_of_policy(catalog, key) for key in others)]
    return list({source.card.name: source for source in found}.values())
