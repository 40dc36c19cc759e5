"""Videos of `lary-orch evaluate`, from the command to the files: which episodes, a full disk, kills. And renderers."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_evaluate.command import command
from lary_evaluate.planning import Acting, Planner
from lary_evaluate.renderers import rendering
from lary_evaluate.request import Request
from lary_evaluate.videos import chosen
from lary_orch.catalog.cards import Catalog
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError, path_sha256
from lary_schema.cards import BenchmarkCard, ImageCard
from lary_schema.evaluation import Episode, EpisodeProtocol, EvaluateValues, EvaluationResult
from lary_schema.planned_weights import verified_files

TASK = "left-clockwise-open"
SIMULATOR = """
from lary_arm.turn import Turn


class Lamp(Turn):
    pass
"""
LOOKS = """
import numpy as np
from lary_policy import Policy


class Looks(Policy):
    def reset(self, instruction, seed):
        pass

    def act(self, observation):
        assert "image" in observation
        return np.zeros((16, 3), np.float32)
"""
# Of every process that finds it: what happens to a video just before it gets its name, where a file says so.
TROUBLE = """
import errno, os, pathlib, signal
_replace, _flags = os.replace, pathlib.Path(__file__).parent

def replace(source, target, **options):
    if str(target).endswith(".mp4"):
        if (_flags / "full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if (_flags / "kill").exists():
            (_flags / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return _replace(source, target, **options)

os.replace = replace
"""


def package(site: Path, name: str, source: str, card: dict[str, Any], points: str) -> Path:
    """A third-party package in a folder of the interpreter's path, and its image's folder."""
    inside = site / f"lary_{name}"
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text(source, encoding="utf-8")
    card = {"name": name, "kind": "simulator", "module": "lary_policy"} | card
    (inside / "image.yaml").write_text(json.dumps(card), encoding="utf-8")
    info = site / f"lary_{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lary-{name}\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    image = site / "images" / name
    (image / "src").mkdir(parents=True)
    (image / "src" / inside.name).symlink_to(inside)
    (image / "pyproject.toml").write_text("", encoding="utf-8")
    return image.parent


class Bench:
    """The command, in this process, in a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.site = folder / "workspace", folder / "site"
        self.env = {"LARY_HOME": str(self.root), "PYTHONPATH": str(self.site)}

    def __call__(self, *arguments: str, code: int = 0) -> Result:
        # A catalog of its own images too.
        more = ("--catalog", str(self.site / "images"), "--env", "current", "--cpu-slots", "1")
        done = CliRunner().invoke(command, (*arguments, *more), env=self.env)
        if isinstance(done.exception, ContractError):
            return done
        assert done.exit_code == code, done.output
        return done

    def files(self, ending: str, under: str = "") -> dict[str, bytes]:
        root = self.root / "results/evaluate" / under
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob(f"*{ending}"))}

    def results(self, benchmark: str, policy: str) -> list[EvaluationResult]:
        found = sorted((self.root / "results/evaluate" / benchmark / policy).glob("*/evaluation.json"))
        return [EvaluationResult.read(path) for path in found]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, seed_workspace: Callable[[Path], Path]) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("videos")
    seed_workspace(folder / "workspace")
    bench = Bench(folder)
    facts = {"title": "t", "license": "MIT", "source": "here"}
    lamp = facts | {
        "key": "lamp", "tasks": [{"key": "left-clockwise-open", "instruction": "left clockwise open", "states": 3}],
        "observations": {"image": {"shape": [64, 64, 3], "dtype": "uint8"}, "state": {"shape": [3]}},
        "actions": ["a", "b", "c"], "idle": [0, 0, 0], "horizon": 3, "scripted": True, "libraries": ["lary-arm"],
        "renderer": {"variable": "LAMP_GL", "gpu": "fast", "cpu": "slow"},
    }  # fmt: skip
    package(bench.site, "lamp", SIMULATOR, {"benchmarks": [lamp]}, "[lary.simulators]\nlamp = lary_lamp:Lamp\n")
    policy = {"kind": "model", "policies": [facts | {"key": "looks"}]}
    package(bench.site, "looks", LOOKS, policy, "[lary.policies]\nlooks = lary_looks:Looks\n")
    (bench.site / "sitecustomize.py").write_text(TROUBLE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield bench


def test_a_few_episodes_are_made_videos_and_results_do_not_know(bench: Bench) -> None:
    request = ("-m", "random", "-b", "demo_turn", "--task", TASK, "--episodes", "4")
    bench(*request, "--videos", "0")
    without = bench.files(".json")
    assert len(without) == 1
    assert bench.files(".mp4") == {}

    # Full at the first, of every attempt: the table is there, and the message says what to do.
    (bench.site / "full").touch()
    done = bench(*request, code=2)
    assert "3 videos to make" in done.stderr
    assert "cannot be written: No space left on device; finished episodes are kept: make room" in done.stderr
    assert re.search(r"random +25\.0", done.stdout)
    assert (bench.files(".json"), bench.files(".mp4"), bench.files(".partial")) == (without, {}, {})
    (bench.site / "full").unlink()

    # Killed in the middle of one.
    (bench.site / "kill").touch()
    done = bench(*request)
    assert done.stderr.count("starting it again") == 1
    made = bench.files(".mp4")
    assert bench.files(".json") == without
    assert bench.files(".partial") == {}
    # Of one success and three failures, all but the last.
    (result,) = bench.results("demo_turn", "random")
    assert [one.success for one in result.episodes] == [False, False, True, False]
    assert ["/".join(name.split("/")[3:]) for name in made] == [one.video for one in result.episodes[:3]]
    assert all(content[4:8] == b"ftyp" and len(content) < 100_000 for content in made.values())

    # Nothing is left to do; what was lost is made again, to the byte.
    assert "videos to make" not in bench(*request).stderr
    (bench.root / "results/evaluate" / max(made)).unlink()
    assert "1 videos to make" in bench(*request).stderr
    assert bench.files(".mp4") == made

    # One that cannot be repeated: said with its reason, kept, and not tried again unless that is requested.
    root = bench.root / "results/evaluate"
    lost, kept = root / min(made), sorted(root.rglob("recorded/*/0.npy"))[0]
    lost.unlink()
    actions = np.load(kept)
    np.save(kept, -actions)
    assert "1 of 1 videos of task left-clockwise-open were not made" in bench(*request, code=3).stderr
    note = lost.with_suffix(".txt")
    done = bench(*request)
    assert "videos to make" not in done.stderr
    assert f"without --again; the first: {note}: the same actions lead elsewhere" in done.stderr
    assert re.search(r"random +25\.0", done.stdout)
    np.save(kept, actions)
    assert "1 videos to make" in bench(*request, "--again").stderr
    assert bench.files(".mp4") == made
    assert not note.exists()


def test_what_draws_stands_in_the_plan_the_result_and_the_table(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ("-m", "scripted,looks", "-b", "lamp", "--episodes", "1", "--videos", "0")

    def planned() -> dict[str, Any]:
        jobs = json.loads(bench(*request, "--plan").stdout)["jobs"]
        return {job["values"]["policy"]: job["values"] for job in jobs if job["kind"] == "evaluate"}

    monkeypatch.delenv("LAMP_GL", raising=False)
    first = planned()
    assert {name: values.get("renderer") for name, values in first.items()} == {"scripted": None, "looks": "slow"}
    assert all(list(values["libraries"]) == ["lary-arm"] for values in first.values())
    monkeypatch.setenv("LAMP_GL", "glow")
    refused = bench(*request)
    assert "benchmark lamp: LAMP_GL=glow: pictures are drawn by fast or slow; set one" in str(refused.exception)
    for name, todo in (("fast", 2), ("slow", 1)):
        # The process has it, though nothing else of the environment: else the simulator would refuse.
        monkeypatch.setenv("LAMP_GL", name)
        done = bench(*request)
        assert f"lamp: pictures are drawn by {name} (LAMP_GL is set)" in done.stderr
        assert f"{todo} of 2 evaluations to do" in done.stderr
    assert sorted(str(one.values.renderer) for one in bench.results("lamp", "looks")) == ["fast", "slow"]
    assert [one.values.renderer for one in bench.results("lamp", "scripted")] == [None]
    boards = json.loads(bench("--results", "-b", "lamp", "--json").stdout)
    assert [(one["renderer"], [p["policy"] for p in one["policies"]]) for one in boards] == [
        ("fast", ["looks", "scripted"]),
        ("slow", ["looks", "scripted"]),
    ]


CARD: dict[str, Any] = {
    "key": "b", "title": "t", "tasks": [{"key": "t", "instruction": "i", "states": 1}], "actions": ["x"], "idle": [0],
    "observations": {}, "horizon": 1, "license": "l", "source": "s",
}  # fmt: skip


@pytest.mark.parametrize("environ", [{}, {"MUJOCO_GL": ""}, {"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "nonsense"}])
def test_a_benchmark_whose_pictures_are_the_same_everywhere_has_no_renderer(environ: dict[str, str]) -> None:
    found = rendering(BenchmarkCard.model_validate(CARD), cuda=True, environ=environ)
    assert (found.name, dict(found.environment)) == (None, {})


@pytest.mark.parametrize("given", [None, "egl", "osmesa"])
@pytest.mark.parametrize("cuda", [True, False])
def test_jobs_are_told_what_draws_whoever_chose_it(given: str | None, cuda: bool) -> None:
    card = BenchmarkCard.model_validate(CARD | {"renderer": {"variable": "MUJOCO_GL", "gpu": "egl", "cpu": "osmesa"}})
    found = rendering(card, cuda=cuda, environ={} if given is None else {"MUJOCO_GL": given})
    wanted = given or ("egl" if cuda else "osmesa")
    assert (found.name, dict(found.environment)) == (wanted, {"MUJOCO_GL": wanted})
    assert ("is set" in str(found)) == (given is not None)


ENDS = st.sampled_from(
    [
        {"success": True, "steps": 3},
        {"success": False, "steps": 9},
        {"success": False, "steps": 2, "fault": "bad_actions"},
        {"success": False, "steps": 0, "fault": "refused"},
        {"success": False, "steps": 4, "fault": "simulator_error"},
        {"success": False, "steps": 5, "fault": "policy_timeout"},
    ]
)
RESULTS = st.dictionaries(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), st.dictionaries(st.integers(0, 9), ENDS, min_size=1)
)


@settings(max_examples=40, deadline=None)
@given(made=RESULTS, count=st.integers(1, 4), shuffled=st.randoms(use_true_random=False))
def test_which_episodes_are_shown_is_a_function_of_the_results(
    made: dict[tuple[str, int], dict[int, dict[str, Any]]], count: int, shuffled: Any
) -> None:
    results = [_result(task, seed, episodes) for (task, seed), episodes in made.items()]

    def keys(found: list[tuple[EvaluationResult, Episode]]) -> list[tuple[int, int, str, bool]]:
        return [(r.values.seed, one.state, r.values.task, one.success) for r, one in found]

    found = keys(chosen(results, count))
    shuffled.shuffle(results)
    assert keys(chosen(results, count)) == found, "in whatever order they were written"
    shown = [
        (seed, state, task, one["success"])
        for (task, seed), episodes in made.items()
        for state, one in episodes.items()
        if one["steps"] and one.get("fault") not in ("simulator_error", "policy_timeout")
    ]
    for success in (True, False):
        assert [key for key in found if key[3] == success] == sorted(k for k in shown if k[3] == success)[:count]


def _result(task: str, seed: int, episodes: dict[int, dict[str, Any]]) -> EvaluationResult:
    values = EvaluateValues(
        policy="p", policy_code_sha256="c", benchmark="b", benchmark_code_sha256="d", task=task,
        states=tuple(sorted(episodes)), seed=seed, protocol=EpisodeProtocol(horizon=9, settle=0),
    )  # fmt: skip
    made = [Episode.model_validate({"state": s, "trace_sha256": "ab"} | episodes[s]) for s in sorted(episodes)]
    return EvaluationResult(fingerprint=values.fingerprint, values=values, episodes=tuple(made), simulator_image="i")


def test_replay_sends_what_was_recorded_by_the_same_protocol(tmp_path: Path) -> None:
    """Whatever else was evaluated, and in whatever order: another simulator, horizon, seed, or one without a result."""
    card = BenchmarkCard.model_validate(CARD | {"code_sha256": "now"})
    image = ImageCard(name="i", kind="simulator", module="m", benchmarks=(card,))
    workspace = Workspace.locate(tmp_path)
    made = [
        {"benchmark_code_sha256": code, "seed": seed, "protocol": {"horizon": horizon, "settle": 0}}
        for code, horizon, seed in product(("now", "old"), (1, 5), (0, 1))
    ]
    root = workspace.results / "evaluate/b/scripted"
    for nth, changes in enumerate(made):
        old = _result("t", 0, {0: {"success": True, "steps": 1}})
        values = EvaluateValues.model_validate(old.values.model_dump() | changes)
        folder = root / f"t.{8 - nth}"
        (folder / "recorded/t").mkdir(parents=True)
        (folder / "recorded/t/0.npy").write_text(str(nth), encoding="utf-8")
        content = old.model_copy(update={"values": values, "fingerprint": values.fingerprint})
        (folder / "evaluation.json").write_text(content.to_json(), encoding="utf-8")
    for killed in ("t.0", "t.9"):
        (root / killed / "recorded/t").mkdir(parents=True)
    for nth in range(len(made)):
        planner = Planner(Request(("replay",), "b"), workspace, Catalog.load(env={}), cast(Any, None), print)
        vars(planner)["_simulators"] = image
        found = planner._recorded()
        assert (found.root / "replay/t/0.npy").read_text(encoding="utf-8") == str(nth)
        shutil.rmtree(root / f"t.{8 - nth}")


@pytest.mark.parametrize("others", [(), ("u",), ("u", "v"), ("z", "a")])
def test_a_replay_is_the_same_whatever_other_tasks_are_requested(tmp_path: Path, others: tuple[str, ...]) -> None:
    """So that more tasks add to those that are there."""
    tasks = [{"key": key, "instruction": key, "states": 1} for key in sorted({"t", *others})]
    card = BenchmarkCard.model_validate(CARD | {"code_sha256": "now", "tasks": tasks})
    image = ImageCard(name="i", kind="simulator", module="m", benchmarks=(card,))
    workspace = Workspace.locate(tmp_path)
    for task in ("t", *others):
        folder = workspace.results / f"evaluate/b/scripted/{task}.s0.0/recorded/{task}"
        folder.mkdir(parents=True)
        (folder / "0.npy").write_text(task, encoding="utf-8")
    planner = Planner(Request(("replay",), "b"), workspace, Catalog.load(env={}), cast(Any, None), print)
    vars(planner)["_simulators"] = image
    acting = Acting("replay", cast(Any, None), "now", planner._recorded())
    assert [file.path for file in acting.weights.files] == [f"replay/{task}" for task in sorted({"t", *others})]
    assert acting.hashes("t") == {"replay-t": path_sha256(acting.weights.root / "replay/t")}
    assert verified_files(acting.weights.files, acting.weights.root, print)["replay-t"].name == "t"
