"""What the trainer's tests share: a toy image that trains, small pairs and clips, jobs, and the command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from lary_schema.base import file_sha256
from lary_schema.cards import Actions, Normalisation, PairColumns, VideoColumns
from lary_schema.command import run_command
from lary_schema.events import from_line
from lary_schema.groups import Grouping
from lary_schema.jobs import MetadataFile, Source, minor_versions
from lary_schema.metadata import count_rows
from lary_schema.training import Labelled, Optimiser, Recipe, TrainData, TrainJob, TrainResult, TrainValues
from lary_trainer.registry import training_sha256
from lary_worker import registry

TOY_YAML = """
name: toy
kind: model
module: lary_trainer
models:
  - key: toy
    pattern: 'toy(-.*)?-[0-9a-f]{12}'
    title: toy
    paradigm: baseline
    modes:
      image: {input: {shape: [2, 8, 8, 3], dtype: uint8}, tokens: [1, 1, 4], time_axis: false}
    preprocessing: toy
    revision: 1
    license: MIT
    source: tests
"""
TOY_CODE = '''
"""A small autoencoder of pairs that misbehaves when its config says so."""
import json, os, time
from pathlib import Path

import cv2
import numpy as np
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ModelCard, ModeSpec, TensorSpec
from lary_schema.mounts import Mounts
from lary_schema.training import TrainedCard
from lary_trainer import Trainee
from lary_worker import Latents, Model

KNOWN = {"width", "nan_at", "nan_gradient_at", "room", "terms", "supervised", "text", "couple", "dropout", "pause",
         "direct", "label_share", "kill", "health", "picture", "ungrouped", "stall", "blind", "latents"}


def small(frames):
    return np.stack([cv2.resize(f, (8, 8), interpolation=cv2.INTER_AREA) for f in frames])


class ToyTrainee(Trainee):
    def __init__(self, recipe, facts, seed):
        super().__init__(recipe, facts, seed)
        self.config = recipe.config

    @classmethod
    def card(cls, recipe):
        unknown = set(recipe.config) - KNOWN
        if unknown:
            raise ContractError(f"recipe {recipe.key}: config: unknown key {sorted(unknown)[0]!r}")
        spec = ModeSpec(input=TensorSpec(shape=(2, 8, 8, 3), dtype="uint8"),
                        tokens=(1, 1, recipe.config.get("width", 4)), time_axis=False)
        return ModelCard(key=recipe.key, title="toy", paradigm="baseline", modes={"image": spec}, preprocessing="toy",
                         revision=1, license="MIT", source="tests")

    @classmethod
    def supervision(cls, recipe):
        return "joint" if recipe.config.get("supervised") else "none"

    @classmethod
    def label_share(cls, recipe):
        return recipe.config.get("label_share")

    @classmethod
    def reads_text(cls, recipe):
        return bool(recipe.config.get("text"))

    @classmethod
    def reads_frames(cls, recipe):
        return not recipe.config.get("blind")

    @classmethod
    def reads_latents(cls, recipe):
        return tuple(recipe.config.get("latents", ()))

    def pixels(self, batch):
        """Of a blind one, actions in their place."""
        import torch

        if self.config.get("blind"):
            return torch.nn.functional.pad(batch.actions, (0, 189))
        return batch.frames.float().flatten(2) / 255

    def preprocess(self, frames):
        if self.config.get("kill") and frames[0, 0, 0, 0] % 6 == 0:
            mark = Path(os.environ["LARY_TEST_MARKS"]) / str(int(frames.sum()))
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), 9)
        return small(frames)

    def build(self, init, device):
        import torch
        from safetensors.torch import load_file
        from torch import nn

        width = self.config.get("width", 4)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.frozen = nn.Linear(3, 3)
                self.frozen.requires_grad_(False)
                self.encoder = nn.Linear(384, width)
                self.decoder = nn.Linear(192 + width, 192)
                self.scale = nn.Parameter(torch.ones(1))
                self.register_buffer("mean", torch.zeros(width))
                self.action = nn.Linear(width, 6)

        network = Net()
        if "start" in init:
            tensors = load_file(init["start"] / "model.safetensors")
            for name, tensor in tensors.items():
                if tensor.shape != network.state_dict()[name].shape:
                    raise WeightsError(f"{init['start']}: {name} has shape {tuple(tensor.shape)}")
            network.load_state_dict(tensors, strict=False)
        return network.to(device)

    def parameter_groups(self, network):
        from_encoder = [p for n, p in network.named_parameters() if p.requires_grad and n.startswith("encoder")]
        others = [p for n, p in network.named_parameters() if p.requires_grad and not n.startswith("encoder")]
        return {"encoder": from_encoder, "rest": others[1:] if self.config.get("ungrouped") else others}

    def forward(self, network, batch):
        import torch
        from lary_trainer.chance import row_noise

        if len(batch.rows) > self.config.get("room", 1000):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        time.sleep(self.config.get("pause", 0))
        # By the environment, for a training that is the same one without.
        if batch.step in (self.config.get("stall"), int(os.environ.get("LARY_TEST_STALL", -1))):
            time.sleep(600)
        x = self.pixels(batch)
        first, target = x[:, 0], x[:, 1]
        z = torch.tanh(network.encoder(x.flatten(1)))
        z = z + 0.1 * row_noise(batch.seed, "noise", batch.step, batch.rows, (z.shape[1],)).to(z.device)
        if self.config.get("dropout"):
            z = torch.nn.functional.dropout(z, 0.3)
        made = first + network.scale * network.decoder(torch.cat([first, z], 1))
        outputs = {"pixels": (made - target).square().mean(1), "z": z, "index": z.argmax(1), "sign": z > 0}
        if self.config.get("nan_at") == batch.step:
            outputs["pixels"] = outputs["pixels"] * float("nan")
        if self.config.get("nan_gradient_at") == batch.step:
            outputs["pixels"] = outputs["pixels"] + (network.scale * 0).sqrt()
        if batch.actions is not None:
            known = torch.where(batch.labelled[:, None, None], batch.actions, 0.0).flatten(1)
            outputs["action"] = (network.action(z) - known).square().mean(1) * batch.labelled
        self.network = network
        return outputs

    def losses(self, outputs, batch):
        import torch

        assert len(batch.rows) == len(outputs["z"]) == len(batch.frames)
        terms = {"pixels": outputs["pixels"].mean()}
        if self.config.get("direct"):
            terms["pixels"] = terms["pixels"] + self.network.scale.square().sum()
        if self.config.get("couple"):
            z = outputs["z"] - outputs["z"].mean(0)
            terms["couple"] = torch.nn.functional.cross_entropy(z @ z.T, torch.arange(len(z), device=z.device))
        if "action" in outputs:
            terms["action"] = outputs["action"].mean()
        for name in self.config.get("terms", []):
            terms[name] = outputs["z"].mean()
        return terms

    def after_step(self, network, outputs, batch):
        from lary_trainer.chance import stream

        network.mean.mul_(0.9).add_(outputs["z"].mean(0), alpha=0.1)
        at = int(stream(batch.seed, "restart", batch.step).integers(len(batch.rows)))
        network.mean[0] = outputs["z"][at, 0]

    def evaluate(self, network, batches):
        totals = {"rec": 0.0, "copy": 0.0}
        rows = 0
        for batch in batches():
            outputs = self.forward(network, batch)
            x = self.pixels(batch)
            totals["rec"] += float(outputs["pixels"].sum())
            totals["copy"] += float((x[:, 0] - x[:, 1]).square().mean(1).sum())
            rows += len(batch.rows)
        assert sum(len(b.rows) for b in batches()) == rows
        return {name: total / rows for name, total in totals.items()} | {"odd": float("inf")}

    def picture(self, network, batches):
        if self.config.get("picture") == "broken":
            raise ValueError("no such colour")
        frames = next(iter(batches())).frames
        return frames[0, 0].numpy() if self.config.get("picture") else None

    def health(self, measured):
        return ["the codebook has collapsed"] if self.config.get("health") else []

    def export(self, network):
        kept = {n: t for n, t in network.state_dict().items() if not n.startswith("frozen.")}
        return kept, {"width": self.config.get("width", 4)}


class ToyModel(Model):
    @classmethod
    def resolve(cls, card, key):
        path = Mounts.from_env().weights / "checkpoint" / "card.json"
        return TrainedCard.read(path).card if path.exists() else card

    def preprocess(self, frames):
        return small(frames)

    def load(self, weights, device, dtype, seed):
        from safetensors.torch import load_file

        tensors = load_file(weights["checkpoint"] / "model.safetensors")
        self.weight, self.bias = tensors["encoder.weight"], tensors["encoder.bias"]

    def encode(self, batch, rows):
        import torch

        z = torch.tanh(torch.nn.functional.linear(batch.float().flatten(1) / 255, self.weight, self.bias))
        return Latents(z[:, None, None])
'''
DIM, STRIDE, GROUPS = 3, 2, 6


@pytest.fixture(scope="session")
def toy_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the image `toy`, as if it were installed."""
    root = tmp_path_factory.mktemp("toys")
    package, info = root / "lary_toy_trainee", root / "lary_toy_trainee-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "toy.py").write_text(TOY_CODE)
    (package / "image.yaml").write_text(TOY_YAML)
    (info / "entry_points.txt").write_text(
        "[lary.models]\ntoy = lary_toy_trainee.toy:ToyModel\n[lary.trainees]\ntoy = lary_toy_trainee.toy:ToyTrainee\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-toy-trainee\nVersion: 1\n")
    return root


@pytest.fixture
def toy_registry(toy_image: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy image as that of this very process and of those it starts, which are forks."""
    monkeypatch.setattr(sys, "executable", str(warm_python))
    monkeypatch.syspath_prepend(str(toy_image))
    monkeypatch.setenv("PYTHONPATH", str(toy_image))
    monkeypatch.setenv("LARY_IMAGE", "toy")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    registry.find_image.cache_clear()
    yield
    registry.find_image.cache_clear()


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """torch as it was before: a job changes it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs and clips of 6 episodes, with actions and texts; 10 held out."""
    root = tmp_path_factory.mktemp("world")
    for split, count in (("train", 24), ("val", 10)):
        folder = root / "toys" / split
        folder.mkdir(parents=True)
        rng = np.random.default_rng(count)
        lines, clips = [], []
        for row in range(count):
            frames = _moving(rng, 6)
            for at, frame in ((0, frames[0]), (1, frames[4])):
                cv2.imwrite(str(folder / f"{row}_{at}.png"), frame)
            _clip(folder / f"{row}.mp4", frames)
            np.save(folder / f"{row}.npy", rng.normal(3, 2, (STRIDE, DIM)).astype(np.float32))
            rest = f"{row}.npy,ep{row % GROUPS},{'push red' if row % 2 else 'pull blue'}"
            lines.append(f"{row}_0.png,{row}_1.png,{rest}")
            clips.append(f'{row}.mp4,"0,1,2,3,5",{rest}')
        (root / f"{split}.csv").write_text("src_img,tgt_img,action,episode,text\n" + "\n".join(lines) + "\n")
        (root / f"{split}_clips.csv").write_text("video_path,sample_indices,action,episode,text\n" + "\n".join(clips))
    return root


def _moving(rng: np.random.Generator, count: int) -> Any:
    frames = np.full((count, 32, 32, 3), rng.integers(0, 256, 3), np.uint8)
    left, speed = rng.integers(0, 8), rng.integers(1, 4)
    for at in range(count):
        frames[at, 8:20, left + speed * at : left + speed * at + 8] = rng.integers(0, 256, 3)
    return frames


def _clip(path: Path, frames: Any) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.options = {"bf": "2", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@dataclass
class Done:
    """How a command ended."""

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


def recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "key": "toy-a", "title": "toy", "trainee": "toy", "config": {}, "batch_size": 6, "steps": 20,
        "optimiser": Optimiser(lr=1e-2, warmup=3, weight_decay=0.01, clip=1.0), "losses": {"pixels": 1.0},
    }  # fmt: skip
    return Recipe(**fields | changes)


ACTIONS = Actions(
    folder="toys/{split}", stride=STRIDE, dim=DIM, names=("a", "b", "c"), normalisation=Normalisation(kind="train")
)


@dataclass
class Bench:
    """Mounts in a temporary folder, jobs on them, and the commands."""

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    def data(self, split: str, *, clips: bool = False, **changes: Any) -> tuple[TrainData, Source]:
        name = f"{split}_clips.csv" if clips else f"{split}.csv"
        path = self.root / "job" / name
        sha256, columns = file_sha256(path), VideoColumns() if clips else PairColumns()
        common: dict[str, Any] = {"columns": columns, "media": f"toys/{split}", "frames": 5 if clips else 1}
        values = {"dataset": "toys", "split": split, "metadata_sha256": sha256, "actions": ACTIONS} | common
        values |= {"group": Grouping(column="episode"), "instruction": "text"}
        metadata = MetadataFile(path=name, sha256=sha256, rows=count_rows(path))
        return TrainData(**values | changes), Source(metadata=metadata, **common)

    def job(
        self, *, clips: bool = False, held: bool = False, values: dict[str, Any] | None = None, **changes: Any
    ) -> TrainJob:
        """A job, `held`: with held-out rows; `values` and `changes` are fields of `TrainValues` and `TrainJob`."""
        data, source = self.data("train", clips=clips)
        held_out, held_source = self.data("val", clips=clips) if held else (None, None)
        chosen = (values or {}).get("recipe") or recipe(dt=2 if clips else None)
        fields: dict[str, Any] = {
            "recipe": chosen, "data": data, "held_out": held_out, "seed": 3, "code_sha256": training_sha256(chosen),
            "libraries": minor_versions(registry.libraries()),
        } | (values or {})  # fmt: skip
        if chosen.config.get("supervised"):
            fields.setdefault("labelled", Labelled(share=1))
        rest: dict[str, Any] = {
            "id": "job", "image": "toy", "source": source, "held_out": held_source, "save_every": 5,
            "evaluate_every": 10, "workers": 1, "threads": 1,
        } | changes  # fmt: skip
        return TrainJob(values=TrainValues(**fields), **rest)

    def start(self, job: TrainJob, *, out: str = "out", env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        """The command as a process; `out` is a folder below the root."""
        path = self.root / "job" / f"job-{out}.json"
        path.write_text(job.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", "lary_trainer", "train", "--job", str(path)]
        env = {**os.environ, "LARY_MOUNT_OUT": str(self.root / out), **(env or {})}
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)

    def finish(self, process: "subprocess.Popen[str]") -> Done:
        out, err = process.communicate(timeout=240)
        events = [from_line(line) for line in out.splitlines()]
        assert None not in events, out
        return Done(process.returncode, events, err)

    def run(self, job: TrainJob, **options: Any) -> Done:
        return self.finish(self.start(job, **options))

    def train(self, job: TrainJob, *, out: str = "out") -> Done:
        """Do the job in this process (its decode processes are real)."""
        from lary_trainer.train import train

        events: list[Any] = []
        before, os.environ["LARY_MOUNT_OUT"] = os.environ["LARY_MOUNT_OUT"], str(self.root / out)
        try:
            code = run_command(lambda: train(job, events.append), events.append, job.id)
        finally:
            os.environ["LARY_MOUNT_OUT"] = before
        return Done(code, events, "")

    def model(self, out: str = "out") -> bytes:
        return (self.root / out / "model.safetensors").read_bytes()

    def result(self, out: str = "out") -> TrainResult:
        return TrainResult.read(self.root / out / "training.json")

    def states(self, out: str = "out") -> list[str]:
        return sorted(p.name for p in (self.root / out / "state").glob("*"))

    def config(self, out: str = "out") -> Any:
        return json.loads((self.root / out / "config.json").read_text())

    recipe = staticmethod(recipe)


@pytest.fixture
def bench(
    tmp_path: Path, world: Path, toy_registry: None, torch_settings: None, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    for name in ("data", "weights", "latents", "job", "out"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"LARY_MOUNT_{name.upper()}", str(tmp_path / name))
    (tmp_path / "data/toys").symlink_to(world / "toys")
    for csv in world.glob("*.csv"):
        shutil.copy(csv, tmp_path / "job")
    return Bench(tmp_path)
