"""What the worker's tests share: small media, a toy image, and jobs on them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from lary_schema.base import file_sha256
from lary_schema.cards import ImageCard, Mode, PairColumns, VideoColumns
from lary_schema.command import run_command
from lary_schema.events import from_line
from lary_schema.jobs import ArrayLayout, ExtractJob, MetadataFile, Source, Values
from lary_schema.metadata import count_rows
from lary_schema.store.layout import ShardRecord, Store
from lary_schema.store.reader import LatentReader
from lary_worker import processes, registry
from lary_worker.extract import extract
from numpy.typing import NDArray

TOY_YAML = """
name: toy
kind: model
module: lary_worker
models:
"""
TOY_CARD = """
  - key: {key}
    title: toy
    paradigm: baseline
    modes:
      video: {{input: {{shape: [3, 8, 8, 3], dtype: uint8}}, tokens: [3, 1, 3], indices: [3, 1]}}
      image: {{input: {{shape: [2, 8, 8, 3], dtype: uint8}}, tokens: [2, 1, 3], indices: [2, 1]}}
    preprocessing: toy
    revision: 1
    license: MIT
    source: tests
"""
TOY_CODE = '''
"""Models that misbehave when the colour of a row's first frame says so."""
import os, time
import cv2
import numpy as np
from lary_worker import Latents, Model


class Mean(Model):
    """Mean colour of every frame."""

    def preprocess(self, frames):
        return np.stack([cv2.resize(f, (8, 8), interpolation=cv2.INTER_AREA) for f in frames])

    def load(self, weights, device, dtype, seed):
        self.dtype, self.weights = dtype, weights

    def encode(self, batch, rows):
        tokens = batch.to(self.dtype).mean(dim=(2, 3))[:, :, None]
        return Latents(tokens, (tokens[..., 0] * 2).long())


def marked(batch):
    """Rows whose first frame is mostly red."""
    first = batch[:, 0].float().mean(dim=(1, 2))
    return (first[:, 0] > 180) & (first[:, 1] < 60)


class Nan(Mean):
    value = float("nan")

    def encode(self, batch, rows):
        latents = super().encode(batch, rows)
        latents.tokens[marked(batch)] = self.value
        return latents


class Inf(Nan):
    value = float("-inf")


class Large(Nan):
    value = 70000.0


class Raises(Mean):
    def encode(self, batch, rows):
        if marked(batch).any():
            raise IndexError("a red row")
        return super().encode(batch, rows)


class Broken(Mean):
    def encode(self, batch, rows):
        raise ZeroDivisionError("every row")


class BrokenPreprocess(Mean):
    def preprocess(self, frames):
        raise ZeroDivisionError("every row")


class WrongShape(Mean):
    def encode(self, batch, rows):
        latents = super().encode(batch, rows)
        return Latents(latents.tokens[..., :2], latents.indices)


class Small(Mean):
    """Memory for two rows."""

    def encode(self, batch, rows):
        if len(batch) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().encode(batch, rows)


class Tiny(Mean):
    def encode(self, batch, rows):
        raise MemoryError


def hang():
    """And say so by a file: the fixture `patience` looks for it."""
    if folder := os.environ.get("LARY_TEST_HUNG"):
        open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(600)


class Stalls(Mean):
    def encode(self, batch, rows):
        time.sleep(600)


class Slow(Mean):
    """Waits before each batch until the file that LARY_TEST_GATE names lets so many of this process through."""
    batches = 0

    def encode(self, batch, rows):
        time.sleep(0.05)
        gate = os.environ.get("LARY_TEST_GATE")
        while gate and os.path.getsize(gate) <= self.batches:
            time.sleep(0.01)
        self.batches += 1
        return super().encode(batch, rows)


class Hangs(Mean):
    def preprocess(self, frames):
        if frames[0, ..., 0].mean() > 180 and frames[0, ..., 1].mean() < 60:
            hang()
        return super().preprocess(frames)


class Dies(Mean):
    def preprocess(self, frames):
        if frames[0, ..., 0].mean() > 180 and frames[0, ..., 1].mean() < 60:
            os.abort()
        return super().preprocess(frames)


class HangsAlways(Mean):
    def preprocess(self, frames):
        hang()


class Once(Mean):
    """Goes wrong for the first time with each row whose first frame is red; the mark is a file in TMPDIR."""

    def first_time(self, frames):
        if not (frames[0, ..., 0].mean() > 180 and frames[0, ..., 1].mean() < 60):
            return False
        mark = os.path.join(os.environ["LARY_TEST_MARKS"], str(frames.sum()))
        if os.path.exists(mark):
            return False
        open(mark, "w").close()
        return True

    def preprocess(self, frames):
        if self.first_time(frames):
            self.fail()
        return super().preprocess(frames)


class OnceKilled(Once):
    def fail(self):
        os.kill(os.getpid(), 9)


class OnceHung(Once):
    def fail(self):
        hang()


class OnceAborted(Once):
    def fail(self):
        os.abort()


class OnceNoMemory(Once):
    def fail(self):
        raise MemoryError


class OnceRaises(Once):
    def fail(self):
        raise OSError("a thread could not be started")


class NoMemory(Mean):
    def preprocess(self, frames):
        if frames[0, ..., 0].mean() > 180 and frames[0, ..., 1].mean() < 60:
            raise MemoryError
        return super().preprocess(frames)


class Killed(Mean):
    def preprocess(self, frames):
        if frames[0, ..., 0].mean() > 180 and frames[0, ..., 1].mean() < 60:
            os.kill(os.getpid(), 9)
        return super().preprocess(frames)


class Noisy(Mean):
    def load(self, weights, device, dtype, seed):
        print("library chatter")
        os.write(1, b"c chatter\\n")
        super().load(weights, device, dtype, seed)


class Sums(Model):
    """Of actions: what each step is, twice."""

    def preprocess(self, actions):
        assert actions.dtype == np.float64
        return actions.astype(np.float32)

    def load(self, weights, device, dtype, seed):
        pass

    def encode(self, batch, rows):
        return Latents(2 * batch[:, :, None], batch.sum(2, keepdim=True).long())
'''
ACTIONS_CARD = """
  - key: sums
    title: toy that reads actions
    paradigm: baseline
    modes:
      actions: {input: {shape: [4, 3], dtype: float32}, tokens: [4, 1, 3], indices: [4, 1]}
    preprocessing: toy
    revision: 1
    license: MIT
    source: tests
"""
TOYS = {
    "mean": "Mean",
    "nan": "Nan",
    "inf": "Inf",
    "large": "Large",
    "raises": "Raises",
    "broken": "Broken",
    "broken-preprocess": "BrokenPreprocess",
    "wrong-shape": "WrongShape",
    "small": "Small",
    "tiny": "Tiny",
    "stalls": "Stalls",
    "slow": "Slow",
    "hangs": "Hangs",
    "dies": "Dies",
    "noisy": "Noisy",
    "hangs-always": "HangsAlways",
    "once-killed": "OnceKilled",
    "once-hung": "OnceHung",
    "once-aborted": "OnceAborted",
    "once-no-memory": "OnceNoMemory",
    "once-raises": "OnceRaises",
    "no-memory": "NoMemory",
    "killed": "Killed",
}
PYTHON = sys.executable
COLOURS = [(30, 60, 90), (90, 200, 60), (10, 10, 200), (120, 120, 120), (200, 220, 180)]
RED = (230, 10, 10)


def frames_of(colour: tuple[int, int, int], count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A clip with a colour of its own and a moving square."""
    clip = np.full((count, height, width, 3), colour, np.uint8)
    for t in range(count):
        left = (3 * t) % (width - 10)
        clip[t, 8:20, left : left + 10] = 255 - np.array(colour, np.uint8)
    return clip


def write_clip(path: Path, frames: NDArray[np.uint8], codec: str = "libx264", **options: str) -> None:
    """Encode frames; H.264 with B-frames unless said otherwise."""
    defaults = {"bf": "2", "g": "12", "threads": "1"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = defaults | options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_png(path: Path, frame: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(".png", frame[..., ::-1])
    assert done
    path.write_bytes(data.tobytes())


@pytest.fixture(scope="session")
def toy_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the image `toy`, as if it were installed."""
    root = tmp_path_factory.mktemp("toys")
    package, info = root / "lary_toy", root / "lary_toy-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(TOY_CODE)
    (package / "image.yaml").write_text(TOY_YAML + "".join(TOY_CARD.format(key=key) for key in TOYS) + ACTIONS_CARD)
    points = "\n".join(f"{key} = lary_toy.models:{name}" for key, name in {**TOYS, "sums": "Sums"}.items())
    (info / "entry_points.txt").write_text(f"[lary.models]\n{points}\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-toy\nVersion: 1\n")
    return root


@contextmanager
def toys_registered(toy_image: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy image as that of this very process and of those it starts."""
    patch.syspath_prepend(str(toy_image))
    patch.setenv("PYTHONPATH", str(toy_image))
    patch.setenv("LARY_IMAGE", "toy")
    patch.setenv("OMP_NUM_THREADS", "1")
    registry.find_image.cache_clear()
    yield
    registry.find_image.cache_clear()


@pytest.fixture
def toy_registry(toy_image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with toys_registered(toy_image, monkeypatch):
        yield


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """torch as it was before: a job changes it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_num_threads(threads)


@dataclass
class Done:
    """How a worker ended."""

    code: int
    events: list[Any]
    stderr: str

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.event == kind]

    @property
    def message(self) -> str:
        """Of the last event, which must be an error."""
        assert self.events[-1].event == "error", self.events[-1]
        assert self.events[-1].code == self.code
        return str(self.events[-1].message)


@dataclass
class Bench:
    """Mounts in a temporary folder, jobs on them, and the worker as a process."""

    root: Path
    card: ImageCard

    @property
    def media(self) -> Path:
        return self.root / "data" / "toys"

    def write_csv(self, lines: list[str], header: str = "video_path,sample_indices") -> Path:
        path = self.root / "job" / "metadata.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    def clips(self, colours: list[tuple[int, int, int]]) -> Path:
        """A CSV of one clip per colour."""
        lines = []
        for number, colour in enumerate(colours):
            name = "clip_{}_{}_{}.mp4".format(*colour)
            if not (self.media / name).exists():
                write_clip(self.media / name, frames_of(colour, 12))
            lines.append(f'{name},"0,{number % 6 + 1},11"')
        return self.write_csv(lines)

    def job(
        self,
        model: str = "mean",
        mode: Mode = "video",
        *,
        shards: list[int] | None = None,
        shard_rows: int = 4,
        store: str = "latents.zarr",
        values: dict[str, Any] | None = None,
        **changes: Any,
    ) -> ExtractJob:
        """A job on the CSV that was written last."""
        csv = self.root / "job" / "metadata.csv"
        card = self.card.card(model)
        assert card is not None
        columns = VideoColumns() if mode == "video" else PairColumns()
        sha256, spec = file_sha256(csv), card.spec(mode, "corrected")
        all_values = Values(
            **{
                "model": model, "variant": "corrected", "mode": mode, "spec": spec, "preprocessing": card.preprocessing,
                "revision": card.revision, "code_sha256": card.code_sha256, "weights": {}, "dataset": "toys",
                "split": "train", "metadata_sha256": sha256, "columns": columns, "media": "toys", "frames": 3,
                "decoder": "pyav", "precision": "fp32", "dtype": "float16", "seed": 0,
            }
            | (values or {})
        )  # fmt: skip
        rows = count_rows(csv)
        layout = ArrayLayout(
            path=store, fingerprint=all_values.fingerprint, rows=rows, shard_rows=shard_rows,
            dtype=all_values.dtype, tokens=spec.tokens, indices=spec.indices,
        )  # fmt: skip
        metadata = MetadataFile(path="metadata.csv", sha256=sha256, rows=rows)
        fields = {
            "id": "job", "image": "toy", "values": all_values,
            "source": Source(metadata=metadata, columns=columns, media="toys", frames=3), "store": layout,
            "shards": tuple(range(layout.shards) if shards is None else shards), "batch_size": 3, "workers": 1,
            "threads": 1, "max_failed": 1.0,
        } | changes  # fmt: skip
        return ExtractJob(**fields)

    def start(
        self, job: ExtractJob, name: str = "job.json", stdin: int | None = None, *, warm: bool = False
    ) -> "subprocess.Popen[str]":
        """The worker as a process, with decode processes of its own; `warm`: all of them are forks of a warm one."""
        path = self.root / "job" / name
        path.write_text(job.to_json(), encoding="utf-8")
        command = [sys.executable if warm else PYTHON, "-m", "lary_worker", "extract", "--job", str(path)]
        return subprocess.Popen(command, text=True, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, process: "subprocess.Popen[str]") -> Done:
        out, err = process.communicate(timeout=280)
        events = [from_line(line) for line in out.splitlines()]
        assert None not in events, out
        return Done(process.returncode, events, err)

    def run(self, job: ExtractJob, *, warm: bool = False) -> Done:
        """Run the worker as a process to its end."""
        return self.finish(self.start(job, warm=warm))

    def extract(self, job: ExtractJob, heard: Callable[[Any], object] = lambda _event: None) -> Done:
        """Do the job in this process; its decode processes are forks of a warm one. `heard` is given each event."""
        events: list[Any] = []

        def emit(event: Any) -> None:
            events.append(event)
            heard(event)

        code = run_command(lambda: extract(job, emit), emit, job.id)
        return Done(code, events, "")

    def store(self, name: str = "latents.zarr") -> LatentReader:
        return LatentReader.open(self.root / "latents" / name)

    def records(self, name: str = "latents.zarr") -> list[ShardRecord]:
        return Store(self.root / "latents" / name).records()

    def reasons(self, name: str = "latents.zarr") -> dict[int, str]:
        """Failed rows of a store and why."""
        return {f.row: f.reason for record in self.records(name) for f in record.failures}

    def tokens(self, name: str = "latents.zarr") -> NDArray[Any]:
        """The tokens of all rows, NaN for failed ones."""
        store = self.store(name)
        return store.tokens(np.arange(store.rows))

    def tree(self, name: str = "latents.zarr") -> dict[str, bytes]:
        """Every file of a store and its bytes."""
        root = self.root / "latents" / name
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def bench_in(root: Path, patch: pytest.MonkeyPatch) -> Bench:
    for name in ("data/toys", "weights", "latents", "job", "out"):
        (root / name).mkdir(parents=True)
    for name in ("data", "weights", "latents", "job", "out"):
        patch.setenv(f"LARY_MOUNT_{name.upper()}", str(root / name))
    return Bench(root, registry.describe())


@pytest.fixture
def bench(
    tmp_path: Path, toy_registry: None, torch_settings: None, warm_python: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setattr(sys, "executable", str(warm_python))
    return bench_in(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def stalling(toy_image: Path) -> Callable[[Path], "tuple[Bench, subprocess.Popen[str]]"]:
    """`stalling(folder)`: a worker that will hang in `encode` until its watchdog ends it, and its bench."""

    def start(folder: Path) -> "tuple[Bench, subprocess.Popen[str]]":
        with pytest.MonkeyPatch.context() as patch, toys_registered(toy_image, patch):
            bench = bench_in(folder, patch)
            bench.clips(COLOURS)
            # Longer than importing torch takes on a loaded machine: before `started` nothing else beats.
            return bench, bench.start(bench.job("stalls", stall_timeout_s=30))

    return start


class Gate:
    """How many batches each process of the model `slow` may encode: its speed decides nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.open(0)

    def open(self, batches: int) -> None:
        self._file.write_bytes(b"x" * batches)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Shut."""
    monkeypatch.setenv("LARY_TEST_GATE", str(tmp_path / "gate"))
    return Gate(tmp_path / "gate")


PATIENCE_S = 10_000.0
"""A row's time-out that no machine is too slow for."""


@pytest.fixture
def patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], float]:
    """`patience(workers)`: a time-out of rows that passes as soon as so many processes hang, and never before."""
    folder = tmp_path / "hung"
    folder.mkdir()
    monkeypatch.setenv("LARY_TEST_HUNG", str(folder))
    really_wait, together = processes.wait, [1]

    def monotonic() -> float:
        return time.monotonic() + 2 * PATIENCE_S * (len(list(folder.iterdir())) // together[0])

    def wait(pipes: list[Any], seconds: float | None) -> list[Any]:
        due = None if seconds is None else monotonic() + seconds
        while not (ready := really_wait(pipes, 0.02)) and (due is None or monotonic() < due):
            pass
        return ready

    monkeypatch.setattr(processes, "wait", wait)
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=monotonic))

    def begin(workers: int) -> float:
        together[0] = workers
        return PATIENCE_S

    return begin


class Media:
    """The functions above, for tests that write media of their own."""

    clip = staticmethod(write_clip)
    png = staticmethod(write_png)
    frames = staticmethod(frames_of)
    colours = COLOURS
    red = RED


@pytest.fixture
def media() -> type[Media]:
    return Media


@pytest.fixture
def cold_decode_processes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode processes that start as everywhere: an interpreter that imports. Where their birth is what is tested."""
    monkeypatch.setattr(sys, "executable", PYTHON)
