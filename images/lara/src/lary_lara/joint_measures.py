"""Held-out measures of the joint stage: the policy beside its controls, and what the alignment is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from lary_trainer.chance import row_noise
from lary_trainer.trainee import Batch
from torch import Tensor

from lary_lara.alignment import alignment_measures
from lary_lara.joint import JointNetwork
from lary_lara.measures import Batches

LARGEST = 4096
"""Rows, at most, among which retrieval looks: the first ones."""


@torch.no_grad()
def measure_actions(network: JointNetwork, batches: Batches, embedded: Sequence[Tensor]) -> dict[str, float]:
    """Mean squared errors of standardised actions, and the alignment's measures. `embedded` (B, Q * D) by batch.

    `flow`: of the velocity; `flow_permuted`: with frames and words of the row half a batch away; `euler`: of sampled
    actions; `mean_action`: of their mean; `regression`: of the linear layer.
    """
    sums: dict[str, float] = defaultdict(float)
    aligned: list[Tensor] = []
    latents: list[Tensor] = []
    for batch, flat in zip(batches(), embedded, strict=True):
        if batch.actions is None or batch.labelled is None:
            continue
        outputs = network.action_outputs(batch, flat.to(batch.frames.device), "held-out flow", 0)
        known = batch.labelled
        errors: dict[str, Tensor] = {"mean_action": batch.actions.square().flatten(1).mean(1)}
        if network.regression is not None:
            errors["regression"] = (outputs["regressed"] - batch.actions.flatten(1)).square().mean(1)
        if network.policy is not None:
            errors |= {"flow": outputs["flow"], **_of_policy(network, batch)}
            aligned.append(outputs["aligned"][known].cpu())
            latents.append(flat[known.cpu()])
        for name, values in errors.items():
            sums[name] += values[known].sum().item()
        sums["rows"] += known.sum().item()
    if not sums["rows"]:
        return {}
    measured = {name: total / sums["rows"] for name, total in sums.items() if name != "rows"}
    if aligned:
        measured |= alignment_measures(torch.cat(aligned)[:LARGEST], torch.cat(latents)[:LARGEST])
    return measured


def _of_policy(network: JointNetwork, batch: Batch) -> dict[str, Tensor]:
    assert network.policy is not None
    assert batch.actions is not None
    assert batch.labelled is not None
    actions = torch.where(batch.labelled[:, None, None], batch.actions, 0.0)
    context, seen = network.condition(batch.frames[:, 0], batch.text)
    half = len(context) // 2
    permuted = network.flow(
        batch, actions, context.roll(half, 0), seen.roll(half, 0), "held-out flow", 0
    )  # fmt: skip
    noise = row_noise(batch.seed, "held-out sample", 0, batch.rows, network.action_shape).to(context.device)
    sampled = network.policy.sample(noise, context, seen)
    return {
        "flow_permuted": permuted["flow"],
        "euler": (sampled - actions).square().flatten(1).mean(1),
    }
