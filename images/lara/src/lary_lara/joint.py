"""The tokenizer and what is trained with it: a policy with the layer of its alignment, or a layer of regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lary_parts.encoders import draw_weights, make_encoder
from lary_parts.flow import draw_flow
from lary_parts.layers import sines
from lary_parts.words import word_numbers
from lary_schema.base import WeightsError
from lary_schema.training import MODEL_FILE
from lary_trainer.trainee import Batch, Facts, Outputs
from lary_worker.checkpoints import load_strict, read_state
from numpy.typing import NDArray
from torch import Tensor, nn

from lary_lara.checkpoint import load_state, read_checkpoint_config
from lary_lara.joint_facts import LaraConfig
from lary_lara.network import Tokenizer, make_tokenizer
from lary_lara.policy import FlowPolicy


class JointNetwork(nn.Module):
    """The policy sees the first frame by the tokenizer's own frozen encoder."""

    policy: FlowPolicy | None
    alignment: nn.Linear | None
    regression: nn.Linear | None

    def __init__(self, config: LaraConfig, tokenizer: Tokenizer, facts: Facts) -> None:
        super().__init__()
        assert facts.action_shape is not None
        self.config, self.action_shape = config, facts.action_shape
        self.known_words = facts.words if config.instruction else ()
        self.tokenizer = tokenizer
        latent = config.queries * config.code_width
        numbers = self.action_shape[0] * self.action_shape[1]
        self.policy = self.alignment = None
        if config.policy == "flow":
            encoder, width = tokenizer.image_encoder, config.policy_width
            self.policy = FlowPolicy(
                width, config.policy_blocks, config.policy_heads, self.action_shape, encoder.width,
                len(self.known_words),
            )  # fmt: skip
            self.alignment = nn.Linear(width, latent)
        self.regression = nn.Linear(latent, numbers) if config.action_head == "linear" else None

    def condition(self, frames: Tensor, text: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """uint8 (B, S, S, 3) and texts -> the policy's context and which of its tokens there are."""
        assert self.policy is not None
        tokenizer = self.tokenizer
        features = tokenizer.features(tokenizer.pixels(frames))
        positions = None
        if tokenizer.image_encoder.positions:
            positions = sines(tokenizer.config.side, self.config.policy_width, features)
        said = word_numbers(text if self.config.instruction else (), self.known_words, len(frames))
        return self.policy.condition(features, positions, said.to(frames.device))

    def action_outputs(self, batch: Batch, embeddings: Tensor, purpose: str, step: int) -> Outputs:
        """By row: the policy's squared error, the state that is aligned, actions as the regression reads them from the
        embedding (B, S * A), and whose actions are known (1 or 0)."""
        if batch.actions is None or batch.labelled is None:
            return {"labelled": torch.zeros(len(batch.frames), device=batch.frames.device)}
        actions = torch.where(batch.labelled[:, None, None], batch.actions, 0.0)
        outputs: Outputs = {"labelled": batch.labelled.float()}
        if self.regression is not None:
            outputs["regressed"] = self.regression(embeddings.flatten(1))
        if self.policy is not None:
            context, seen = self.condition(batch.frames[:, 0], batch.text)
            outputs |= self.flow(batch, actions, context, seen, purpose, step)
        return outputs

    def flow(self, batch: Batch, actions: Tensor, context: Tensor, seen: Tensor, purpose: str, step: int) -> Outputs:
        """`flow` (B,), squared error of the velocity; `aligned` (B, Q * D), what the alignment reads."""
        assert self.policy is not None
        assert self.alignment is not None
        times, noise = draw_flow(batch, purpose, step, self.action_shape)
        part = times[:, None, None]
        velocity, hidden = self.policy((1 - part) * noise + part * actions, times, context, seen)
        chosen = hidden[self.config.alignment_layer][:, self.config.alignment_token]
        error = (velocity - (actions - noise)).square().flatten(1).mean(1)
        return {"flow": error, "aligned": self.alignment(chosen)}


def make_joint(config: LaraConfig, tokenizer: Tokenizer, facts: Facts, seed: int) -> JointNetwork:
    """First weights of what is new are drawn from `seed`; a tokenizer that is not to be trained is frozen."""
    network = JointNetwork(config, tokenizer, facts)
    for name, part in network.named_children():
        if part is not tokenizer:
            draw_weights(part, seed, f"joint {name}", "fan-in")
    if config.lam == "frozen":
        tokenizer.requires_grad_(False)
    return network


def load_policy(folder: Path, encoder: Path | None) -> tuple[JointNetwork, NDArray[np.float64], NDArray[np.float64]]:
    """The network of a checkpoint folder, and mean and deviation (A,) of the actions that it was trained on.

    `encoder`: the downloaded one, which no checkpoint holds; None where it has another. Raises WeightsError where the
    folder has no policy, and for tensors missing or left over.
    """
    document = read_checkpoint_config(folder)
    own = dict(document.policy or {})
    if own.get("policy") != "flow" or "action_mean" not in own:
        raise WeightsError(f"{folder}: no policy to act by; train a recipe of lara with policy: flow, by this version")
    facts = {name: own.pop(name) for name in ("action_shape", "words", "action_mean", "action_std")}
    settings = LaraConfig.parse(document.tokenizer.model_dump(mode="json") | own, f"{folder}: policy")
    tokenizer = make_tokenizer(settings.tokenizer, make_encoder(settings.tokenizer, encoder), 0)
    shape = (int(facts["action_shape"][0]), int(facts["action_shape"][1]))
    network = JointNetwork(settings, tokenizer, Facts(rows=1, action_shape=shape, words=tuple(facts["words"])))
    state = read_state(folder / MODEL_FILE)
    load_state(tokenizer, dict(state), folder / MODEL_FILE)
    inside = tokenizer.state_dict()
    parts = {f"tokenizer.{name}": tensor for name, tensor in inside.items()}
    kept = {name: tensor for name, tensor in state.items() if name not in inside}
    load_strict(network, parts | kept, folder / MODEL_FILE)
    return network, np.array(facts["action_mean"], np.float64), np.array(facts["action_std"], np.float64)
