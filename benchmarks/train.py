"""The training loop compared with what a user would write, on one network and the same files.

`steps`: steps of the loop (rows from memory, checks, means, torch's settings) and of the bare model on one batch that
lies on the device: forward, losses, backward, clip, optimiser, `after_step`. `ratio`: bare over loop, the goal is 0.9.
On a CPU the processor's time of one thread counts, on a GPU the clock.

`state`: seconds to publish a state (copy, hash, fsync).

`data`: rows per second of processor time out of the decode processes, rows not kept, and out of a plain DataLoader with
as many workers over the same files, for PNG pairs and for H.264 clips: of this process and its children, one after the
other, each for one batch and for all rows, so that a row's cost and that of starting are told apart (a DataLoader forks
this process, the decode processes are fresh interpreters). And the share of a step that the loop waits for rows while
a training runs, its rows decoded each time (`streamed`) and kept (`kept`).
"""

import importlib.resources
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from common import alternate, arguments, report, summary
from lary_schema.base import file_sha256
from lary_schema.cards import PairColumns, VideoColumns
from lary_schema.jobs import MetadataFile, Source
from lary_schema.mounts import Mounts
from lary_schema.training import Recipe, TrainData, TrainJob, TrainValues
from lary_schema.watchdog import Watchdog
from lary_trainer.registry import training_sha256
from lary_trainer.training import Training
from lary_trainer.world import World
from lary_worker import registry
from lary_worker.decode import read_clip
from lary_worker.device import device_name, prepare_torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

FRAMES, DT, SIDE = 9, 4, 64


def moving(rng: np.random.Generator) -> Any:
    """uint8 (FRAMES, SIDE, SIDE, 3): textured, with a square that moves."""
    frames = np.repeat(cv2.resize(rng.integers(0, 256, (1, 8, 8, 3), np.uint8)[0], (SIDE, SIDE))[None], FRAMES, 0)
    left, top, speed = rng.integers(0, 20, 3)
    for at in range(FRAMES):
        x = int(left + speed % 4 * at)
        frames[at, top : top + 12, x : x + 12] = 255
    return frames


def write_files(root: Path, rows: int) -> None:
    """PNG pairs and clips of the same frames, and their CSVs."""
    (root / "data").mkdir()
    (root / "job").mkdir()
    rng = np.random.default_rng(0)
    pairs, clips = ["src_img,tgt_img"], ["video_path,sample_indices"]
    for row in range(rows):
        frames = moving(rng)
        for name, frame in (("a", frames[0]), ("b", frames[DT])):
            cv2.imwrite(str(root / f"data/{row}{name}.png"), frame)
        with av.open(str(root / f"data/{row}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        pairs.append(f"{row}a.png,{row}b.png")
        clips.append(f'{row}.mp4,"{",".join(map(str, range(FRAMES)))}"')
    for name, lines in (("pairs", pairs), ("clips", clips)):
        (root / f"job/{name}.csv").write_text("\n".join(lines) + "\n")


class Bench:
    """Jobs on the files."""

    def __init__(self, root: Path, recipe: Recipe, rows: int, workers: int, device: str) -> None:
        self.root, self.recipe, self.rows, self.workers, self.device = root, recipe, rows, workers, device
        self.mounts = Mounts(data=root / "data", weights=root, latents=root, job=root / "job", out=root / "out")

    def job(self, kind: str, ram_bytes: int) -> TrainJob:
        csv = self.root / f"job/{kind}.csv"
        sha256 = file_sha256(csv)
        columns = PairColumns() if kind == "pairs" else VideoColumns()
        common: dict[str, Any] = {"columns": columns, "media": ".", "frames": FRAMES}
        recipe = self.recipe.model_copy(update={"dt": DT if kind == "clips" else None})
        data = TrainData(dataset="bench", split="train", metadata_sha256=sha256, **common)
        values = TrainValues(recipe=recipe, data=data, seed=0, code_sha256=training_sha256(recipe))
        source = Source(metadata=MetadataFile(path=csv.name, sha256=sha256, rows=self.rows), **common)
        return TrainJob(
            id="bench", image="bench", values=values, source=source, device=self.device, threads=1,
            workers=self.workers, ram_bytes=ram_bytes, save_every=10**9, evaluate_every=10**9,
        )  # fmt: skip

    def training(self, kind: str, ram_bytes: int = 4 << 30) -> Training:
        job = self.job(kind, ram_bytes)
        device = prepare_torch(job)
        watchdog = Watchdog(lambda _: None, job.id, 1e6)
        return Training(job, self.mounts, World(device), device, lambda _: None, watchdog)


class Steps:
    """The loop and the bare model, the same number of steps."""

    def __init__(self, training: Training, steps: int) -> None:
        self.training, self.steps = training, steps
        for pairs in training.train_pairs(0):  # until all rows are kept
            training.step(pairs)
            if training._inputs.train.reader._keeps_all():
                break
        self.batch = training._inputs.train_batch(next(iter(training.train_pairs(0))))

    def loop(self) -> None:
        for _, pairs in zip(range(self.steps), self.training.train_pairs(0), strict=False):
            self.training.step(pairs)
        self._wait()

    def bare(self) -> None:
        stepper = self.training._stepper
        trainee, network, weights = stepper.trainee, stepper.network, self.training._recipe.losses
        parameters = [p for p in network.parameters() if p.requires_grad]
        for _ in range(self.steps):
            stepper.optimiser.zero_grad(set_to_none=True)
            outputs = trainee.forward(network, self.batch)
            terms = trainee.losses(outputs, self.batch)
            sum(weights[name] * term for name, term in terms.items()).backward()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(parameters, self.training._recipe.optimiser.clip or 1.0)
            stepper.optimiser.step()
            with torch.no_grad():
                trainee.after_step(network, {name: output.detach() for name, output in outputs.items()}, self.batch)
        self._wait()

    def _wait(self) -> None:
        if self.training._device.type == "cuda":
            torch.cuda.synchronize()


def measure_steps(training: Training, steps: int, rounds: int) -> dict[str, Any]:
    ways = Steps(training, steps)
    clock = time.process_time if training._device.type == "cpu" else time.perf_counter
    names: dict[str, Callable[[], Any]] = {"bare": ways.bare, "loop": ways.loop}
    alternate(names, 1, clock)
    found = summary(alternate(names, rounds, clock))
    bare, loop = (found[name]["median_s"] / steps for name in ("bare", "loop"))
    return {
        "bare_steps_per_s": round(1 / bare, 2),
        "loop_steps_per_s": round(1 / loop, 2),
        "ratio": round(bare / loop, 3),
        "loop_spread_s": [round(found["loop"][name] / steps, 5) for name in ("min_s", "max_s")],
    }


def steps_of(key: str, device: str, *, toy: bool) -> dict[str, Any]:
    """For `gpu.py`: steps a second of a recipe of the image that LARY_IMAGE names; `toy` takes very few."""
    registry.find_image.cache_clear()
    recipe = Recipe.load(_ours(key)).model_copy(update={"steps": 10**6})
    if toy:
        recipe = recipe.model_copy(update={"batch_size": 4})
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), recipe, recipe.batch_size, 1 if toy else 4, device)
        write_files(bench.root, recipe.batch_size)
        steps, rounds = (1, 1) if toy else (30, 5)
        return {"batch": recipe.batch_size, **measure_steps(bench.training("pairs"), steps, rounds)}


def _ours(key: str) -> Path:
    return Path(str(importlib.resources.files("lary_study") / "recipes" / f"{key}.yaml"))


def measure_state(training: Training, rounds: int) -> dict[str, Any]:
    steps = iter(range(1, 10**6))
    found = summary(alternate({"save": lambda: training.save(next(steps))}, max(5, rounds)))["save"]
    size = max(path.stat().st_size for path in training._states.rglob("*.safetensors"))
    return {"seconds": round(found["median_s"], 4), "megabytes": round(size / 1e6, 2)}


class Files(Dataset[tuple[torch.Tensor]]):
    """What a user would write: a row's pair, read and resized."""

    def __init__(self, folder: Path, kind: str, size: int, rows: int) -> None:
        self.folder, self.kind, self.size, self.rows = folder, kind, size, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Any:
        if self.kind == "pairs":
            paths = (self.folder / f"{row}{name}.png" for name in "ab")
            frames = [cv2.imread(str(path))[..., ::-1] for path in paths]
        else:
            start = row % (FRAMES - DT)
            frames = list(read_clip(self.folder / f"{row}.mp4", str(row), [start, start + DT], "pyav")[0])
        small = [cv2.resize(frame, (self.size, self.size), interpolation=cv2.INTER_AREA) for frame in frames]
        return torch.from_numpy(np.stack(small))


def processor_time() -> float:
    """Seconds of this process and of all children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def measure_data(bench: Bench, kind: str, rounds: int) -> dict[str, Any]:
    """Both ways' cost of a row and of starting, in processor time."""
    training = bench.training(kind, ram_bytes=0)
    split = training._inputs.train
    batch = bench.recipe.batch_size
    files = Files(bench.root / "data", kind, split.reader.config.spec.shape[2], bench.rows)
    steps = bench.rows // batch

    def loop(steps: int) -> None:
        for _ in split.batches(0, steps, 0, 1):
            pass

    def loader(steps: int) -> None:
        some = Subset(files, range(steps * batch))
        for _ in DataLoader(some, batch, shuffle=True, drop_last=True, num_workers=bench.workers):
            pass

    ways = {f"{name} {n}": partial(way, n) for n in (1, steps) for name, way in (("loader", loader), ("loop", loop))}
    found = summary(alternate(ways, rounds, processor_time))
    figures = {}
    for name in ("loop", "loader"):
        one, all_rows = (found[f"{name} {n}"]["median_s"] for n in (1, steps))
        row = (all_rows - one) / ((steps - 1) * batch)
        figures |= {f"{name}_rows_per_processor_s": round(1 / row, 1), f"{name}_start_s": round(one - batch * row, 3)}
    return figures


def shares(bench: Bench, kind: str, steps: int) -> Iterator[tuple[str, float]]:
    """The share of the clock that steps wait for rows, after the first ones."""
    for name, ram in (("streamed", 0), ("kept", 4 << 30)):
        training = bench.training(kind, ram)
        first = bench.rows // bench.recipe.batch_size + 1
        began = 0.0
        for at, pairs in enumerate(training.train_pairs(0)):
            if at == first:
                began, training.journal._waited = time.monotonic(), 0.0
            training.step(pairs)
            if at == first + steps:
                break
        yield f"{name}_data_share", round(training.journal._waited / (time.monotonic() - began), 3)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--recipe", type=Path, help="of a trainee of the image that LARY_IMAGE names [moto-demo, lara]")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    os.environ.setdefault("LARY_IMAGE", "lara")
    recipe = Recipe.load(options.recipe or _ours("moto-demo")).model_copy(update={"steps": 10**6})
    figures: dict[str, Any] = {
        "device": device_name(torch.device("cuda" if cuda else "cpu")), "torch": torch.__version__, "threads": 1,
        "recipe": recipe.key, "rows": options.rows, "workers": options.workers, "rounds": options.rounds,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), recipe, options.rows, options.workers, "cuda" if cuda else "cpu")
        write_files(bench.root, options.rows)
        training = bench.training("pairs")
        figures["parameters"] = sum(p.numel() for p in training._network.parameters() if p.requires_grad)
        figures["steps"] = measure_steps(training, options.steps, options.rounds)
        figures["state"] = measure_state(training, options.rounds)
        for kind in ("pairs", "clips"):
            figures[kind] = measure_data(bench, kind, options.rounds) | dict(shares(bench, kind, options.steps))
            print(kind, figures[kind], file=sys.stderr, flush=True)
    report("train", figures, options.save)


if __name__ == "__main__":
    main()
