"""A probe's epoch beside its bare arithmetic, and reading alone beside LARYBench's way: a compressed .npz a row.

Both probes of the protocol `smoke`, whose networks are the smallest: reading weighs most there. `compute` takes the
same steps on one batch that is there already. `memory` and `files` are epochs of the product's own loop, latents in
memory or read from files that the kernel has cached; `before_*` the same with batches as they were made before they had
memory of their own: new arrays for each, every value looked at. `read_*` is reading without training; `read_npz` loads
`np.savez_compressed` files of float32 (for the regression each row's action file too) by a `DataLoader` of two
processes, as LARYBench does. Processor time is that of this process, its threads and its children.
"""

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from common import arguments, measured, ratio, report
from lary_orch.catalog.protocol_cards import load_protocol
from lary_probe.attentive import AttentiveClassifier
from lary_probe.classify import make_plan as classify_plan
from lary_probe.latents import Latents, Positions
from lary_probe.regress_heads import Shape, make_network
from lary_probe.regress_heads import make_plan as regress_plan
from lary_probe.streams import Streams
from lary_probe.training import Head, Part, Plan, make_head, train
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray
from store_io import TOKENS, write_store
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SHAPE, CLASSES = Shape(8, 7), 10
CPU = torch.device("cpu")


class Before(Latents):
    """Batches as they were made: a new array of the rows, all its values looked at, converted to another new array."""

    def batches(self, parts: Sequence[Positions], device: torch.device) -> Iterator[Tensor]:
        def read(positions: Positions) -> Tensor:
            if self.held:
                return torch.from_numpy(self._memory.numpy()[positions]).float()
            values = self._store.tokens(self.rows[positions])
            assert np.isfinite(values).all(axis=(1, 2, 3)).all()
            return torch.from_numpy(values.reshape(len(positions), *self.shape)).float()

        with ThreadPoolExecutor(2) as readers:
            ahead = deque(readers.submit(read, part) for part in parts[:2])
            for following in parts[2:]:
                ahead.append(readers.submit(read, following))
                yield ahead.popleft().result()
            for last in ahead:
                yield last.result()


class Files(Dataset[tuple[Tensor, ...]]):
    """A row's .npz, and its action file where there are any."""

    def __init__(self, root: Path, rows: int, actions: bool) -> None:
        self.root, self.rows, self.actions = root, rows, actions

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        tokens = torch.from_numpy(np.load(self.root / f"{row}.npz")["tokens"]).float()
        if not self.actions:
            return tokens, torch.tensor(0)
        return tokens, torch.from_numpy(np.load(self.root / f"{row}.npy")).float()


def opened(kind: type[Latents], root: Path, *, memory: bool) -> Latents:
    latents = kind(LatentReader.open(root), "train", time_axis=True)
    latents.load(len(latents) if memory else 0, lambda: None)
    return latents


class Probe:
    """One of the two probes: how an epoch of it is trained, and what is read for that."""

    def __init__(self, kind: str, rows: int, device: torch.device = CPU) -> None:
        rng, self.kind = np.random.default_rng(0), kind
        protocol = load_protocol("smoke")
        accelerator = Accelerator(cpu=device.type == "cpu")
        self.device = accelerator.device
        self.session: Any = SimpleNamespace(accelerator=accelerator, step=_nothing, training=_nothing, alive=_nothing)
        self.recipe = protocol.classify if kind == "classify" else protocol.regress
        self.targets: NDArray[Any] = rng.integers(0, CLASSES, rows)
        if kind == "regress":
            self.targets = rng.normal(size=(rows, SHAPE.steps * SHAPE.dim)).astype(np.float32)
        self.protocol, self.order = protocol, rng.permutation(rows)

    def plan(self) -> Plan:
        streams = Streams(0, "independent")
        if self.kind == "classify":
            plan = classify_plan(self.protocol.classify, self.targets, streams)
        else:
            plan = regress_plan(self.protocol.regress, SHAPE, len(self.targets), streams, _nothing)
        return replace(plan, epochs=1)

    def heads(self) -> list[Head]:
        torch.manual_seed(0)
        if self.kind == "regress":
            recipe, network = self.protocol.regress, make_network(self.protocol, int(np.prod(TOKENS)), SHAPE)
            return [make_head(self.session, network, recipe.lr, recipe.weight_decay)]
        own = self.protocol.classify
        sizes = {"width": own.width, "depth": own.depth, "heads": own.heads, "time_axis": True}
        return [
            make_head(self.session, AttentiveClassifier(TOKENS[-1], CLASSES, **sizes), lr, decay)
            for lr, decay in own.optimisers
        ]

    def parts(self) -> list[Positions]:
        return np.split(self.order, range(self.recipe.batch_size, len(self.order), self.recipe.batch_size))

    def epoch(self, latents: Latents) -> float:
        """The product's own loop; the training loss, so that ways can be compared."""
        fit = Part(latents, np.arange(len(latents)), self.targets)
        (found,) = train(self.session, self.heads(), self.plan(), fit, {})
        return float(found.train_loss[0])

    def compute(self) -> None:
        """The same steps on rows that are there already."""
        heads, plan = self.heads(), self.plan()
        tokens = torch.randn(self.recipe.batch_size, *TOKENS, device=self.device)
        for part in self.parts():
            wanted = torch.from_numpy(self.targets[part]).to(self.device)
            for head in heads:
                plan.loss(head.network(tokens[: len(part)]), wanted).backward()
                head.optimiser.step()
                head.optimiser.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def read(self, latents: Latents) -> None:
        for _ in latents.batches(self.parts(), CPU):
            pass


def _nothing(*_: object) -> None:
    pass


def read_npz(root: Path, rows: int, batch: int, actions: bool) -> None:
    for _ in DataLoader(Files(root, rows, actions), batch_size=batch, shuffle=True, num_workers=2):
        pass


def compare(kind: str, root: Path, npz: Path, rows: int, rounds: int) -> dict[str, Any]:
    probe = Probe(kind, rows)
    now, past = ({m: opened(c, root, memory=m) for m in (True, False)} for c in (Latents, Before))
    losses = {probe.epoch(latents) for latents in (*now.values(), *past.values())}
    assert len(losses) == 1, f"the ways differ: {losses}"
    ways = {
        "compute": probe.compute,
        "memory": lambda: probe.epoch(now[True]),
        "before_memory": lambda: probe.epoch(past[True]),
        "files": lambda: probe.epoch(now[False]),
        "before_files": lambda: probe.epoch(past[False]),
        "read_memory": lambda: probe.read(now[True]),
        "before_read_memory": lambda: probe.read(past[True]),
        "read_files": lambda: probe.read(now[False]),
        "before_read_files": lambda: probe.read(past[False]),
        "read_npz": lambda: read_npz(npz, rows, probe.recipe.batch_size, kind == "regress"),
    }
    found = measured(ways, rounds)
    ratios = {
        f"{name}_over_compute": ratio(found, name, "compute")
        for name in ("memory", "before_memory", "files", "before_files")
    }
    ratios |= {f"npz_over_{name}": ratio(found, "read_npz", name) for name in ("read_memory", "read_files")}
    return {"batch_size": probe.recipe.batch_size, "seconds": found, "ratios": ratios}


def epochs(kind: str, rows: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """For `gpu.py`: an epoch from memory and from files, and the bare steps, on a device."""
    probe = Probe(kind, rows, device)
    tokens = np.random.default_rng(0).standard_normal((rows, *TOKENS), np.float32).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", tokens)
        latents = {memory: opened(Latents, Path(folder) / "store", memory=memory) for memory in (True, False)}
        ways = {
            "compute": probe.compute,
            "memory": lambda: probe.epoch(latents[True]),
            "files": lambda: probe.epoch(latents[False]),
        }
        if rounds > 1:
            measured(ways, 1)
        found = measured(ways, rounds)
    over = {name: ratio(found, name, "compute")["wall"] for name in ("memory", "files")}
    return {"rows": rows, "tokens": TOKENS, "seconds": found, "over_compute": over}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng, load = np.random.default_rng(0), os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        root, npz = Path(folder) / "store", Path(folder) / "npz"
        tokens = rng.standard_normal((options.rows, *TOKENS), np.float32).astype(np.float16)
        write_store(root, tokens)
        npz.mkdir()
        for row, own in enumerate(tokens.astype(np.float32)):
            np.savez_compressed(npz / f"{row}.npz", tokens=own, indices=np.empty(0))
            np.save(npz / f"{row}.npy", rng.normal(size=(SHAPE.steps, SHAPE.dim)))
        kinds = {kind: compare(kind, root, npz, options.rows, options.rounds) for kind in ("classify", "regress")}
    figures = {
        "rows": options.rows,
        "tokens": TOKENS,
        "threads": options.threads,
        "rounds": options.rounds,
        "load_before": round(load[0], 2),
        "load_after": round(os.getloadavg()[0], 2),
    }
    report("probe_reading", figures | kinds, options.save)


if __name__ == "__main__":
    main()
