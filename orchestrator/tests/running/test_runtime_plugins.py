"""A runtime that the bench does not know: one package with an entry point, and no edit elsewhere."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import click
import lary_doctor as doctor
import pytest
from click.testing import CliRunner
from lary_doctor.check import Context
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import runtime_options
from lary_orch.run.drive import drive
from lary_orch.run.scheduler import one_by_one
from lary_orch.runtimes.base import LocalRuntime, Opening, Outcome, Runtime
from lary_orch.runtimes.choose import local_names, open_runtime
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.plugins import DEFAULTS, Wanted, detachable, plugin, plugins
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.events import Event
from lary_schema.runs import RunPaths

TOY = """
import subprocess
import sys
from lary_orch.runtimes.plugins import OwnOption, Plugin


class ToyTask:
    def __init__(self, child):
        self.child = child

    def lines(self):
        with self.child.stdout as stdout:
            yield from stdout

    def wait(self):
        return self.child.wait()

    def stop(self, grace_s=10):
        self.child.kill()


class ToyRuntime:
    name = "toy"
    isolates = False

    def __init__(self, colour):
        self.colour = colour

    def open(self, opening):
        return opening.one_by_one(opening, self.start)

    def start(self, job, slot, stderr):
        env = job.mounts.to_env() | {"PYTHONPATH": job.env["PYTHONPATH"], "COLOUR": self.colour}
        command = [sys.executable, "-m", job.image.source.card.module, job.verb, "--job", job.mounts.job / "job.json"]
        with open(stderr, "wb") as log:
            return ToyTask(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True))


PLUGIN = Plugin(
    name="toy",
    open=lambda wanted, workspace: ToyRuntime(wanted.own.get("toy_colour") or "grey"),
    options=(OwnOption("--toy-colour", {"help": "Of the toy runtime."}),),
    checks=("toy_check",),
)
"""
CHECK = """
from lary_doctor.check import Finding

NAME = "toy"


def run(context):
    return Finding("ok", f"the toy is {context.own['toy_colour']}")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`installed("toy_runtime:PLUGIN")`: a package as pip leaves it, on this interpreter's path."""

    def install(target: str, name: str = "toy", text: str = TOY) -> Path:
        site = tmp_path / f"site-{name}"
        metadata = site / f"lary_{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lary-{name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[lary.runtimes]\n{name} = {target}\n")
        (site / f"{name}_runtime.py").write_text(text)
        (site / f"{name}_check.py").write_text(CHECK)
        monkeypatch.syspath_prepend(str(site))
        plugins.cache_clear()
        return site

    yield install
    plugins.cache_clear()
    for module in [found for found in sys.modules if found.endswith(("_runtime", "_check"))]:
        sys.modules.pop(module)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.locate(tmp_path / "ws", env={})


class Silent:
    """A watch that shows nothing."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def launched(self, *_: Any) -> None:
        """Not shown."""

    relaunch = note = launched

    def event(self, job: Job, event: Event) -> None:
        self.events.append(event.event)

    def ended(self, outcome: Outcome) -> None:
        self.events.append(outcome.state)


def test_it_runs_a_job(
    installed: Callable[..., Path], workspace: Workspace, make_work: Callable[..., Job], paths: RunPaths, tmp_path: Path
) -> None:
    installed("toy_runtime:PLUGIN")
    job = make_work("a", ["start", "kill"], ["start"], env={"PYTHONPATH": str(tmp_path / "modules")})
    wanted = Wanted("toy", device="cpu", cpu_slots=1, own={"toy_colour": "red"})
    runtime, slots = open_runtime(wanted, workspace, [], print)
    opening = Opening(paths, 3, slots, lambda: [job], print, one_by_one)
    watch = Silent()
    (outcome,), interrupted = drive(runtime.open(opening), "r", lambda count: nullcontext(watch), print)
    assert (outcome.state, outcome.attempts, interrupted) == ("done", 2, None)
    assert watch.events == ["started", "started", "finished", "done"]
    assert '"COLOUR": "red"' in (job.mounts.out / "attempt-1").read_text()


def test_what_it_does_not_have_is_answered_by_the_interface(
    installed: Callable[..., Path], workspace: Workspace, paths: RunPaths
) -> None:
    """Its class is derived from nothing of ours; what it has stays its own."""
    installed("toy_runtime:PLUGIN")
    runtime = cast(LocalRuntime, plugin("toy").open(Wanted("toy"), workspace))
    answers = (
        runtime.sweep(),
        runtime.slots(),
        runtime.unfit([], gpu=True),
        runtime.remarks([]),
        runtime.as_user(1, 1),
    )
    assert answers == ([], None, None, [], None)
    assert runtime.preview(paths, [], print) is None
    assert (runtime.name, runtime.isolates, vars(runtime)["_runtime"].colour) == ("toy", False, "grey")
    with pytest.raises(AttributeError, match="adopt"):
        runtime.adopt("x")
    name = "slots"
    setattr(type(vars(runtime)["_runtime"]), name, lambda self: ["mine"])
    assert runtime.slots() == ["mine"]


def test_every_method_with_an_answer_of_the_interface_is_completed() -> None:
    """A method that comes to the interface later has to have one, or be asked for under a new name."""
    needed = {"prepare", "query", "open", "start", "adopt"}
    methods = {name for one in (Runtime, LocalRuntime) for name, made in vars(one).items() if inspect.isfunction(made)}
    assert {name for name in methods if not name.startswith("_")} == needed | set(DEFAULTS)


def test_it_brings_its_own_options_and_checks(installed: Callable[..., Path], workspace: Workspace) -> None:
    installed("toy_runtime:PLUGIN")
    got: list[Wanted] = []

    @click.command()
    @runtime_options
    def command(wanted: Wanted) -> None:
        got.append(wanted)

    assert "Of the toy runtime." in CliRunner().invoke(command, ["--help"]).output
    CliRunner().invoke(
        command, ["--runtime", "toy", "--toy-colour", "blue", "--cpu-slots", "2"], catch_exceptions=False
    )
    assert got == [Wanted("toy", cpu_slots=2, own={"toy_colour": "blue", "profile": None})]
    context = Context(workspace, Catalog.load(env={}), runtime="toy", own={"toy_colour": "blue"})
    assert [f.message for name, f in doctor.examine(context) if name == "toy"] == ["the toy is blue"]


def test_its_options_go_with_no_other_runtime(installed: Callable[..., Path], workspace: Workspace) -> None:
    installed("toy_runtime:PLUGIN")
    with pytest.raises(ContractError, match="--toy-colour goes with --runtime toy alone"):
        open_runtime(Wanted("process", own={"toy_colour": "red"}), workspace, [], print)


def test_what_is_installed_here() -> None:
    plugins.cache_clear()
    assert list(plugins()) == ["docker", "process", "slurm"]
    assert local_names() == ["docker", "process"]
    assert detachable() == ["slurm"]
    with pytest.raises(ContractError, match="no runtime 'kubernetes'; installed: docker, process, slurm"):
        plugin("kubernetes")


@pytest.mark.parametrize(
    ("target", "text", "message"),
    [
        ("odd_runtime:PLUGIN", "import no_such_module", "cannot be loaded: No module named 'no_such_module'"),
        ("odd_runtime:PLUGIN", "PLUGIN = 3", "must lead to a Plugin of this name"),
        ("odd_runtime:PLUGIN", TOY, "must lead to a Plugin of this name"),
        ("odd_runtime:PLUGIN", "1/0", "cannot be loaded: division by zero"),
    ],
)
def test_a_broken_package_is_named(installed: Callable[..., Path], target: str, text: str, message: str) -> None:
    installed(target, "odd", text)
    with pytest.raises(ContractError, match=r"runtime odd \(odd_runtime:PLUGIN\): .*" + message):
        plugins()


def test_two_runtimes_with_one_option_are_refused(installed: Callable[..., Path]) -> None:
    from lary_orch.runtimes.plugins import own_options

    installed("toy_runtime:PLUGIN")
    installed("other_runtime:PLUGIN", "other", TOY.replace('name="toy"', 'name="other"'))
    with pytest.raises(ContractError, match="both have the option --toy-colour"):
        own_options()
