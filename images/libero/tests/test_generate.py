"""Data sets of a stand-in's episodes: what is in them, and that kills, resumption and processes leave no trace."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet
import pytest
from lary_libero import generate as module
from lary_libero.cards import indices, split_of, write_cards
from lary_libero.episodes import record
from lary_libero.generate import Planned, Settings, draw_state, generate, planned, units
from lary_libero.layout import Layout
from lary_libero.policies import POLICIES
from lary_libero.scripted import PHASES, Move
from lary_libero.simulator import Simulator
from lary_libero.writing import pair_starts, runs
from lary_schema.atomic import refused
from lary_schema.base import ContractError, read_json
from lary_schema.cards import DatasetCard
from PIL import Image

World = Callable[..., Simulator]
SETTINGS = Settings(
    suite="suite", tasks=(0, 3), episodes=4, seed=7, size=32, policy="phased", perturb=("lighting",),
    cameras=("agentview",), stride=4, horizon=30, libraries={"mujoco": "1"}, renderer="osmesa",
)  # fmt: skip
LENGTHS = (3, 7, 6, 2, 6, 6)
"""Of the phases below; the fourth is too short for a clip."""


def phased(simulator: Simulator, entropy: Any) -> Any:
    chance = np.random.default_rng(list(entropy))
    for phase, length in zip(PHASES, LENGTHS, strict=True):
        for _ in range(length):
            yield Move(chance.uniform(-1, 1, 7).astype(np.float32), phase)


@pytest.fixture(scope="module", autouse=True)
def policy() -> Any:
    POLICIES["phased"] = phased
    yield
    del POLICIES["phased"]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def make(world: World, settings: Settings, task: int) -> Simulator:
    return world(settings.perturb, task)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    root = tmp_path_factory.mktemp("set") / "out"
    generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    return root


def _world() -> World:
    name = "libero_tests_conftest"
    if name not in sys.modules:
        import importlib.util

        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("conftest.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    found: World = sys.modules[name].make_world
    return found


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Callable[[], int]]:
    """A file system of its own; the call that is handed over gives it more room."""

    def mount(*options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    folder.mkdir()
    if shutil.which("mount") is None or mount(f"size={kib}k"):
        pytest.skip("no file system can be mounted here (root alone can)")
    try:
        yield lambda: mount("remount", "size=8m")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("share", [0.01, 0.4, 0.8, 0.9, 0.96])
def test_on_a_full_disk_it_says_so_and_goes_on_when_there_is_room(made: Path, tmp_path: Path, share: float) -> None:
    """In episodes, in the tables, in the cards."""
    pages = sum(-(-path.stat().st_size // 4096) if path.is_file() else 0 for path in made.rglob("*"))
    wanted = files(made)
    with small_disk(tmp_path / "disk", int(share * pages) * 4) as enlarge:
        root = tmp_path / "disk/out"
        with pytest.raises((ContractError, OSError)) as caught:
            generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
        said = refused(caught.value) if isinstance(caught.value, OSError) else str(caught.value)
        assert str(root) in said
        assert "No space left on device" in said
        assert "run the same command again" in said
        assert "make room" in said
        found = files(root)
        assert {name: content for name, content in found.items() if wanted.get(name) != content} == {}
        assert enlarge() == 0
        generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
        assert files(root) == wanted


def rows(root: Path, kind: str, split: str) -> list[dict[str, str]]:
    with (root / f"suite_phased_lighting_{kind}_{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_hold_the_frames_and_actions_of_their_steps(made: Path) -> None:
    card = DatasetCard.load(made / "suite_phased_lighting_pairs.yaml")
    assert card.actions is not None
    assert card.actions.groups == {"position": (0, 1, 2), "orientation": (3, 4, 5), "gripper": (6,)}
    assert card.nuisance is not None
    assert card.nuisance.names == ("brightness",)
    found = rows(made, "pairs", "train") + rows(made, "pairs", "val")
    assert len(found) == 8 * 7
    for row in found:
        episode, start = int(row["episode"]), int(Path(row["src_img"]).stem)
        again = _record(episode)
        assert np.array_equal(np.load(made / row["action"]), again.actions[start : start + 4])
        change = again.nuisance[start + 4] - again.nuisance[start]
        assert np.array_equal(np.load(made / row["nuisance"]), [change])
        for name, step in (("src_img", start), ("tgt_img", start + 4)):
            assert np.array_equal(np.array(Image.open(made / row[name])), again.images["agentview"][step])
        assert row["instruction"] == f"do {row['task']}"


def _record(episode: int) -> Any:
    plan = planned(SETTINGS)[episode]
    simulator = make(_world(), SETTINGS, plan.task)
    return record(simulator, "phased", *draw_state(SETTINGS, plan, simulator.states), SETTINGS.horizon)


def test_no_episode_is_in_two_splits_and_every_task_is_in_both(made: Path) -> None:
    for kind in ("pairs", "tasks", "phases"):
        train, val = rows(made, kind, "train"), rows(made, kind, "val")
        assert {row["episode"] for row in train} & {row["episode"] for row in val} == set()
        assert {row["task"] for row in train} == {row["task"] for row in val} == {"0", "3"}


def test_clips_are_of_their_phase_and_their_task(made: Path) -> None:
    starts = dict(zip(PHASES, np.cumsum([0, *LENGTHS[:-1]]).tolist(), strict=True))
    found = rows(made, "phases", "train") + rows(made, "phases", "val")
    long_enough = {phase for phase, length in zip(PHASES, LENGTHS, strict=True) if length >= 5}
    assert {row["label"] for row in found} == long_enough - {"idle"}
    for row in found:
        frames = [int(n) for n in row["sample_indices"].split(",")]
        assert len(frames) == 9
        first = starts[row["label"]]
        assert first == frames[0] <= frames[-1] == first + LENGTHS[PHASES.index(row["label"])] - 1
    tasks = rows(made, "tasks", "train") + rows(made, "tasks", "val")
    assert {row["label"] for row in tasks} == {"task 0", "task 3"}


def test_a_lerobot_dataset_that_tells_the_same(made: Path) -> None:
    root = made / "lerobot"
    info = json.loads((root / "meta/info.json").read_text())
    table = pyarrow.parquet.read_table(root / "data/chunk-000/file-000.parquet").to_pydict()
    assert info["codebase_version"] == "v3.0"
    assert info["total_frames"] == len(table["action"]) == 8 * 30
    episodes = pyarrow.parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["episode_index"] for row in episodes] == list(range(8))
    key = "observation.images.agentview"
    for row in episodes:
        again = _record(row["episode_index"])
        span = slice(row["dataset_from_index"], row["dataset_to_index"])
        assert np.array_equal(np.array(table["action"][span], np.float32), again.actions)
        assert np.array_equal(np.array(table["observation.state"][span], np.float32), again.states)
        assert table["phase"][span] == again.phases.tolist()
        place = {name: row[f"videos/{key}/{name}_index"] for name in ("chunk", "file")}
        path = info["video_path"].format(video_key=key, **{f"{n}_index": v for n, v in place.items()})
        with av.open(str(root / path)) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert np.array_equal(frames, again.images["agentview"])
    assert set(table) | {key} == set(info["features"])
    tasks = pyarrow.parquet.read_table(root / "meta/tasks.parquet").to_pydict()
    assert [tasks["task"][n] for n in table["task_index"]] == [row["tasks"][0] for row in episodes for _ in range(30)]
    statistics = json.loads((root / "meta/stats.json").read_text())
    assert statistics["action"]["mean"] == pytest.approx(np.mean(table["action"], 0).tolist())


def test_a_set_that_is_killed_anywhere_ends_with_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """An exception after each of many writes, in place of a kill: nothing in between is flushed or finished."""
    wanted, root, calls = files(made), tmp_path / "out", 0
    original = Path.replace
    for kill_after in range(3, 40, 6):
        calls = 0

        def dying(self: Path, target: Path, last: int = kill_after) -> Path:
            nonlocal calls
            calls += 1
            if calls > last:
                raise KeyboardInterrupt
            return original(self, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    (root / "frames" / "left.partial").write_bytes(b"half")
    generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    assert files(root) == wanted


class Breaks(Exception):
    """Of no kind that Python knows, as MuJoCo's and FFmpeg's."""


@pytest.mark.parametrize("error", [Breaks("huge value in QACC"), RuntimeError("engine error"), AssertionError()])
def test_a_simulator_that_dies_in_a_step_ends_with_a_message_and_keeps_other_episodes(
    made: Path, tmp_path: Path, error: Exception
) -> None:
    root, steps = tmp_path / "out", 0
    original = Simulator.step

    def breaking(self: Simulator, action: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 80:
            raise error
        return original(self, action)

    def close(self: Simulator) -> None:
        closed.append(self)

    closed: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Simulator, "step", breaking)
        patch.setattr(Simulator, "close", close)
        with pytest.raises(ContractError) as caught:
            generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    said = str(caught.value)
    assert said.startswith(f"{root}: episode 2 (task 0, initial state ")
    assert f"the simulator failed: {type(error).__name__}: {error}; what is finished is kept" in said
    assert "--tasks" in said
    assert len(closed) == 1
    assert [path.stem for path in sorted((root / "episodes").glob("*.json"))] == ["000000", "000001"]
    generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    assert files(root) == files(made)


FULL = {
    "video": ("lary_libero.writing.av.open", OSError(28, "No space left on device", "file.mp4")),
    "encoder": ("lary_libero.writing.av.open", Breaks("[Errno 28] No space left on device")),
    "frames": ("lary_libero.writing.Image.fromarray", OSError(28, "No space left on device")),
    "chunks": ("lary_libero.writing.np.save", OSError(28, "No space left on device")),
    "arrays": ("lary_libero.writing.np.savez", OSError(28, "No space left on device")),
    "marker": ("lary_libero.writing.publish_text", OSError(122, "Disk quota exceeded")),
}


@pytest.mark.parametrize(("where", "error"), FULL.values(), ids=FULL)
def test_a_disk_that_is_full_ends_with_a_message_and_leaves_nothing_half(
    tmp_path: Path, where: str, error: Exception
) -> None:
    root = tmp_path / "out"

    def full(*_: Any, **__: Any) -> Any:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(ContractError, match=r"episode 0 .* make room on the disk") as caught:
            generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    assert str(error) in str(caught.value)
    assert list((root / "episodes").glob("*.json")) == []
    assert list(root.rglob("*.partial")) == []


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_generate import SETTINGS, _world, make, phased
from lary_libero.generate import generate
from lary_libero.layout import Layout
from lary_libero.policies import POLICIES

POLICIES["phased"] = phased

def world(settings, task):
    return make(_world(), settings, task)

if __name__ == "__main__":
    generate(Layout(Path(sys.argv[1])), SETTINGS, 2, lambda line: print(line, flush=True), world)
"""


def test_two_processes_and_a_kill_make_the_same_set(made: Path, tmp_path: Path) -> None:
    script, root = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    command = [sys.executable, str(script), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().endswith(" of 8 episodes\n")
        running.send_signal(signal.SIGSTOP)  # it starts no child while we look
        children = _children(running.pid)
        running.send_signal(signal.SIGKILL)
    # The children of what was killed die with it; else the test's time limit ends this.
    while any(map(_is_running, children)):
        time.sleep(0.05)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "of 8 episodes are there already" in done.stdout
    assert files(root) == files(made)


def _children(pid: int) -> list[int]:
    while _state(pid) not in "TZ":
        time.sleep(0.01)
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in found for child in file.read_text().split()]


def _is_running(pid: int) -> bool:
    return _state(pid) not in ("Z", "")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_folder_of_another_set_is_refused(made: Path, tmp_path: Path) -> None:
    other = SETTINGS.model_copy(update={"seed": 8, "size": 64})
    with pytest.raises(ContractError, match=r"a set with another seed, size; choose another --out"):
        generate(Layout(made), other, 1, str)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ContractError, match="is not empty and holds no generated set"):
        generate(Layout(tmp_path), SETTINGS, 1, str)


HOLDS = """
import sys
from pathlib import Path
from lary_schema.locks import exclusive
with exclusive(Path(sys.argv[1]), ""):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_fills_is_left_to_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    draft = layout.root / "episodes/000001.json.partial"
    draft.parent.mkdir(parents=True)
    typed = [sys.executable, "-c", HOLDS, str(layout.lock)]
    with subprocess.Popen(typed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        layout.settings.write_text("{}", encoding="utf-8")
        draft.touch()
        with pytest.raises(ContractError, match="another process generates this set; wait for it"):
            generate(layout, SETTINGS, 1, str)
        other.communicate()
    assert draft.exists()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "else": lambda path: path.write_bytes(b"{}"),
}
OF_EPISODES = ("episodes/000001.json", "episodes/000002.npz")
MEDIA = ("lerobot/videos/*/*/file-003.mp4", "frames/000004/*", "actions/000005/*", "nuisance/000006/*")
TABLES = ("lerobot/data/*/*", "lerobot/meta/*.json", "lerobot/meta/*.parquet", "*.yaml", "*.csv")


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_later_is_made_again_with_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    root = tmp_path / "out"
    shutil.copytree(made, root)
    ran: list[int] = []

    def recorded(*arguments: Any) -> Any:
        ran.append(arguments[2])
        return record(*arguments)

    monkeypatch.setattr(module, "record", recorded)
    episodes = (*OF_EPISODES, *MEDIA) if damage in ("gone", "empty") else OF_EPISODES
    for pattern in (*episodes, *TABLES):
        DAMAGES[damage](sorted(root.glob(pattern))[-1])
    generate(Layout(root), SETTINGS, 1, str, partial(make, _world()))
    assert files(root) == files(made)
    assert len(ran) == len(episodes), "tables cost no episode"


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in ("policy", "suite")])
def test_sets_by_other_settings_have_other_csvs(made: Path, tmp_path: Path, name: str) -> None:
    """A latent store is found again by the hash of its CSV, so that of another size's pictures is another one."""
    others: dict[str, Any] = {
        "tasks": (0,), "perturb": (), "cameras": ("robot0_eye_in_hand",), "libraries": {}, "renderer": "egl",
    }  # fmt: skip
    other = SETTINGS.model_copy(update={name: others[name] if name in others else getattr(SETTINGS, name) + 1})
    markers = [read_json(Layout(made).marker(n)) for n in range(8)]
    layout = Layout(tmp_path)
    write_cards(layout, module._facts(other, markers), markers)
    csvs = {path.name.replace("_lighting", ""): path.read_bytes() for path in tmp_path.glob("*.csv")}
    before = {path.name.replace("_lighting", ""): path.read_bytes() for path in made.glob("*.csv")}
    assert csvs.keys() == before.keys()
    assert all(csvs[name] != before[name] for name in csvs)


def test_what_makes_no_set_is_said(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="generate two or more of each"):
        generate(Layout(tmp_path / "one"), SETTINGS.model_copy(update={"episodes": 1}), 1, str)
    assert not (tmp_path / "one").exists()
    markers = [read_json(Layout(made).marker(n)) for n in range(8)]
    facts = module._facts(SETTINGS, markers)
    lines = write_cards(Layout(tmp_path), facts._replace(stride=40), markers)
    assert [line.split()[0] for line in lines] == ["wrote", "wrote", "no"]
    assert "suite_phased_lighting_pairs.yaml: no episode of train and val has a row (of 41 steps or more)" in lines[2]
    lines = write_cards(Layout(tmp_path), facts, markers[:4])
    assert lines[2] == "no suite_phased_lighting_tasks.yaml: all rows have one label"
    with pytest.raises(ContractError, match=r"no episode of train and val .* generate more or longer episodes"):
        write_cards(Layout(tmp_path), facts, [marker | {"length": 4, "phases": []} for marker in markers])


def test_the_states_are_drawn_without_repeats_until_all_were_there() -> None:
    drawn = [draw_state(SETTINGS, Planned(n, 3, n), 5) for n in range(10)]
    assert sorted(state for state, _ in drawn[:5]) == sorted(state for state, _ in drawn[5:]) == list(range(5))
    assert {seed for _, seed in drawn[:5]} & {seed for _, seed in drawn[5:]} == set()
    assert drawn != [draw_state(SETTINGS.model_copy(update={"seed": 8}), Planned(n, 3, n), 5) for n in range(10)]


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("tasks", [(0,), (0, 3), tuple(range(10))])
def test_every_episode_is_made_by_one_process(workers: int, tasks: tuple[int, ...]) -> None:
    settings = SETTINGS.model_copy(update={"tasks": tasks, "episodes": 7})
    plan = planned(settings)
    work = units(Layout(Path()), settings, plan, workers)
    assert sorted(e for unit in work for e in unit.episodes) == plan
    assert all(episode.task == unit.task for unit in work for episode in unit.episodes)
    assert len(work) >= min(workers, len(plan))


def test_small_facts() -> None:
    assert [split_of(n, 4) for n in range(4)] == ["train", "train", "train", "val"]
    assert [split_of(n, 2) for n in range(2)] == ["train", "val"]
    assert split_of(0, 1) == "train"
    assert indices(10, 19) == "10,11,12,13,14,15,16,17,18"
    assert list(pair_starts(11, 5)) == [0, 5]
    assert list(pair_starts(10, 5)) == [0]
    assert runs(np.array([0, 0, 2, 2, 0])) == [(0, 0, 2), (2, 2, 4), (0, 4, 5)]
    assert module.success_lines([{"task": 1, "success": True, "success_after_release": False}] * 2) == [
        "task 1: 2/2 by LIBERO's rule, 0/2 after release"
    ]
