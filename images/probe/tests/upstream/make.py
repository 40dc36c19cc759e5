"""How `trajectory.json` was made: LARYBench's own training code, run on the small set of `case.py`.

    python make.py LARYBENCH_CHECKOUT

needs torch, diffusers, timm, accelerate and pandas; the values committed are of LARYBench 2092d20 on a CPU. Nothing of
it is copied here: its functions are imported from the checkout and called. What is replaced does not compute: wandb,
seaborn, sklearn, video readers and the random draws of the diffusion head, which come from `lary_probe.noise` on both
sides so that the trajectories can be compared. Starting weights are those of `case.start` by the names of
`NAMES`; the order of rows is recorded (`order`). No mixed precision: LARYBench's
`autocast("cuda")` does nothing on a CPU.
"""

import json
import math
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from case import (
    ACTIONS,
    BATCH,
    CLASSES,
    DECAY,
    DEPTH,
    DIM,
    DIT,
    EPOCHS,
    HEADS,
    LATENT,
    LR,
    MLP,
    OPTIMISERS,
    ROWS,
    STEPS,
    WIDTH,
    labels,
    start,
    targets,
    tokens,
)  # fmt: skip
from lary_probe.noise import key_of, normals, uniforms
from torch.utils.data import DataLoader, TensorDataset

SEED = 5
STUBS = ("wandb", "prettytable", "seaborn", "sklearn.metrics", "decord", "lary.path_resolver")
NAMES = {
    "classify": [
        ("projector.", "projector."),
        ("classifier.temporal_embed", "time"),
        ("classifier.pooler.query_tokens", "query"),
        ("classifier.pooler.cross_attention_block.xattn.", "pool.attention."),
        ("classifier.pooler.cross_attention_block.", "pool."),
        ("classifier.pooler.blocks.", "blocks."),
        ("classifier.linear.", "linear."),
        (".attn.proj.", ".attention.out."),
        (".attn.", ".attention."),
        (".fc1.", ".up."),
        (".fc2.", ".down."),
    ],
    "mlp": [
        ("model.layer_norm1.", "enter.0."),
        ("model.fc1.", "enter.1."),
        ("model.mlp_resnet_blocks.", "blocks."),
        (".ffn.", "."),
        ("model.layer_norm2.", "leave.0."),
        ("model.fc2.", "leave.1."),
    ],
    "dit": [
        ("dit.x_embedder.linear.", "action."),
        ("dit.t_embedder.mlp.", "time."),
        ("dit.z_embedder.linear.", "tokens."),
        ("dit.z_embedder.uncondition", "nothing"),
        ("dit.positional_embedding", "position"),
        ("dit.blocks.", "blocks."),
        (".attn.proj.", ".attention.out."),
        (".attn.", ".attention."),
        (".mlp.fc1.", ".mlp.0."),
        (".mlp.fc2.", ".mlp.2."),
        ("dit.final_layer.linear.", "leave."),
    ],
}
"""Parts of names, LARYBench's and ours."""


def renamed(kind: str, name: str) -> str:
    for theirs, ours in NAMES[kind]:
        name = name.replace(theirs, ours)
    return name


def set_start(kind: str, network: torch.nn.Module, head: int = 0) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            ours = renamed(kind, name)
            shape = parameter.shape[-1:] if ours == "nothing" else parameter.shape
            parameter.copy_(torch.from_numpy(start(ours, head, shape)).reshape(parameter.shape))


def classify(evaluation: Any, models: Any, sampler: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    heads, optimisers, schedules = [], [], []
    dataset = TensorDataset(torch.from_numpy(labels("train")), torch.from_numpy(tokens("train")))
    steps = math.ceil(len(dataset) / BATCH)
    for index, (lr, decay) in enumerate(OPTIMISERS):
        network = models.FeatureEvaluator(
            input_dim=DIM, model_dim=WIDTH, num_classes=CLASSES, num_heads=HEADS, depth=DEPTH,
            use_activation_checkpointing=False,
        )  # fmt: skip
        set_start("classify", network, index)
        heads.append(network)
        group = {
            "params": network.parameters(), "mc_warmup_steps": 0, "mc_start_lr": lr, "mc_ref_lr": lr,
            "mc_final_lr": 0.0, "mc_ref_wd": decay, "mc_final_wd": decay,
        }  # fmt: skip
        optimisers.append(torch.optim.AdamW([group]))
        rate = evaluation.WarmupCosineLRSchedule(optimisers[-1], T_max=EPOCHS * steps)
        schedules.append([[rate], [evaluation.CosineWDSchedule(optimisers[-1], T_max=EPOCHS * steps)]])
    counts = np.bincount(labels("train"))
    dataset.sample_weights = torch.from_numpy(1 / (counts[labels("train")] * CLASSES))
    order = sampler.DistributedWeightedSampler(dataset, num_replicas=1, rank=0, shuffle=True)
    epochs, orders = [], []
    for epoch in range(EPOCHS):
        order.set_epoch(epoch)
        orders.append([int(row) for row in order])
        found: dict[str, list[float]] = {"train": [], "train_loss": [], "val": [], "val_loss": []}
        for head, optimiser, schedule in zip(heads, optimisers, schedules, strict=True):
            acc, loss, *_ = evaluation.run_epoch(
                torch.device("cpu"), [head], batches("train", orders[-1]), training=True, optimizer=[optimiser],
                scaler=[None], schedulers=schedule, use_bfloat16=False,
            )  # fmt: skip
            found["train"].append(acc / 100)
            found["train_loss"].append(loss)
            acc, loss, *_ = evaluation.run_epoch(
                torch.device("cpu"), [head], batches("val", list(range(ROWS["val"]))), training=False
            )
            found["val"].append(acc / 100)
            found["val_loss"].append(loss)
        epochs.append(found)
    return {"order": orders, "epochs": epochs}


def batches(split: str, rows: list[int]) -> list[tuple[Any, ...]]:
    parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    return [(torch.from_numpy(labels(split)[p]), torch.from_numpy(tokens(split)[p]), p) for p in parts]


class Rows(torch.utils.data.Dataset[Any]):
    """What its regression set gives of a row, and in which order rows were requested."""

    def __init__(self, split: str) -> None:
        self.latents, self.targets = tokens(split).reshape(ROWS[split], -1), targets(split)
        self.requested: list[int] = []

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        self.requested.append(row)
        zeros = torch.zeros(STEPS * ACTIONS)
        return torch.from_numpy(self.latents[row]), torch.from_numpy(self.targets[row]), "", "", zeros, zeros + 1


def regress(main: Any, kind: str) -> dict[str, Any]:
    recipe = MLP if kind == "mlp" else DIT
    torch.manual_seed(0)
    accelerator = main.Accelerator(cpu=True)
    if kind == "mlp":
        network = main.ActionExpertMLP(LATENT, ACTIONS, recipe["width"], recipe["blocks"], STEPS)
    else:
        network = main.ActionExpertDiT(LATENT, ACTIONS, STEPS, recipe["width"], recipe["depth"])
    set_start(kind, network)
    train, val = Rows("train"), Rows("val")
    loader = DataLoader(train, batch_size=recipe["batch"], shuffle=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=DECAY)
    schedule = main.get_constant_schedule_with_warmup(
        optimizer=optimiser, num_warmup_steps=int(recipe["epochs"] * len(loader) * 0.1)
    )
    network, optimiser, schedule = accelerator.prepare(network, optimiser, schedule)
    evaluation = DataLoader(val, batch_size=recipe["batch"])
    names = [str(i) for i in range(ACTIONS)]
    epochs, orders = [], []
    for epoch in range(1, recipe["epochs"] + 1):
        train.requested.clear()
        val.requested.clear()
        if kind == "dit":
            network.draws = Draws(epoch - 1, train, val)
        loss = main.train_one_epoch(network, loader, optimiser, schedule, accelerator, epoch, kind, STEPS, names)
        orders.append(list(train.requested))
        _, mse, *_ = main.evaluate(
            network, evaluation, accelerator, kind, epoch, "unused", STEPS, names, "calvin", prefix="val"
        )
        epochs.append({"train_loss": loss, "val": mse})
    return {"order": orders, "epochs": epochs}


class Draws:
    """The diffusion head's random numbers, by row, as `lary_probe` draws them."""

    def __init__(self, epoch: int, train: Rows, val: Rows) -> None:
        self.epoch, self.train, self.val = epoch, train, val

    def rows(self, count: int) -> torch.Tensor:
        """Of the batch that was read last."""
        requested = self.val.requested or self.train.requested
        return torch.tensor(requested[-count:])


def patch_draws(main: Any) -> None:
    """Replace the loss and the sampling of its diffusion head: the same steps around other random numbers."""
    shape = (STEPS, ACTIONS)

    def normal(draws: Draws, count: int, purpose: str, at: int) -> torch.Tensor:
        return normals(key_of(SEED, purpose, at), draws.rows(count), STEPS * ACTIONS).view(-1, *shape)

    def loss(self: Any, latents: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        if not self.training:  # its validation loss draws noise of its own and is compared with nothing
            return torch.zeros(())
        count, draws = len(latents), self.draws
        noise = normal(draws, count, "noise", draws.epoch)
        t = (uniforms(key_of(SEED, "time", draws.epoch), draws.rows(count)) * 1000).long()
        dropped = uniforms(key_of(SEED, "dropout", draws.epoch), draws.rows(count)) < 0.1
        noisy = self.noise_scheduler.add_noise(wanted.view(-1, *shape), noise, t)
        embed = self.dit.z_embedder
        forward = type(embed).forward
        embed.forward = lambda z, train: forward(embed, z, train, force_drop_ids=dropped.long())
        try:
            predicted = self.dit(noisy, t, latents.unsqueeze(1))
        finally:
            del embed.forward
        return torch.nn.functional.huber_loss(predicted, noise, delta=1.0)

    def sample(self: Any, latents: torch.Tensor) -> torch.Tensor:
        if self.training:  # its progress bar samples while it trains, and nothing depends on it
            return torch.zeros(len(latents), STEPS * ACTIONS)
        x, scheduler = normal(self.draws, len(latents), "start", 0), self.noise_scheduler
        scheduler.set_timesteps(500)
        for t in scheduler.timesteps:
            predicted = self.dit(x, t.expand(len(x)), latents.unsqueeze(1))
            step_noise = normal(self.draws, len(x), "step", int(t))
            with_noise(scheduler, step_noise)
            x = scheduler.step(predicted, t, x).prev_sample
        return x.flatten(1)

    main.ActionExpertDiT.loss, main.ActionExpertDiT.sample = loss, sample


def with_noise(scheduler: Any, noise: torch.Tensor) -> None:
    """Have diffusers' next step add this noise."""
    module = sys.modules[type(scheduler).__module__]
    module.randn_tensor = lambda *_, **__: noise


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    for name in STUBS:
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))
    # timm imports torchvision, whose CUDA build defines this nowhere on a CPU; nothing calls it.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys.modules["classification.evals.video_classification_frozen.utils"] = types.SimpleNamespace(  # type: ignore[assignment]
        make_transforms=None
    )
    sys.modules["classification.src.datasets.data_manager"] = types.SimpleNamespace(init_data=None)  # type: ignore[assignment]
    import classification.evals.video_classification_frozen.eval as evaluation
    import classification.src.datasets.utils.weighted_sampler as sampler
    import classification.src.models.attentive_pooler as models
    import regression.main as regression

    regression.save_separate_eval_samples = lambda **_: None
    patch_draws(regression)
    document = {
        "source": "LARYBench 2092d20, CPU", "torch": torch.__version__,
        "classify": classify(evaluation, models, sampler),
        "mlp": regress(regression, "mlp"), "dit": regress(regression, "dit"),
    }  # fmt: skip
    Path(__file__).with_name("trajectory.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
