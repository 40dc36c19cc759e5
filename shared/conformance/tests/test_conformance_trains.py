"""The checks of `train`, on a toy that keeps the contract and on toys that break it, one fault each."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lary_conformance import training
from lary_conformance.case import Verdict, verdict_of
from lary_conformance.command import _recipes, _starts
from lary_conformance.subject import Subject, open_subject
from lary_orch.catalog.cards import Catalog
from lary_orch.runtimes.choose import local
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.docker_args import Host, task_arguments
from lary_orch.runtimes.jobs import Job, Prepared
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.training import Optimiser, Recipe, TrainJob

REPO = Path(__file__).parents[3]
RECIPE = Recipe(
    key="toy-a",
    title="toy",
    trainee="toy",
    config={"supervised": True, "text": True, "pause": 0.01},
    optimiser=Optimiser(lr=1e-2, warmup=3),
    batch_size=4,
    steps=30,
    losses={"pixels": 1.0, "action": 0.1},
)


@pytest.fixture(scope="module")
def toys() -> Iterator[ModuleType]:
    """The toy image of the trainer's own tests."""
    spec = importlib.util.spec_from_file_location(
        "conformance_trainer_conftest", REPO / "shared/trainer/tests/conftest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def make_image(toys: ModuleType, folder: Path, fault: tuple[str, str]) -> Path:
    """A folder of the toy's image, installed where its sources are, with one piece of its code replaced."""
    package, info = folder / "src" / "lary_toy_check", folder / "src" / "lary_toy_check-1.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    old, new = fault
    assert old in toys.TOY_CODE
    (package / "toy.py").write_text(toys.TOY_CODE.replace(old, new))
    (package / "image.yaml").write_text(toys.TOY_YAML)
    (package / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text('[project]\nname = "lary-toy-check"\nversion = "1"\n')
    (info / "entry_points.txt").write_text(
        "[lary.models]\ntoy = lary_toy_check.toy:ToyModel\n[lary.trainees]\ntoy = lary_toy_check.toy:ToyTrainee\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-toy-check\nVersion: 1\n")
    return folder


@dataclass
class Recorder:
    """A runtime whose jobs are kept."""

    inner: Any
    name: str = "process"
    isolates: bool = False
    jobs: list[Job] = field(default_factory=list)

    def prepare(self, image: Any, notify: Any) -> Prepared:
        prepared: Prepared = self.inner.prepare(image, notify)
        return prepared

    def query(self, prepared: Prepared, *arguments: str, **options: Any) -> str:
        return str(self.inner.query(prepared, *arguments, **options))

    def start(self, job: Job, slot: Slot, stderr: Path) -> Any:
        self.jobs.append(job)
        return self.inner.start(job, slot, stderr)


@pytest.fixture
def subject(
    toys: ModuleType, warm_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Subject]:
    """`subject(old, new, **recipe)`: the toy with a fault and what it is to train, under examination."""

    def opened(old: str = "", new: str = "", **changes: Any) -> Subject:
        folder = make_image(toys, tmp_path / "image", (old, new))
        monkeypatch.setattr(sys, "executable", str(warm_python))
        monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
        (source,) = (s for _, s in Catalog.load([folder]).images if s.folder == folder)
        runtime = Recorder(local("process", Workspace.locate(tmp_path / "ws", env={}), "current"))
        recipes = (RECIPE.model_copy(update=changes),)
        return open_subject(runtime, source, tmp_path, tmp_path, recipes=recipes)  # type: ignore[arg-type]

    return opened


def verdicts(subject: Subject, *checks: str) -> dict[str, Verdict]:
    """Of some checks of training, by name; without names of all."""
    cases = (case for case in training.cases(subject) if not checks or case.check in checks)
    return {verdict.check: verdict for verdict in map(verdict_of, cases)}


def test_a_toy_that_keeps_the_contract(subject: Callable[..., Subject]) -> None:
    """All checks pass; in a container its own folder is all that a training may write."""
    examined = subject()
    found = verdicts(examined)
    states = {check: verdict.state for check, verdict in found.items()}
    assert states == {
        **dict.fromkeys(("describe", "train", "train again", "train resume", "trained model"), "ok"),
        **dict.fromkeys(("unknown config", "loss terms", "other code", "wrong start", "unreadable row"), "ok"),
        **{"divergence": "ok", "missing labels": "ok", "train isolation": "skipped"},
    }, found
    assert found["divergence"].message.startswith("exit 7: step ")
    assert found["train resume"].message.startswith("killed after step ")
    recorder: Any = examined.runtime
    trained = [job for job in recorder.jobs if job.verb == "train"]
    assert len(trained) > 10
    for job in trained:
        mounts = task_arguments(job, Slot(Device(), 1), Host(uid=1, gid=1), {})["mounts"]
        writable = [(mount["Target"], mount["Source"]) for mount in mounts if not mount["ReadOnly"]]
        assert writable == [("/out", str(job.mounts.out))]


FAULTS = {
    "a generator that lives on": (
        'z = z + 0.1 * row_noise(batch.seed, "noise", batch.step, batch.rows, (z.shape[1],)).to(z.device)',
        'g = self.__dict__.setdefault("g", torch.Generator().manual_seed(1)); '
        "z = z + 0.1 * torch.randn(z.shape, generator=g)",
        "train resume",
        "differs from an undisturbed one in model.safetensors",
    ),
    "a file outside of its folder": (
        "        kept = {",
        '        (Mounts.from_env().data / "notes.txt").write_text("mine")\n        kept = {',
        "train",
        "wrote outside of its folder: notes.txt",
    ),
    "a file that is no part of a checkpoint": (
        "        kept = {",
        '        (Mounts.from_env().out / "notes.txt").write_text("mine")\n        kept = {',
        "train",
        "'notes.txt'",
    ),
    "a config that takes anything": (
        "        if unknown:",
        "        if False:",
        "unknown config",
        "takes config key",
    ),
    "an error that is none of the contract's": (
        "        if unknown:",
        "        if unknown and not os.environ.get('LARY_MOUNT_JOB'):",
        "unknown config",
        "2 expected",
    ),
    "an exit code of its own": (
        '        terms = {"pixels": outputs["pixels"].mean()}',
        '        terms = {"pixels": outputs["pixels"].mean()}\n'
        '        if not torch.isfinite(terms["pixels"]):\n            raise SystemExit(9)',
        "divergence",
        "exit 9",
    ),
    "another model's card": (
        'title="toy", paradigm="baseline"',
        'title="toy" + str(os.environ.get("LARY_MOUNT_JOB"))[:1], paradigm="baseline"',
        "train",
        "other facts than `describe --recipe`",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_toy_with_a_fault(subject: Callable[..., Subject], name: str) -> None:
    old, new, check, words = FAULTS[name]
    verdict = verdicts(subject(old, new), check)[check]
    assert (verdict.state, bool(verdict.remedy)) == ("failed", True), verdict
    assert words in verdict.message


def test_an_image_without_recipes_says_so(subject: Callable[..., Subject]) -> None:
    examined = subject()
    examined.recipes = ()
    assert verdicts(examined)["train"].message.startswith("no recipe: --recipe names one")


def test_a_recipe_goes_on_from_the_checkpoint_of_another(subject: Callable[..., Subject]) -> None:
    """`starts.yaml`: the other one is trained first, whatever the order of the files, and is the `start`."""
    examined = subject()
    second = RECIPE.model_copy(update={"key": "toy-0-second"})
    examined.recipes, examined.starts = (second, *examined.recipes), {second.key: RECIPE.key}
    cases = [case for case in training.cases(examined) if (case.check, case.of) == ("train", second.key)]
    (verdict,) = map(verdict_of, cases)
    assert verdict.state == "ok", verdict
    recorder: Any = examined.runtime
    first, *_, last = (TrainJob.read(job.mounts.job / "job.json") for job in recorder.jobs if job.verb == "train")
    assert (first.values.recipe.key, first.values.init) == (RECIPE.key, {})
    assert last.values.init == {"start": first.fingerprint}


def test_recipes_that_go_on_from_each_other_are_refused(subject: Callable[..., Subject]) -> None:
    examined = subject()
    examined.starts = {RECIPE.key: RECIPE.key}
    with pytest.raises(ContractError, match="in a circle: toy-a"):
        list(training.cases(examined))


def test_which_recipes_go_on_stands_next_to_them(tmp_path: Path) -> None:
    (tmp_path / "starts.yaml").write_text("starts: {two: one}")
    (tmp_path / "two.yaml").write_text(json.dumps(RECIPE.model_dump(mode="json")))
    found = _recipes((tmp_path / "two.yaml", tmp_path / "starts.yaml"), "")
    assert (list(found.values()), _starts(found)) == ([RECIPE], {"two": "one"})
    (tmp_path / "starts.yaml").write_text("starts: [two]")
    with pytest.raises(ContractError, match=r"starts\.yaml: not a valid Starts"):
        _starts(found)
