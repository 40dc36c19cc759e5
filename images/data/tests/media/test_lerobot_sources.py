"""LeRobot: the frame of a row is the one at its timestamp; sources that contradict each other are refused or left out.

Generated families: each case changes one source of a small sound dataset.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from lary_data import lerobot_pairs
from lary_data.lerobot_info import Info
from lary_data.pool import Done, TaskFaultError
from lary_data.tools.manifest import command
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import DatasetCard

CAMERA = "top"
LENGTHS = (6, 5, 7, 6)
ALL = {0, 1, 2, 3}
SHADE = 7
"""Grey levels between two pictures."""
STRIDE = 2
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are tested elsewhere; here they would take most of the time."""

    def inline(function: Callable[[Any], Any], tasks: list[Any], workers: int, timeout_s: float) -> Iterator[Any]:
        for task in tasks:
            try:
                yield Done(task, function(task))
            except TaskFaultError as fault:
                yield Done(task, None, str(fault))

    monkeypatch.setattr(lerobot_pairs, "run_tasks", inline)


def write_video(path: Path, frames: list[tuple[float, int]]) -> None:
    """Picture `number` at each time; times in steps of a millisecond or finer, as the container has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 90_000)
    with av.open(str(path), "w", format={".mkv": "matroska"}.get(path.suffix, path.suffix[1:])) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = base
        stream.options = {"qp": "0", "bf": "2", "g": "5", "threads": "1"}
        for time, number in frames:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), SHADE * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass
class Source:
    """What a small dataset is written from; a case changes a part of it."""

    version: str = "v2.1"
    fps: float = 10
    rate: int = 1
    """Frames of the video for each row."""
    offset: float = 0.0
    """Of the rows' timestamps; the video has frames from 0 on."""
    suffix: str = "mp4"
    lengths: list[int] = field(default_factory=lambda: list(LENGTHS))
    info: dict[str, Any] = field(default_factory=dict)
    episodes: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows
    """Changes the rows of meta/."""
    table: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda _, columns: columns
    """Changes the columns of an episode's rows."""
    video: Callable[[int, list[tuple[float, int]]], list[tuple[float, int]]] = lambda _, frames: frames
    """Changes the frames of an episode's video; in v3, of the only video (episode -1)."""
    finish: Callable[[Path], None] = lambda _: None
    """Changes the files."""

    def write(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        v3 = self.version.startswith("v3")
        names = "chunk-{chunk_index:03d}/file-{file_index:03d}" if v3 else "episode_{episode_index:06d}"
        info = {
            "codebase_version": self.version, "robot_type": "arm", "fps": self.fps,
            "total_episodes": len(self.lengths), "total_frames": sum(self.lengths),
            "data_path": f"data/{names}.parquet", "video_path": f"videos/{{video_key}}/{names}.{self.suffix}",
            "features": {
                "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
                CAMERA: {"dtype": "video", "shape": [32, 32, 3]},
            },
        } | self.info  # fmt: skip
        (root / "meta").mkdir(parents=True)
        (root / "meta/info.json").write_text(json.dumps(info))
        (self._v3 if v3 else self._v2)(root)
        self.finish(root)

    def columns(self, episode: int) -> dict[str, Any]:
        length = self.lengths[episode]
        return self.table(episode, {
            "action": pyarrow.array([[episode, t] for t in range(length)], pyarrow.list_(pyarrow.float32())),
            "timestamp": pyarrow.array([self.offset + t / self.fps for t in range(length)], pyarrow.float32()),
            "frame_index": list(range(length)),
            "episode_index": [episode] * length,
        })  # fmt: skip

    def frames(self, episode: int) -> list[tuple[float, int]]:
        """Row t shows picture 9 * episode + t + 1; pictures between the rows and before them are number 0."""
        step, before = 1 / (self.fps * self.rate), round(self.offset * self.fps * self.rate)
        shown = [(0, 0)] * before
        for t in range(self.lengths[episode]):
            shown += [(0, 9 * episode + t + 1)] + [(0, 0)] * (self.rate - 1)
        return [(i * step, number) for i, (_, number) in enumerate(shown)]

    def _v2(self, root: Path) -> None:
        rows = [{"episode_index": e, "tasks": ["push"], "length": n} for e, n in enumerate(self.lengths)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.episodes(rows))
        (root / "meta/episodes.jsonl").write_text(text, encoding="utf-8")
        for e in range(len(self.lengths)):
            write_table(root / f"data/episode_{e:06d}.parquet", pyarrow.table(self.columns(e)))
            write_video(root / f"videos/top/episode_{e:06d}.{self.suffix}", self.video(e, self.frames(e)))

    def _v3(self, root: Path) -> None:
        rows, frames, start = [], [], 0.0
        for e, n in enumerate(self.lengths):
            shown = self.frames(e)
            frames += [(start + time, number) for time, number in shown]
            end = start + len(shown) / (self.fps * self.rate)
            rows.append({
                "episode_index": e, "tasks": ["push"], "length": n, "data/chunk_index": 0, "data/file_index": 0,
                f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": 0,
                f"videos/{CAMERA}/from_timestamp": start, f"videos/{CAMERA}/to_timestamp": end,
            })  # fmt: skip
            start = end
        write_table(root / "meta/episodes/chunk-000/file-000.parquet", pyarrow.Table.from_pylist(self.episodes(rows)))
        tables = [pyarrow.table(self.columns(e)) for e in range(len(self.lengths))]
        write_table(
            root / "data/chunk-000/file-000.parquet", pyarrow.concat_tables(tables, promote_options="permissive")
        )
        write_video(root / f"videos/{CAMERA}/chunk-000/file-000.{self.suffix}", self.video(-1, frames))


def write_table(path: Path, table: pyarrow.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def make(root: Path, out: Path, *further: object) -> Result:
    arguments = ["lerobot", root, "--key", "k", "--out", out, "--stride", STRIDE, "--every", 1, "--seed", 1]
    return CliRunner().invoke(command, [*map(str, arguments), *map(str, further)])


def kept(out: Path) -> list[dict[str, str]]:
    """The rows of both splits."""
    found = []
    for path in out.glob("k_metadata_*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    return found


def check_frames(out: Path, episodes: set[int]) -> None:
    """Every pair of these episodes and no other is there, with its own pictures and actions."""
    rows = kept(out)
    pairs = {(int(row["episode_id"]), int(Path(row["src_img"]).stem[-6:])) for row in rows}
    assert pairs == {(e, t) for e in episodes for t in range(LENGTHS[e] - STRIDE)}
    assert len(rows) == len(pairs)
    for row in rows:
        e, t = int(row["episode_id"]), int(Path(row["src_img"]).stem[-6:])
        for name, step in ((row["src_img"], t), (row["tgt_img"], t + STRIDE)):
            assert cv2.imread(str(out / name)).mean() == pytest.approx(SHADE * (9 * e + step + 1), abs=2.5), name
        assert np.load(out / row["action"]).tolist() == [[e, t + i] for i in range(STRIDE)]


# --- read right -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
@pytest.mark.parametrize(
    ("rate", "offset", "fps", "suffix"),
    [
        (1, 0.0, 10, "mp4"), (2, 0.0, 10, "mp4"), (3, 0.0, 15, "mp4"), (1, 1.0, 10, "mp4"), (2, 0.3, 10, "mp4"),
        (1, 0.0, 30, "mkv"), (2, 1.0, 30, "mkv"), (1, 0.0, 7, "mp4"), (1, 0.0, 12.5, "mp4"),
    ],
)  # fmt: skip
def test_a_row_gets_the_frame_at_its_timestamp(
    tmp_path: Path, version: str, rate: int, offset: float, fps: float, suffix: str
) -> None:
    Source(version, fps, rate, offset, suffix).write(tmp_path / "in")
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    check_frames(tmp_path / "out", ALL)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\ufeff"])
def test_lines_end_by_a_newline_alone(tmp_path: Path, character: str) -> None:
    def rename(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"tasks": [f"push{character}it"]} for row in rows]

    def mark(root: Path) -> None:
        for name in ("info.json", "episodes.jsonl"):
            path = root / "meta" / name
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    Source(episodes=rename, finish=mark).write(tmp_path / "in")
    assert make(tmp_path / "in", tmp_path / "out").exit_code == 0
    check_frames(tmp_path / "out", ALL)
    assert {row["task"] for row in kept(tmp_path / "out")} == {f"push{character}it"}


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ([2], {"y": 1, "x": 0}, ["x", "y"]),
        ([2], {"motors": ["a", "b"]}, ["a", "b"]),
        ([2], {"left": ["a"], "right": ["b"]}, ["a", "b"]),
        ([2], ["a", "a"], ["action_0", "action_1"]),
        ([2], ["a"], ["action_0", "action_1"]),
        ([2], None, ["action_0", "action_1"]),
        ([1, 2], [["a", "b"]], ["a", "b"]),
        ([2, 1], ["a", "b"], ["a", "b"]),
    ],
)
def test_the_names_of_the_actions(tmp_path: Path, shape: list[int], names: Any, expected: list[str]) -> None:
    features = {
        "action": {"dtype": "float32", "shape": shape, "names": names},
        CAMERA: {"dtype": "video", "shape": [32, 32, 3]},
    }

    def reshape(_: int, columns: dict[str, Any]) -> dict[str, Any]:
        rows = [np.array(row, np.float32).reshape(shape).tolist() for row in columns["action"].to_pylist()]
        return columns | {"action": rows}

    Source(info={"features": features}, table=reshape).write(tmp_path / "in")
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert ("they are not used" in result.stderr) == (names is not None and expected[0] == "action_0")
    actions = DatasetCard.load(tmp_path / "out/k.yaml").actions
    assert actions is not None
    assert list(actions.names) == expected
    check_frames(tmp_path / "out", ALL)


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    def leave(root: Path) -> None:
        shutil.copy(root / "data/episode_000001.parquet", root / "data/episode_000009.parquet")
        (root / f"videos/{CAMERA}/old").mkdir()
        (root / f"videos/{CAMERA}/old/a.mp4").symlink_to("nowhere")

    def untimed(_: int, columns: dict[str, Any]) -> dict[str, Any]:
        return {name: column for name, column in columns.items() if name != "timestamp"}

    Source(table=untimed, finish=leave).write(tmp_path / "in")
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0
    assert "no column timestamp (4 tables); frame_index / fps is taken" in result.stderr
    assert "2 files belong to no episode and are not read: " in result.stderr
    assert "episode_000009.parquet" in result.stderr
    assert "old/a.mp4" in result.stderr
    check_frames(tmp_path / "out", ALL)


# --- contradictions -------------------------------------------------------------------------------


def one(episode: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., list[dict[str, Any]]]:
    return lambda rows: [change(row) if row["episode_index"] == episode else row for row in rows]


def column(episode: int, **columns: Any) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    def change(number: int, there: dict[str, Any]) -> dict[str, Any]:
        return there | columns if number == episode else there

    return change


def sliced(episode: int, rows: slice) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    def change(number: int, there: dict[str, Any]) -> dict[str, Any]:
        return {name: values[rows] for name, values in there.items()} if number == episode else there

    return change


def shifted(by: float, start: int, name: str = "from_timestamp") -> Callable[..., list[dict[str, Any]]]:
    cell = f"videos/{CAMERA}/{name}"

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {cell: row[cell] + by} if row["episode_index"] >= start else row for row in rows]

    return change


def both(*changes: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for one_change in changes:
            rows = one_change(rows)
        return rows

    return change


def file(name: str, text: str | None) -> Callable[[Path], None]:
    """Another content of a file; None: a folder in its place."""

    def change(root: Path) -> None:
        (root / name).unlink()
        if text is None:
            (root / name).mkdir()
        else:
            (root / name).write_text(text)

    return change


def video_of(episode: int, change: Callable[[list[tuple[float, int]]], list[tuple[float, int]]]) -> Any:
    return lambda number, frames: change(frames) if number == episode else frames


def more(count: int, fps: float = 10) -> Callable[[list[tuple[float, int]]], list[tuple[float, int]]]:
    return lambda frames: frames + [(frames[-1][0] + (i + 1) / fps, 0) for i in range(count)]


def moved(frames: list[tuple[float, int]], drop: int) -> list[tuple[float, int]]:
    """Without one frame, the later ones moved up: as a converter writes that lost it."""
    numbers = [number for i, (_, number) in enumerate(frames) if i != drop]
    return [(time, number) for (time, _), number in zip(frames, numbers, strict=False)]


LEFT_OUT: dict[str, tuple[Source, set[int]]] = {
    # Rows against meta.
    "meta says fewer": (Source(episodes=one(1, lambda row: row | {"length": 4})), {1}),
    "meta says more": (Source(episodes=one(1, lambda row: row | {"length": 6}), info={"total_frames": 25}), {1}),
    "all lengths are short": (
        Source(episodes=lambda rows: [row | {"length": row["length"] - 1} for row in rows]), ALL,
    ),
    "a row is missing": (Source(table=sliced(2, slice(1, None))), {2}),
    "a frame is there twice": (Source(table=column(1, frame_index=[0, 1, 2, 2, 4])), {1}),
    "frames begin at 1": (Source(table=column(1, frame_index=[1, 2, 3, 4, 5])), {1}),
    "another episode's rows": (Source(table=column(1, episode_index=[2] * 5)), {1, 2}),
    "an unknown episode's rows": (Source(table=column(1, episode_index=[7] * 5)), {1}),
    "one row of another episode": (Source(table=column(1, episode_index=[1, 1, 1, 1, 7])), {1}),
    "wrong dtype of an index": (Source(table=column(0, episode_index=["0"] * 6)), {0}),
    "an index is empty": (Source(table=column(0, frame_index=[0, 1, None, 3, 4, 5])), {0}),
    # Rows against their own times.
    "times at another rate": (Source(table=column(1, timestamp=[i / 20 for i in range(5)])), {1}),
    "times jump": (Source(table=column(1, timestamp=[0.0, 0.1, 0.2, 0.4, 0.5])), {1}),
    "times stand still": (Source(table=column(1, timestamp=[0.0, 0.1, 0.1, 0.3, 0.4])), {1}),
    "times run backwards": (Source(table=column(1, timestamp=[0.4, 0.3, 0.2, 0.1, 0.0])), {1}),
    "a time is NaN": (Source(table=column(1, timestamp=[0.0, 0.1, float("nan"), 0.3, 0.4])), {1}),
    "a time is empty": (Source(table=column(1, timestamp=[0.0, 0.1, None, 0.3, 0.4])), {1}),
    "times are texts": (Source(table=column(1, timestamp=["0"] * 5)), {1}),
    "negative times": (Source(table=column(1, timestamp=[i / 10 - 0.1 for i in range(5)])), {1}),
    "times behind the video": (Source(table=column(1, timestamp=[i / 10 + 1 for i in range(5)])), {1}),
    # Frames against rows.
    "20 frames too many": (Source(video=video_of(1, more(20))), {1}),
    "one frame too many": (Source(video=video_of(1, more(1))), {1}),
    "one frame too many at twice the rate": (Source(rate=2, video=video_of(1, more(1, 20))), {1}),
    "the first frame is missing": (Source(video=video_of(1, lambda frames: moved(frames, 0))), {1}),
    "a middle frame is missing": (Source(video=video_of(1, lambda frames: moved(frames, 2))), {1}),
    "a gap at a frame that no pair needs": (Source(video=video_of(1, lambda frames: frames[:4])), {1}),
    "a gap in the times": (Source(video=video_of(1, lambda frames: frames[:2] + frames[3:])), {1}),
    "half a step late": (Source(video=video_of(1, lambda frames: [(t + 0.05, n) for t, n in frames])), {1}),
    "a video at 12 for 10": (Source(video=video_of(1, lambda frames: [(t / 1.2, n) for t, n in frames])), {1}),
    "a clock that runs late": (Source(video=video_of(1, lambda frames: [(t * 1.01, n) for t, n in frames])), {1}),
    # v3.
    "v3: meta says fewer": (Source("v3.0", episodes=one(1, lambda row: row | {"length": 4})), {1}),
    "v3: a row is missing": (Source("v3.0", table=sliced(2, slice(0, 6))), {2}),
    "v3: a row of the last episode is missing": (Source("v3.0", table=sliced(3, slice(0, 5))), {3}),
    "v3: a row of the first episode is missing": (Source("v3.0", table=sliced(0, slice(1, None))), {0}),
    "v3: the last episode is a time too late": (
        Source("v3.0", table=column(3, timestamp=[0.0, 0.1, 0.2, 0.3, 0.4, 0.6])), {3},
    ),
    "v3: an unknown episode's rows": (Source("v3.0", table=column(1, episode_index=[7] * 5)), {1}),
    "v3: frames behind the last episode": (Source("v3.0", video=video_of(-1, more(3))), ALL),
    "v3: the video ends early": (Source("v3.0", video=video_of(-1, lambda frames: frames[:-1])), {3}),
    "v3: its last range is too long": (
        Source("v3.0", video=video_of(-1, more(3)), episodes=shifted(0.3, 3, "to_timestamp")), {3},
    ),
    "v3: the last range is too short": (Source("v3.0", episodes=shifted(-0.2, 3, "to_timestamp")), ALL),
    # Files.
    "no table": (Source(finish=lambda root: (root / "data/episode_000001.parquet").unlink()), {1}),
    "no video": (Source(finish=lambda root: (root / "videos/top/episode_000001.mp4").unlink()), {1}),
    "a pointer for a table": (
        Source(finish=file("data/episode_000001.parquet", POINTER)), {1},
    ),
    "a pointer for a video": (
        Source(finish=file("videos/top/episode_000001.mp4", POINTER)), {1},
    ),
    "a folder for a table": (
        Source(finish=file("data/episode_000001.parquet", None)),
        {1},
    ),
    "no action column": (
        Source(table=lambda e, there: {n: c for n, c in there.items() if (e, n) != (1, "action")}), {1},
    ),
    "actions are texts": (Source(table=column(1, action=["a"] * 5)), {1}),
    "actions of another length": (Source(table=column(1, action=[[1.0]] * 5)), {1}),
    "an action is empty": (Source(table=column(1, action=[[1.0, 2.0]] * 4 + [None])), {1}),
    "an action is infinite": (Source(table=column(1, action=[[1.0, 1e300]] * 5)), {1}),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_OUT)
def test_an_episode_that_contradicts_is_left_out_at_every_call(tmp_path: Path, case: str) -> None:
    source, bad = LEFT_OUT[case]
    source.write(tmp_path / "in")
    for _ in range(2):
        result = make(tmp_path / "in", tmp_path / "out", "--max-failed", 0)
        assert result.exit_code != 0
        assert isinstance(result.exception, TooManyFailedError if 3 not in bad else ContractError)
        named = {int(number) for number in re.findall(r"^episode (\d+) is left out: ", result.stderr, re.MULTILINE)}
        assert named & ALL == bad
        if 3 not in bad:
            check_frames(tmp_path / "out", ALL - bad)
        else:
            # No episode is left for val.
            assert kept(tmp_path / "out") == []


REFUSED: dict[str, tuple[Source, str]] = {
    "a repeated episode": (Source(episodes=lambda rows: [*rows, rows[1]]), "episode_index 1 is there more than once"),
    "v3: a repeated episode": (Source("v3.0", episodes=lambda rows: [*rows, rows[1]]), "episode_index 1 is there"),
    "an episode too few": (Source(episodes=lambda rows: rows[:-1]), "total_episodes is 4, meta/ lists 3"),
    "v3: an episode too few": (Source("v3.0", episodes=lambda rows: rows[1:]), "total_episodes is 4, meta/ lists 3"),
    "total episodes": (Source(info={"total_episodes": 5}), "total_episodes is 5"),
    "total frames": (Source(info={"total_frames": 23}), "total_frames is 23; the episodes' lengths add up to 24"),
    "v3: total frames": (Source("v3.0", info={"total_frames": 25}), "the tables have 24 rows"),
    "total is no number": (Source(info={"total_frames": "many"}), "total_frames: 'many' is no whole number"),
    "chunks of text": (Source(info={"chunks_size": "a"}), "chunks_size: 'a' is no whole number"),
    "fps is true": (Source(info={"fps": True}), "fps is True"),
    "fps is infinite": (Source(info={"fps": float("inf")}), "fps is inf"),
    "a video of all episodes": (
        Source(info={"video_path": "videos/{video_key}/episode_000001.mp4"}), "is the video of episodes 0 and 1",
    ),
    "a video of all episodes of a chunk": (
        Source(info={"video_path": "videos/{episode_chunk:03d}/{video_key}.mp4"}), "is the video of episodes 0 and 1",
    ),
    "videos above the dataset": (
        Source(info={"video_path": "../videos/{video_key}/{episode_index}.mp4"}), "leads out of the dataset",
    ),
    "v3: videos elsewhere": (
        Source("v3.0", info={"video_path": "/videos/{video_key}/{file_index}.mp4"}), "leads out of the dataset",
    ),
    "tables above the dataset": (
        Source(info={"data_path": "data/../../{episode_index}.parquet"}), "leads out of the dataset",
    ),
    "a length of a half": (Source(episodes=one(1, lambda row: row | {"length": 4.5})), "line 2: not an episode"),
    "a negative number": (Source(episodes=one(1, lambda row: row | {"episode_index": -1})), "line 2: not an episode"),
    "a line that is a list": (
        Source(finish=file("meta/episodes.jsonl", "[]\n")), "line 1: not an episode",
    ),
    "deeply nested": (
        Source(finish=file("meta/info.json", "[" * 100_000)), "not JSON",
    ),
    "a deeply nested line": (
        Source(finish=file("meta/episodes.jsonl", "[" * 100_000)), "line 1",
    ),
    "info is a pointer": (
        Source(finish=file("meta/info.json", POINTER)), "is a Git LFS pointer",
    ),
    "episodes are a pointer": (
        Source(finish=file("meta/episodes.jsonl", POINTER)), "is a Git LFS pointer",
    ),
    "v3: overlap": (Source("v3.0", episodes=both(shifted(-0.2, 1), shifted(-0.2, 1, "to_timestamp"))), "overlap"),
    "v3: one earlier": (Source("v3.0", episodes=one(1, lambda row: row | {f"videos/{CAMERA}/from_timestamp": 0.5})),
                        "overlap: from_timestamp is 0.5 s, 0.6 s expected"),
    "v3: all later": (
        Source("v3.0", episodes=both(shifted(0.1, 0), shifted(0.1, 0, "to_timestamp"))), "belong to no episode",
    ),
    "v3: a gap": (
        Source("v3.0", episodes=both(shifted(0.1, 2), shifted(0.1, 2, "to_timestamp"))), "belong to no episode",
    ),
    "v3: the same part twice": (
        Source("v3.0", episodes=one(1, lambda row: row | {f"videos/{CAMERA}/from_timestamp": 0.0})), "overlap",
    ),
    "v3: a negative time": (Source("v3.0", episodes=shifted(-9, 3)), "no time in a video"),
    "v3: indices say otherwise": (
        Source("v3.0", episodes=lambda rows: [r | {"dataset_from_index": 0, "dataset_to_index": 6} for r in rows]),
        "length is 5, dataset_from_index 0 and dataset_to_index 6 say otherwise",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_dataset_that_contradicts_itself_is_refused_at_every_call(tmp_path: Path, case: str) -> None:
    source, said = REFUSED[case]
    source.write(tmp_path / "in")
    for _ in range(2):
        result = make(tmp_path / "in", tmp_path / "out", "--max-failed", 1)
        assert isinstance(result.exception, ContractError), result.output
        assert said in str(result.exception)
        assert kept(tmp_path / "out") == []


def test_the_tolerance_is_an_option_below_half_a_step(tmp_path: Path) -> None:
    Source(video=lambda _, frames: [(t + 0.02 if t else 0.0, n) for t, n in frames]).write(tmp_path / "in")
    assert "no frame at 0.1000 s: the nearest is at 0.1200 s" in make(tmp_path / "in", tmp_path / "out").stderr
    assert "choose another --out" in str(make(tmp_path / "in", tmp_path / "out", "--tolerance", 0.03).exception)
    assert make(tmp_path / "in", tmp_path / "other", "--tolerance", 0.03).exit_code == 0
    check_frames(tmp_path / "other", ALL)
    assert "half a step" in str(make(tmp_path / "in", tmp_path / "third", "--tolerance", 0.05).exception)


# --- another call after the sources changed -------------------------------------------------------


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("broken", ["20 frames too many", "a row is missing", "an action is infinite"])
def test_repaired_sources_are_noticed(tmp_path: Path, version: str, broken: str) -> None:
    source = LEFT_OUT[broken][0]
    episode = -1 if version == "v3.0" and "frames" in broken else None
    video = source.video if episode is None else video_of(-1, more(3))
    Source(version, video=video, table=source.table).write(tmp_path / "in")
    out = tmp_path / "out"
    assert make(tmp_path / "in", out).exit_code != 0
    Source(version).write(tmp_path / "in")
    assert make(tmp_path / "in", out).exit_code == 0
    check_frames(out, ALL)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_other_sources_make_everything_anew(tmp_path: Path, version: str) -> None:
    """Also where size and time of modification are kept: here the pictures of the first frames are swapped."""
    out = tmp_path / "out"

    def swapped(_: int, frames: list[tuple[float, int]]) -> list[tuple[float, int]]:
        return [(time, {1: 2, 2: 1}.get(number, number)) for time, number in frames]

    Source(version, video=swapped).write(tmp_path / "in")
    assert make(tmp_path / "in", out).exit_code == 0
    with pytest.raises(AssertionError):
        check_frames(out, ALL)
    Source(version).write(tmp_path / "in")
    assert make(tmp_path / "in", out).exit_code == 0
    check_frames(out, ALL)


def test_sources_that_went_bad_leave_no_set_of_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    Source().write(tmp_path / "in")
    assert make(tmp_path / "in", out).exit_code == 0
    Source(episodes=lambda rows: [row | {"length": row["length"] - 1} for row in rows]).write(tmp_path / "in")
    assert "no row for train" in str(make(tmp_path / "in", out).exception)
    assert list(out.glob("*.csv")) == []
    assert not (out / "k.yaml").exists()


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize(
    "depth",
    [
        *({key: {mark: True}} for key in ("info", "video_info") for mark in ("video.is_depth_map", "is_depth_map")),
        {"shape": [48, 64, 1], "names": ["height", "width", "channels"]},
        {"shape": [1, 48, 64], "names": ["channel", "height", "width"]},
    ],
)
def test_cameras_of_depth_are_not_read(tmp_path: Path, kind: str, depth: dict[str, Any]) -> None:
    colour = {
        "dtype": kind, "shape": [48, 64, 3], "names": ["height", "width", "channels"],
        "info": {"video.is_depth_map": False},
    }  # fmt: skip
    (tmp_path / "meta").mkdir()
    path = tmp_path / "meta/info.json"
    path.write_text(json.dumps({"features": {"top": colour, "depth": colour | depth}}))
    assert Info(path).choose_camera(None) == "top"
    with pytest.raises(ContractError, match="depth is of depth, which is not read"):
        Info(path).choose_camera("depth")
    path.write_text(json.dumps({"features": {"top": colour, "bare": {"dtype": kind}}}))
    assert Info(path).choose_camera("bare") == "bare"
